//! A file of the request log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

/// Appended to, and opened again when somebody has moved it away.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Makes the file, and its folder, if need be.
    ///
    /// # Errors
    /// One of them cannot be made or written to.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Whatever is at the path from now on; if nothing can be, the file as before.
    pub(super) fn reopen(&mut self) {
        match Self::open(self.path.clone()) {
            Ok(file) => *self = file,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%error, "cannot open {path} again: the old file is written to");
            }
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}
