//! Where the server is and how to reach it.
//!
//! Behind a trait so that tests run on pipes in memory: only without sockets can
//! a test's clock stand still.

use std::{fmt, io, str::FromStr};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::BenchError;

/// Both directions of a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens connections to one server.
pub trait Connect: Send + Sync {
    /// One new connection.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>>;
}

/// `http://host:port/prefix`, split up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// Name or address and port, as the `Host` header has it.
    pub authority: String,
    /// Before every path; empty or `/...` without a slash at the end.
    pub prefix: String,
}

impl FromStr for BaseUrl {
    type Err = BenchError;

    fn from_str(url: &str) -> Result<Self, BenchError> {
        let bad = || BenchError::Url { url: url.to_owned() };
        let rest = url.strip_prefix("http://").ok_or_else(bad)?;
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let parsed: hyper::http::uri::Authority = authority.parse().map_err(|_| bad())?;
        let port = parsed.port_u16().unwrap_or(80);
        Ok(Self {
            authority: format!("{}:{port}", parsed.host()),
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// Over the network.
#[derive(Debug, Clone)]
pub struct Tcp(pub BaseUrl);

impl Connect for Tcp {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let socket = TcpStream::connect(&self.0.authority).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn Io>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let parse = |url: &str| url.parse::<BaseUrl>().map(|url| (url.authority, url.prefix));
        let split = |authority: &str, prefix: &str| (authority.to_owned(), prefix.to_owned());
        assert_eq!(parse("http://localhost:30000").unwrap(), split("localhost:30000", ""));
        assert_eq!(parse("http://example.org/a/b/").unwrap(), split("example.org:80", "/a/b"));
        assert_eq!(parse("http://[::1]:8080/").unwrap(), split("[::1]:8080", ""));
        for bad in ["https://example.org", "localhost:30000", "http://"] {
            assert!(matches!(parse(bad), Err(BenchError::Url { url }) if url == bad), "{bad}");
        }
    }
}
