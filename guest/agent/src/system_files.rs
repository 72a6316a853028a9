//! Files of the guest's system that the agent changes as root.
//!
//! An image, or root inside, may have put anything in their places: links, pipes, directories. Nothing here waits for a
//! pipe, reads more than a bound, or leaves half of a file where another program may read it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Larger files are none that a system has in these places.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
const BEGIN: &[u8] = b"# Skerry: begin\n";
const END: &[u8] = b"# Skerry: end\n";

/// Opens a regular file, through links.
fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Without O_NONBLOCK the open of a pipe would wait for its other end.
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(ErrorKind::InvalidInput.into()),
    }
}

/// What a regular file holds.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_regular(path, OpenOptions::new().read(true))?;
    if file.metadata()?.len() > MAX_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What changes with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Stamp> {
        let found = file.metadata()?;
        Ok(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }

    /// Fails if the file cannot be appended to.
    pub fn of_writable(path: &Path) -> io::Result<Stamp> {
        Stamp::of(&open_regular(path, OpenOptions::new().append(true))?)
    }
}

/// Opens a file to append to it if nobody has changed it.
pub fn open_unchanged(path: &Path, stamp: &Stamp) -> io::Result<File> {
    let file = open_regular(path, OpenOptions::new().append(true))?;
    if Stamp::of(&file)? == *stamp { Ok(file) } else { Err(ErrorKind::Other.into()) }
}

pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    open_regular(path, OpenOptions::new().append(true))?.write_all(bytes)
}

/// Puts a file in the place of whatever is at `path`, be it a link. The mode is subject to the umask.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // The usual case, and every system call counts: nothing is there.
    match write_new(path, bytes, mode) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            replace_by(path, |new| write_new(new, bytes, mode))
        }
        result => result,
    }
}

/// Changes the file that `path` leads to, which keeps its owner and mode.
pub fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = path.canonicalize()?;
    let before = target.metadata()?;
    replace_by(&target, |new| {
        write_new(new, bytes, 0o600)?;
        chown(new, Some(before.uid()), Some(before.gid()))?;
        std::fs::set_permissions(new, Permissions::from_mode(before.mode() & 0o7777))
    })
}

/// `write` makes the new file, at the path that it is given.
fn replace_by(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path)?;
    // One that an earlier try has left.
    let _ = std::fs::remove_file(&beside);
    let result = write(&beside).and_then(|()| std::fs::rename(&beside, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    result
}

/// A name in the same directory which no program takes for one of its files: those of sudo have no dot, those of shells
/// and of update-ca-certificates another ending.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".skerry");
    Ok(path.with_file_name(hidden))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes)
}

/// A text with our part of it at its end, in the place of one that it has; `part` empty: without.
pub fn with_part(text: &[u8], part: &[u8]) -> Vec<u8> {
    let mut changed = without_part(text);
    changed.extend(part_of(&changed, part));
    changed
}

/// What is to be appended to a text that has no part of ours.
pub fn part_of(text: &[u8], part: &[u8]) -> Vec<u8> {
    if part.is_empty() {
        return Vec::new();
    }
    let ends_a_line = |text: &[u8]| text.last().is_none_or(|last| *last == b'\n');
    let newline = |text| if ends_a_line(text) { &b""[..] } else { b"\n" };
    [newline(text), BEGIN, part, newline(part), END].concat()
}

/// A text without our part.
pub fn without_part(text: &[u8]) -> Vec<u8> {
    let mut rest = text;
    let mut kept = Vec::with_capacity(text.len());
    while let Some(start) = find_line(rest, BEGIN) {
        let Some(length) = find_line(&rest[start..], END) else { break };
        kept.extend_from_slice(&rest[..start]);
        rest = &rest[start + length + END.len()..];
    }
    kept.extend_from_slice(rest);
    kept
}

pub fn has_part(text: &[u8]) -> bool {
    find_line(text, BEGIN).is_some()
}

/// Where a line that begins with '#' is.
fn find_line(text: &[u8], line: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].iter().position(|byte| *byte == b'#')?;
        if text[at..].starts_with(line) && (at == 0 || text[at - 1] == b'\n') {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::test_directory::TestDirectory;

    #[test]
    fn our_part_is_added_replaced_and_taken_away() {
        for text in [&b""[..], b"one\n", b"# one\n\n"] {
            let once = with_part(text, b"mine\n");
            assert!(has_part(&once) && !has_part(text));
            assert_eq!(once, [text, BEGIN, b"mine\n", END].concat());
            assert_eq!(once, [text, &part_of(text, b"mine\n")].concat());
            assert_eq!(with_part(&once, b"mine\n"), once);
            assert_eq!(with_part(&once, b"new"), [text, BEGIN, b"new\n", END].concat());
            assert_eq!(with_part(&once, b""), text);
        }
        assert_eq!(with_part(b"no newline", b"x\n"), [b"no newline\n", BEGIN, b"x\n", END].concat());
    }

    #[test]
    fn what_only_looks_like_our_part_stays() {
        for text in
            [&b"x # Skerry: begin\n# Skerry: end\n"[..], b"# Skerry: begin\nand no end", b"#", b"##\n"]
        {
            assert_eq!(without_part(text), text);
        }
    }

    #[test]
    fn text_behind_and_between_our_parts_stays() {
        let text = [&b"a\n"[..], BEGIN, b"1\n", END, b"b\n", BEGIN, END, b"c"].concat();
        assert_eq!(without_part(&text), b"a\nb\nc");
    }

    #[test]
    fn only_files_of_a_sensible_size_are_read() {
        let directory = TestDirectory::new();
        let path = directory.path.join("file");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read(&path).unwrap(), b"text");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&path).is_err());
        assert!(read(&directory.path).is_err());
        let pipe = directory.path.join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(read(&pipe).is_err());
        assert!(append(&pipe, b"x").is_err());
    }

    #[test]
    fn a_replaced_file_has_its_mode_and_takes_the_place_of_a_link() {
        let directory = TestDirectory::new();
        let (path, other) = (directory.path.join("file"), directory.path.join("other"));
        std::fs::write(&other, "theirs").unwrap();
        for target in [Path::new("other"), Path::new("nowhere")] {
            symlink(target, &path).unwrap();
            replace(&path, b"ours", 0o440).unwrap();
            let found = path.symlink_metadata().unwrap();
            assert!(found.is_file());
            assert_eq!(found.mode() & 0o7777, 0o440);
            assert_eq!(read(&path).unwrap(), b"ours");
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(read(&other).unwrap(), b"theirs");
        assert!(replace(&directory.path.join("none/file"), b"x", 0o644).is_err());
        assert_eq!(std::fs::read_dir(&directory.path).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_rewritten_file_stays_behind_its_link_and_keeps_its_mode() {
        let directory = TestDirectory::new();
        let (link, file) = (directory.path.join("link"), directory.path.join("file"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        rewrite(&link, b"new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
        append(&link, b"er").unwrap();
        assert_eq!(read(&file).unwrap(), b"newer");
        assert!(rewrite(&directory.path.join("none"), b"x").is_err());
    }
}
