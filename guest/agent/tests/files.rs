//! File methods: what they do, as whom, and how they fail.

mod host;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use host::{Event, Host, TempDir, command, pattern};
use skerry_protocol::methods::*;
use skerry_protocol::{Frame, Text};

fn text(path: &Path) -> Text {
    Text::from(path.to_str().unwrap())
}

fn write(path: &Path, data: &[u8]) -> WriteParams {
    WriteParams {
        path: text(path),
        data: data.to_vec().into(),
        append: false,
        create: true,
        create_new: false,
        mode: None,
    }
}

fn open_for(path: &Path) -> WriteOpenParams {
    WriteOpenParams { path: text(path), append: false, create: true, create_new: false, mode: None }
}

fn read(path: &Path, inline_max: u64) -> ReadParams {
    ReadParams { path: text(path), inline_max, credit: 1 << 20 }
}

fn read_inline(host: &mut Host, path: &Path) -> Vec<u8> {
    match host.call(FS_READ, &read(path, 1 << 20)).expect("the file is read") {
        ReadValue::Inline { data } => data.into_vec(),
        ReadValue::Stream { .. } => panic!("not inline"),
    }
}

fn read_stream(host: &mut Host, params: &ReadParams) -> (u32, u64) {
    match host.call(FS_READ, params).expect("the file is read") {
        ReadValue::Stream { stream, size } => (stream, size),
        ReadValue::Inline { .. } => panic!("not a stream"),
    }
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_file_is_written_and_read() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    host.call::<()>(FS_WRITE, &write(&path, b"Hello, World!")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"Hello, World!");
    assert_eq!(mode_of(&path), 0o644);
    assert_eq!(read_inline(&mut host, &path), b"Hello, World!");
    host.call::<()>(FS_WRITE, &write(&path, b"short")).unwrap();
    assert_eq!(read_inline(&mut host, &path), b"short");
}

#[test]
fn the_options_of_a_write_hold() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let no_create = WriteParams { create: false, ..write(&path, b"x") };
    assert_eq!(host.code_of(FS_WRITE, &no_create), "ENOENT");
    let create_new =
        WriteParams { create_new: true, create: false, mode: Some(0o666), ..write(&path, b"one") };
    assert_eq!(host.code_of(FS_WRITE, &create_new), "ok");
    assert_eq!(mode_of(&path), 0o666, "the mode does not depend on the umask");
    assert_eq!(host.code_of(FS_WRITE, &create_new), "EEXIST");
    let append = WriteParams { append: true, mode: Some(0o600), ..write(&path, b" two") };
    assert_eq!(host.code_of(FS_WRITE, &append), "ok");
    assert_eq!(mode_of(&path), 0o600, "the mode of a file that was there");
    assert_eq!(host.code_of(FS_WRITE, &no_create), "ok");
    assert_eq!(read_inline(&mut host, &path), b"x");
}

#[test]
fn errors_have_their_errno() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let file = directory.0.join("file");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(host.code_of(FS_READ, &read(&directory.0, 10)), "EISDIR");
    assert_eq!(host.code_of(FS_READ, &read(&directory.0.join("none"), 10)), "ENOENT");
    assert_eq!(host.code_of(FS_READ, &read(&file.join("below"), 10)), "ENOTDIR");
    assert_eq!(host.code_of(FS_READ, &read(Path::new(""), 10)), "ENOENT");
    assert_eq!(host.code_of(FS_READ, &read(Path::new("/a\0b"), 10)), "BAD_PARAMS");
    assert_eq!(host.code_of(FS_READ, &read(&file, (4 << 20) + 1)), "BAD_PARAMS");
    assert_eq!(host.code_of(FS_READ, &read(Path::new(&"/x".repeat(5000)), 10)), "ENAMETOOLONG");
    assert_eq!(host.code_of(FS_WRITE, &write(&directory.0, b"x")), "EISDIR");
    assert_eq!(host.code_of(FS_WRITE, &write(Path::new("/dev/full"), b"x")), "ENOSPC");
    assert_eq!(host.code_of(FS_READ_DIR, &PathParams { path: text(&file) }), "ENOTDIR");
}

#[test]
fn files_are_those_of_the_user() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut host = Host::start();
    let directory = TempDir::new();
    let mine = directory.0.join("roots");
    std::fs::write(&mine, "secret").unwrap();
    std::fs::set_permissions(&mine, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(host.code_of(FS_READ, &read(&mine, 10)), "EACCES");
    assert_eq!(host.code_of(FS_WRITE, &write(&mine, b"x")), "EACCES");
    let theirs = directory.0.join("theirs");
    assert_eq!(host.code_of(FS_WRITE, &write(&theirs, b"x")), "ok");
    assert_eq!(std::fs::metadata(&theirs).unwrap().uid(), 65534);
    let inside = directory.0.join("locked/inside");
    std::fs::create_dir(directory.0.join("locked")).unwrap();
    std::fs::write(&inside, "x").unwrap();
    let remove = RemoveParams { path: text(&inside), recursive: false };
    assert_eq!(host.code_of(FS_REMOVE, &remove), "EACCES");
    // The agent itself is still root: it can start processes as anybody.
    assert_eq!(host.code_of(PROCESS_SPAWN, &SpawnParams { user: User::Root, ..command("true", &[]) }), "ok");
}

#[test]
fn a_large_file_comes_as_a_stream() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let bytes = pattern(7_000_001);
    std::fs::write(&path, &bytes).unwrap();
    let (stream, size) = read_stream(&mut host, &read(&path, 1 << 20));
    assert_eq!(size, bytes.len() as u64);
    assert!(host.read_all(stream) == bytes, "the bytes differ");
    assert_eq!(host.call::<StreamList>(STREAM_LIST, &()).unwrap().streams, []);
    // With no credit it waits to be attached.
    let (stream, _) = read_stream(&mut host, &ReadParams { credit: 0, ..read(&path, 10) });
    host.frame(Frame::Attach { stream, from: 0, limit: 1 << 20 });
    assert!(host.read_all(stream) == bytes, "the bytes differ");
}

#[test]
fn a_file_stream_goes_on_after_a_broken_connection() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let bytes = pattern(3_000_000);
    std::fs::write(&path, &bytes).unwrap();
    let (stream, _) = read_stream(&mut host, &ReadParams { credit: 500_000, ..read(&path, 0) });
    let Event::Data { bytes: first, .. } = host.next_of(stream) else { panic!("no bytes") };
    host.redial();
    host.events.clear();
    let from = first.len() as u64;
    host.frame(Frame::Attach { stream, from, limit: from + 1 });
    assert!(host.read_from(stream, from, 400_000) == bytes[first.len()..], "the bytes differ");
    // END may have been lost: it is said again, though the stream is forgotten.
    host.redial();
    host.frame(Frame::Attach { stream, from: bytes.len() as u64, limit: u64::MAX });
    assert_eq!(host.next_of(stream), Event::End { stream, total: bytes.len() as u64 });
    host.frame(Frame::Attach { stream, from: 5, limit: u64::MAX });
    assert_eq!(host.reset(stream).code, "UNKNOWN_STREAM");
}

#[test]
fn files_without_a_size_are_read_to_their_end() {
    let mut host = Host::start();
    let status = read_inline(&mut host, Path::new("/proc/self/status"));
    assert!(status.starts_with(b"Name:"));
    assert!(read_inline(&mut host, Path::new("/proc/sys/kernel/ostype")).starts_with(b"Linux"));
    // Too large for an inline answer, although it says that it is empty.
    let (stream, size) = read_stream(&mut host, &read(Path::new("/proc/self/status"), 10));
    assert_eq!(size, 0);
    assert!(host.read_all(stream).starts_with(b"Name:"));
}

#[test]
fn pipes_and_devices_do_not_hold_the_agent() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let fifo = directory.0.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    std::fs::set_permissions(&fifo, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(host.code_of(FS_WRITE, &write(&fifo, b"x")), "ENXIO");
    let writer = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let waiting: Vec<u32> = (0..60).map(|_| read_stream(&mut host, &read(&fifo, 10)).0).collect();
    assert!(read_inline(&mut host, Path::new("/proc/sys/kernel/ostype")).starts_with(b"Linux"));
    drop(writer);
    for stream in waiting {
        assert_eq!(host.read_all(stream), b"");
    }
    let (stream, _) = read_stream(&mut host, &read(Path::new("/dev/zero"), 10));
    assert!(matches!(host.next_of(stream), Event::Data { .. }));
    let enough = skerry_protocol::message::to_msgpack(&skerry_protocol::Failure::new("RESET", "enough"));
    host.frame(Frame::Reset { stream, body: &enough });
    let (stream, _) = read_stream(&mut host, &read(Path::new("/dev/null"), 10));
    assert_eq!(host.read_all(stream), b"");
}

#[test]
fn only_64_reads_are_under_way() {
    let mut host = Host::start();
    let zero = ReadParams { credit: 0, ..read(Path::new("/dev/zero"), 0) };
    let streams: Vec<u32> = (0..64).map(|_| read_stream(&mut host, &zero).0).collect();
    assert_eq!(host.code_of(FS_READ, &zero), "BUDGET");
    host.frame(Frame::Detach { stream: streams[0] });
    assert_eq!(host.code_of(FS_READ, &zero), "ok");
}

#[test]
fn a_file_is_written_from_a_stream() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let bytes = pattern(5_000_003);
    let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open_for(&path)).unwrap();
    let closing = host.send(FS_WRITE_CLOSE, &StreamRef { stream });
    host.write_all(stream, &bytes);
    assert_eq!(host.response::<WrittenSize>(closing).unwrap().size, bytes.len() as u64);
    assert!(std::fs::read(&path).unwrap() == bytes, "the bytes differ");
    // Asked again, it says the same.
    assert_eq!(
        host.call::<WrittenSize>(FS_WRITE_CLOSE, &StreamRef { stream }).unwrap().size,
        bytes.len() as u64
    );
    let StreamRef { stream } =
        host.call(FS_WRITE_OPEN, &WriteOpenParams { append: true, ..open_for(&path) }).unwrap();
    host.write_all(stream, b"");
    assert_eq!(host.call::<WrittenSize>(FS_WRITE_CLOSE, &StreamRef { stream }).unwrap().size, 0);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
    assert_eq!(host.code_of(FS_WRITE_CLOSE, &StreamRef { stream: 1_000_000 }), "UNKNOWN_STREAM");
}

#[test]
fn a_failing_write_stream_is_reset_and_its_close_says_why() {
    let mut host = Host::start();
    let directory = TempDir::new();
    assert_eq!(host.code_of(FS_WRITE_OPEN, &open_for(&directory.0.join("no/file"))), "ENOENT");
    let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open_for(Path::new("/dev/full"))).unwrap();
    host.frame(Frame::Data { stream, offset: 0, bytes: b"x" });
    assert_eq!(host.reset(stream).code, "ENOSPC");
    assert_eq!(host.code_of(FS_WRITE_CLOSE, &StreamRef { stream }), "ENOSPC");

    let path = directory.0.join("given-up");
    let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open_for(&path)).unwrap();
    let closing = host.send(FS_WRITE_CLOSE, &StreamRef { stream });
    let enough = skerry_protocol::message::to_msgpack(&skerry_protocol::Failure::new("RESET", "enough"));
    host.frame(Frame::Reset { stream, body: &enough });
    assert_eq!(host.response::<WrittenSize>(closing).unwrap_err().code, "RESET");
}

#[test]
fn a_write_stream_goes_on_after_a_broken_connection() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open_for(&path)).unwrap();
    host.frame(Frame::Data { stream, offset: 0, bytes: b"first " });
    host.redial();
    let from = host.event("ATTACH", |event| match event {
        Event::Attach { stream: this, from, .. } if *this == stream => Some(*from as usize),
        _ => None,
    });
    let all = b"first second";
    host.frame(Frame::Data { stream, offset: from as u64, bytes: &all[from..] });
    host.frame(Frame::End { stream, total: 12 });
    assert_eq!(host.call::<WrittenSize>(FS_WRITE_CLOSE, &StreamRef { stream }).unwrap().size, 12);
    assert_eq!(std::fs::read(&path).unwrap(), all);
}

#[test]
fn directories_are_made_and_listed() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let mkdir = |name: &str, recursive, mode| MkdirParams { path: directory.text(name), recursive, mode };
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("a", false, Some(0o700))), "ok");
    assert_eq!(mode_of(&directory.0.join("a")), 0o700);
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("a", false, None)), "EEXIST");
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("a", true, None)), "ok");
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("x/y", false, None)), "ENOENT");
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("a/b//c/", true, None)), "ok");
    assert_eq!(mode_of(&directory.0.join("a/b/c")), 0o755);
    std::fs::write(directory.0.join("file"), "").unwrap();
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("file", true, None)), "EEXIST");
    assert_eq!(host.code_of(FS_MKDIR, &mkdir("file/d", true, None)), "ENOTDIR");
    symlink("nowhere", directory.0.join("link")).unwrap();
    std::os::unix::net::UnixListener::bind(directory.0.join("socket")).unwrap();
    let list = PathParams { path: text(&directory.0) };
    let mut entries = host.call::<DirEntries>(FS_READ_DIR, &list).unwrap().entries;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let shown: Vec<(String, FileKind)> =
        entries.iter().map(|entry| (format!("{:?}", entry.name), entry.kind)).collect();
    let expected = [
        ("a", FileKind::Dir),
        ("file", FileKind::File),
        ("link", FileKind::Symlink),
        ("socket", FileKind::Other),
    ];
    assert_eq!(shown, expected.map(|(name, kind)| (format!("{name:?}"), kind)));
}

#[test]
fn trees_are_removed_without_following_links() {
    let mut host = Host::start();
    let (directory, outside) = (TempDir::new(), TempDir::new());
    std::fs::write(outside.0.join("kept"), "x").unwrap();
    let tree = directory.0.join("tree");
    let mkdir = MkdirParams { path: text(&tree.join("a/b/c")), recursive: true, mode: Some(0o755) };
    host.call::<()>(FS_MKDIR, &mkdir).unwrap();
    for name in ["one", "a/two", "a/b/three", "a/b/c/four"] {
        host.call::<()>(FS_WRITE, &write(&tree.join(name), b"x")).unwrap();
    }
    std::fs::set_permissions(tree.join("a"), std::fs::Permissions::from_mode(0o777)).unwrap();
    symlink(&outside.0, tree.join("a/link")).unwrap();
    let remove = |path: &Path, recursive| RemoveParams { path: text(path), recursive };
    assert_eq!(host.code_of(FS_REMOVE, &remove(&tree, false)), "ENOTEMPTY");
    assert_eq!(host.code_of(FS_REMOVE, &remove(&tree, true)), "ok");
    assert!(!tree.exists());
    assert_eq!(host.code_of(FS_REMOVE, &remove(&tree, true)), "ENOENT");
    // A link is removed itself, however it is written.
    let link = directory.0.join("link");
    symlink(&outside.0, &link).unwrap();
    let slashes = Text::from(format!("{}//", link.display()).as_str());
    assert_eq!(host.code_of(FS_REMOVE, &RemoveParams { path: slashes, recursive: true }), "ok");
    assert!(!link.is_symlink());
    assert!(outside.0.join("kept").exists());
}

#[test]
fn a_very_deep_tree_is_removed() {
    use rustix::fs::{CWD, Mode, OFlags, fchmod, mkdirat, openat};

    let mut host = Host::start();
    let directory = TempDir::new();
    let top = directory.0.join("deep");
    std::fs::create_dir(&top).unwrap();
    let open = |parent: &rustix::fd::OwnedFd, name: &str| {
        let opened = openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        fchmod(&opened, Mode::from_raw_mode(0o777)).unwrap();
        opened
    };
    let mut current = open(&openat(CWD, &directory.0, OFlags::RDONLY, Mode::empty()).unwrap(), "deep");
    // Its path is eight times as long as a path may be.
    let name = "d".repeat(100);
    for _ in 0..320 {
        mkdirat(&current, &name, Mode::from_raw_mode(0o777)).unwrap();
        openat(&current, "f", OFlags::CREATE, Mode::from_raw_mode(0o666)).unwrap();
        current = open(&current, &name);
    }
    assert_eq!(host.code_of(FS_REMOVE, &RemoveParams { path: text(&top), recursive: true }), "ok");
    assert!(!top.exists());
}

#[test]
fn stat_tells_what_the_kernel_tells() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.0.join("file");
    std::fs::write(&path, "12345").unwrap();
    let link = directory.0.join("link");
    symlink(&path, &link).unwrap();
    for (path, follow, expected) in [
        (&path, true, std::fs::metadata(&path).unwrap()),
        (&link, true, std::fs::metadata(&path).unwrap()),
        (&link, false, std::fs::symlink_metadata(&link).unwrap()),
    ] {
        let stat = host.call::<FileStat>(FS_STAT, &StatParams { path: text(path), follow }).unwrap();
        assert_eq!(
            (stat.size, stat.mode, stat.ino, stat.dev),
            (expected.size(), expected.mode(), expected.ino(), expected.dev())
        );
        assert_eq!(
            (stat.uid, stat.gid, stat.nlink, stat.rdev),
            (expected.uid(), expected.gid(), expected.nlink(), expected.rdev())
        );
        assert_eq!((stat.blksize, stat.blocks), (expected.blksize(), expected.blocks()));
        assert_eq!(stat.mtime_ns, expected.mtime() * 1_000_000_000 + expected.mtime_nsec());
        assert_eq!(stat.kind == FileKind::Symlink, !follow);
    }
    let gone = StatParams { path: text(&directory.0.join("none")), follow: true };
    assert_eq!(host.code_of(FS_STAT, &gone), "ENOENT");
    let device =
        host.call::<FileStat>(FS_STAT, &StatParams { path: Text::from("/dev/null"), follow: true }).unwrap();
    assert_eq!((device.kind, device.rdev), (FileKind::Other, rustix::fs::makedev(1, 3)));
}
