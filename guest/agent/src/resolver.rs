//! What the guest asks about names: written at boot over what the image has.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::log;
use crate::system_files::{append, read, replace};

/// The gateway answers there, in every sandbox. Source of the format: resolv.conf(5).
const RESOLV_CONF: &[u8] = b"nameserver 198.18.0.1\noptions timeout:2 attempts:2\n";
const LOCALHOST: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

pub fn prepare(root: &Path) {
    if let Err(error) = replace(&root.join("etc/resolv.conf"), RESOLV_CONF, 0o644) {
        log::error(&format!("cannot write /etc/resolv.conf: {error}"));
    }
    if let Err(error) = name_localhost(&root.join("etc/hosts")) {
        log::error(&format!("cannot write /etc/hosts: {error}"));
    }
}

fn name_localhost(hosts: &Path) -> io::Result<()> {
    match read(hosts) {
        Ok(text) if names_localhost(&text) => Ok(()),
        Ok(text) if text.last().is_some_and(|last| *last != b'\n') => {
            append(hosts, &[b"\n", LOCALHOST].concat())
        }
        Ok(_) => append(hosts, LOCALHOST),
        Err(error) if error.kind() == ErrorKind::NotFound => replace(hosts, LOCALHOST, 0o644),
        Err(error) => Err(error),
    }
}

/// Whether a line of hosts(5) has that name.
fn names_localhost(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        line.split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .skip(1)
            .any(|word| word == b"localhost")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::test_directory::TestDirectory;

    fn etc() -> TestDirectory {
        let image = TestDirectory::new();
        std::fs::create_dir(image.path.join("etc")).unwrap();
        image
    }

    #[test]
    fn names_are_asked_of_the_gateway_whatever_the_image_has() {
        let kinds: [fn(&Path); 3] = [
            |_| {},
            |path| std::fs::write(path, "nameserver 10.0.0.1\n").unwrap(),
            |path| symlink("../run/systemd/resolve/stub-resolv.conf", path).unwrap(),
        ];
        for make in kinds {
            let image = etc();
            let path = image.path.join("etc/resolv.conf");
            make(&path);
            prepare(&image.path);
            assert!(path.symlink_metadata().unwrap().is_file());
            assert_eq!(std::fs::read(&path).unwrap(), RESOLV_CONF);
        }
    }

    #[test]
    fn localhost_is_named_once() {
        let ours = std::str::from_utf8(LOCALHOST).unwrap();
        for (before, added) in [
            ("", ours.to_owned()),
            ("127.0.0.1 localhost\n", String::new()),
            ("127.0.0.1 x\tlocalhost # y", String::new()),
            ("# 127.0.0.1 localhost\nlocalhost x", format!("\n{ours}")),
        ] {
            let image = etc();
            let path = image.path.join("etc/hosts");
            std::fs::write(&path, before).unwrap();
            for _ in 0..2 {
                prepare(&image.path);
                assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{before}{added}"));
            }
        }
        let image = etc();
        prepare(&image.path);
        assert_eq!(std::fs::read(image.path.join("etc/hosts")).unwrap(), LOCALHOST);
    }

    #[test]
    fn an_image_without_etc_boots_too() {
        let image = TestDirectory::new();
        prepare(&image.path);
        assert!(!image.path.join("etc").exists());
    }
}
