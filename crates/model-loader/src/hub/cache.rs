//! The cache folder, in the layout of the hub's own tools:
//! `models--org--name/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>}`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{HubError, io as io_error, is_commit};

pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        let folder = format!("models--{}", id.replace('/', "--"));
        Self { root: cache_dir.join(&folder), locks: cache_dir.join(".locks").join(folder) }
    }

    /// The folder of a commit, whether it exists or not.
    pub(super) fn snapshot_dir(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The folder of a revision, if it was fetched before.
    pub(super) fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = match is_commit(revision) {
            true => revision.to_owned(),
            false => fs::read_to_string(self.root.join("refs").join(revision)).ok()?,
        };
        let commit = commit.trim();
        let folder = self.snapshot_dir(commit);
        (is_commit(commit) && folder.join("config.json").exists()).then_some(folder)
    }

    pub(super) fn pointer(&self, commit: &str, name: &str) -> PathBuf {
        self.snapshot_dir(commit).join(name)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a blob grows.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Keeps other processes from fetching the same blob; waits for them.
    pub(super) fn lock(&self, etag: &str) -> Result<File, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        let lock = || -> io::Result<File> {
            fs::create_dir_all(&self.locks)?;
            fs::create_dir_all(self.root.join("blobs"))?;
            let file = File::create(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|source| io_error(&path, source))
    }

    /// Makes a blob appear under its name in a snapshot.
    pub(super) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<(), HubError> {
        let pointer = self.pointer(commit, name);
        let link = || -> io::Result<()> {
            fs::create_dir_all(pointer.parent().expect("a pointer lies in a snapshot"))?;
            let up = "../".repeat(name.matches('/').count());
            let target = Path::new(&up).join("../../blobs").join(etag);
            match std::os::unix::fs::symlink(target, &pointer) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                // A file system without links gets a copy.
                Err(_) => fs::copy(self.blob(etag), &pointer).map(|_| ()),
                Ok(()) => Ok(()),
            }
        };
        link().map_err(|source| io_error(&pointer, source))
    }

    /// Remembers which commit a branch or tag was.
    pub(super) fn set_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().expect("refs/<revision> has a parent"))?;
            fs::write(&path, commit)
        };
        write().map_err(|source| io_error(&path, source))
    }
}
