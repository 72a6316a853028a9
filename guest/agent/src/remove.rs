//! Removing a file or a whole tree, without following symlinks.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

/// Deeper trees are refused: each level costs memory while those below it are removed.
const MAX_DEPTH: usize = 100_000;
/// How often a directory is read before it is given up.
const MAX_PASSES: usize = 1000;

/// A directory on the way down: what its parent calls it, and which directory the parent is.
struct Level {
    name: Vec<u8>,
    parent: (u64, u64),
}

/// Removes `path`; a directory that is not empty only when `recursive`.
///
/// A tree is walked with one open directory at a time and without recursion, since a guest can make it as deep as it
/// likes. On the way up `..` must be the directory that we came from, or something moved the tree meanwhile.
pub fn remove_tree(path: &[u8], recursive: bool) -> Result<(), Errno> {
    // "link/" would be the directory that the link points to.
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    let path = &path[..end.min(path.len())];
    let is_directory = is_directory(CWD, path)?;
    if !is_directory {
        return unlinkat(CWD, path, AtFlags::empty());
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) if recursive => {}
        result => return result,
    }
    empty(open_directory(CWD, path)?)?;
    unlinkat(CWD, path, AtFlags::REMOVEDIR)
}

fn is_directory(parent: impl std::os::fd::AsFd, name: &[u8]) -> Result<bool, Errno> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    fstat(directory).map(|found| (found.st_dev, found.st_ino))
}

/// Removes everything in a directory.
fn empty(top: OwnedFd) -> Result<(), Errno> {
    let mut levels: Vec<Level> = Vec::new();
    let mut current = top;
    loop {
        if let Some(name) = remove_entries(&current)? {
            if levels.len() >= MAX_DEPTH {
                return Err(Errno::LOOP);
            }
            let below = open_directory(&current, &name)?;
            levels.push(Level { name, parent: identity(&current)? });
            current = below;
            continue;
        }
        let Some(Level { name, parent }) = levels.pop() else { return Ok(()) };
        let above = open_directory(&current, b"..")?;
        if identity(&above)? != parent {
            return Err(Errno::BUSY);
        }
        unlinkat(&above, name.as_slice(), AtFlags::REMOVEDIR)?;
        current = above;
    }
}

/// Removes files and empty directories; stops at a directory that is not empty and answers its name.
///
/// A file system may leave out entries while others are removed, so the directory is read until it is found empty.
fn remove_entries(directory: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    for _ in 0..MAX_PASSES {
        match remove_once(directory)? {
            Pass::Empty => return Ok(None),
            Pass::Removed => {}
            Pass::Stopped(name) => return Ok(Some(name)),
        }
    }
    // Somebody makes files as fast as they are removed.
    Err(Errno::NOTEMPTY)
}

enum Pass {
    /// There was nothing.
    Empty,
    Removed,
    /// At a directory that is not empty.
    Stopped(Vec<u8>),
}

fn remove_once(directory: &OwnedFd) -> Result<Pass, Errno> {
    let mut outcome = Pass::Empty;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let may_be_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        let result = match unlinkat(directory, name, AtFlags::empty()) {
            // Linux says EISDIR, POSIX EPERM, for a directory.
            Err(Errno::ISDIR | Errno::PERM) if may_be_directory => {
                unlinkat(directory, name, AtFlags::REMOVEDIR)
            }
            result => result,
        };
        match result {
            Ok(()) | Err(Errno::NOENT) => outcome = Pass::Removed,
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Pass::Stopped(name.to_vec())),
            Err(errno) => return Err(errno),
        }
    }
    Ok(outcome)
}
