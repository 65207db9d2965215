//! Who is told how a download goes. The command line draws bars; a server
//! behind a service manager logs lines.

/// Receives news. All methods do nothing unless overridden.
pub trait Progress {
    /// A file of `total` bytes starts, of which `have` are there from before.
    fn file_started(&self, name: &str, have: u64, total: Option<u64>) {
        let _ = (name, have, total);
    }

    /// More bytes of the file arrived.
    fn file_advanced(&self, name: &str, bytes: u64) {
        let _ = (name, bytes);
    }

    /// The file is complete.
    fn file_finished(&self, name: &str) {
        let _ = name;
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {}
