//! What ends a benchmark; the failure of single requests does not.

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// `--base-url` is something else.
    #[error("`{url}` is no address of an http:// server (https is not supported)")]
    Url {
        /// As given.
        url: String,
    },
    /// A name that no backend has.
    #[error("unknown backend `{name}` (choose from {known})")]
    UnknownBackend {
        /// As given.
        name: String,
        /// All names.
        known: String,
    },
    /// Lengths or counts that make no request.
    #[error("{what}")]
    Dataset {
        /// What is wrong with them.
        what: String,
    },
    /// A request that the benchmark cannot do without.
    #[error("{path} of the server failed: {reason}")]
    Server {
        /// Path of the request.
        path: String,
        /// As the server or the connection says.
        reason: String,
    },
}
