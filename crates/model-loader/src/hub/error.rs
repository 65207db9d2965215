//! What can go wrong between here and the hub, and what to do about it.

use std::{io, path::PathBuf};

/// Why a model of the hub could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// 401 or 403. The hub says 401 as well for what does not exist.
    #[error(
        "the hub refuses {id}: it is gated or private, or there is no such model; if you have \
         access, set HF_TOKEN"
    )]
    Refused { id: String },

    /// 404.
    #[error("the hub has no model {id} at revision {revision}")]
    NotFound { id: String, revision: String },

    /// Any other status.
    #[error("{url}: the hub answers with status {status}")]
    Status { url: String, status: u16 },

    /// No answer at all.
    #[error("no connection to {url}: check the network, HF_ENDPOINT, or set HF_HUB_OFFLINE=1")]
    Network { url: String, source: Box<ureq::Error> },

    /// An answer that makes no sense.
    #[error("{url}: unexpected answer: {reason}")]
    Answer { url: String, reason: String },

    /// The connection broke again and again.
    #[error("{name}: the download broke off at {have} of {total} bytes; start again to resume")]
    Incomplete { name: String, have: u64, total: u64 },

    /// Told to stay offline, and the cache has no snapshot.
    #[error("{id} at revision {revision} is not in the cache, and HF_HUB_OFFLINE is set")]
    Offline { id: String, revision: String },

    /// A revision that cannot be one.
    #[error("{revision:?} is not a branch, tag or commit")]
    Revision { revision: String },

    /// The cache folder.
    #[error("cannot write {path}")]
    Io { path: PathBuf, source: io::Error },
}

impl HubError {
    /// Says which model a bare status was about.
    pub(super) fn about(self, id: &str, revision: &str) -> Self {
        let id = id.to_owned();
        match self {
            Self::Status { status: 401 | 403, .. } => Self::Refused { id },
            Self::Status { status: 404, .. } => {
                Self::NotFound { id, revision: revision.to_owned() }
            }
            other => other,
        }
    }
}
