//! For tests: a directory of their own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Goes away with its owner.
pub struct TestDirectory {
    pub path: PathBuf,
}

impl TestDirectory {
    pub fn new() -> TestDirectory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skerry-agent-unit-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new temporary directory");
        TestDirectory { path }
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
