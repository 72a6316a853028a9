//! Measures the agent through its channel: `cargo bench`. With `SKERRY_BENCH_SOCKET=PATH` it listens there for an agent
//! that somebody starts inside a sandbox; otherwise it starts one here.

#[path = "../tests/host/mod.rs"]
mod host;

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use host::{Host, command, pattern};
use skerry_protocol::Text;
use skerry_protocol::methods::*;

const FILE_BYTES: usize = 64 << 20;

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{what:<34} p50 {:>6} µs   p90 {:>6} µs   p99 {:>6} µs   n {}",
        at(0.5),
        at(0.9),
        at(0.99),
        times.len()
    );
}

fn throughput(what: &str, time: Duration) {
    println!("{what:<34} {:>6.0} MiB/s", (FILE_BYTES >> 20) as f64 / time.as_secs_f64());
}

fn run_true(host: &mut Host, stdout: Stdio) {
    let params = SpawnParams { stdout, stderr: stdout, ..command("true", &[]) };
    let spawned = host.spawn(&params);
    host.exit(spawned.pid);
    if let Some(stream) = spawned.stdout {
        host.read_all(stream);
    }
}

fn main() {
    let mut host = match std::env::var("SKERRY_BENCH_SOCKET") {
        Ok(path) => {
            let _ = std::fs::remove_file(&path);
            Host::accept_on(UnixListener::bind(&path).expect("a socket to listen on"))
        }
        Err(_) => Host::start(),
    };
    let samples =
        |count: usize, run: &mut dyn FnMut()| (0..count).map(|_| timed(&mut *run).1).collect::<Vec<_>>();

    report("env.all (round trip)", samples(2000, &mut || drop(host.call::<EnvAll>(ENV_ALL, &()))));
    report("spawn + exit of true, no output", samples(1000, &mut || run_true(&mut host, Stdio::Null)));
    report("spawn + exit of true, both piped", samples(1000, &mut || run_true(&mut host, Stdio::Piped)));

    let path = Text::from("/tmp/skerry-bench");
    let small = WriteParams {
        path: path.clone(),
        data: vec![7; 1000].into(),
        append: false,
        create: true,
        create_new: false,
        mode: None,
    };
    report("fs.write, 1 kB", samples(1000, &mut || host.call::<()>(FS_WRITE, &small).expect("written")));
    let read = ReadParams { path: path.clone(), inline_max: 65_536, credit: 0 };
    report(
        "fs.read, 1 kB",
        samples(1000, &mut || drop(host.call::<ReadValue>(FS_READ, &read).expect("read"))),
    );

    let bytes = pattern(FILE_BYTES);
    let open =
        WriteOpenParams { path: path.clone(), append: false, create: true, create_new: false, mode: None };
    for _ in 0..3 {
        let ((), time) = timed(|| {
            let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open).expect("opened");
            host.write_all(stream, &bytes);
            let WrittenSize { size } = host.call(FS_WRITE_CLOSE, &StreamRef { stream }).expect("written");
            assert_eq!(size, FILE_BYTES as u64);
        });
        throughput("file up, 64 MiB", time);
        let ((), time) = timed(|| {
            let read = ReadParams { path: path.clone(), inline_max: 0, credit: 1 << 20 };
            let ReadValue::Stream { stream, .. } = host.call(FS_READ, &read).expect("opened") else { return };
            assert!(host.read_all(stream) == bytes, "the file differs");
        });
        throughput("file down, 64 MiB", time);
        let ((), time) = timed(|| {
            let spawned = host.spawn(&command("dd", &["if=/dev/zero", "bs=1M", "count=64", "status=none"]));
            assert_eq!(host.read_all(spawned.stdout.expect("a stdout")).len(), FILE_BYTES);
            host.exit(spawned.pid);
        });
        throughput("output of dd, 64 MiB", time);
    }
    let remove = RemoveParams { path, recursive: false };
    host.call::<()>(FS_REMOVE, &remove).expect("removed");
}
