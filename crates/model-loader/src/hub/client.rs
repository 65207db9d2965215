//! HTTP with the hub: small answers, file metadata, and downloads that resume.
//!
//! Redirects are followed by hand. The first answer, not the last one, holds a
//! large file's etag and size, and the token must not travel to the content
//! network that it points to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, header},
};

use super::{HubError, HubOptions, io as io_error};
use crate::Progress;

const USER_AGENT: &str = concat!("sglang-mlx/", env!("CARGO_PKG_VERSION"));
const MAX_REDIRECTS: usize = 5;
/// Attempts in a row that bring not one byte.
const MAX_FRUITLESS: usize = 3;
const BUFFER_BYTES: usize = 256 << 10;

pub(super) struct Client {
    agent: Agent,
    /// Scheme and authority that the token is for.
    origin: String,
    token: Option<String>,
}

/// What the hub says about a file.
#[derive(Debug)]
pub(super) struct Metadata {
    /// Name of the blob.
    pub(super) etag: String,
    pub(super) size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Head,
    Get,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Self {
            agent: config.into(),
            origin: origin(&options.endpoint).to_owned(),
            token: options.token.clone(),
        }
    }

    /// A small text.
    pub(super) fn text(&self, url: &str) -> Result<String, HubError> {
        let mut response = self.follow(Method::Get, url, 0)?;
        checked(url, response.status())?;
        response.body_mut().read_to_string().map_err(|source| network(url, source))
    }

    /// Etag and size, without the content.
    pub(super) fn metadata(&self, url: &str) -> Result<Metadata, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::Head, &url, 0)?;
            let headers = response.headers();
            if !response.status().is_redirection() || headers.contains_key("x-linked-etag") {
                if !response.status().is_redirection() {
                    checked(&url, response.status())?;
                }
                return metadata(&url, headers);
            }
            url = location(&url, headers)?;
        }
        Err(answer(&url, "too many redirects"))
    }

    /// Fetches into `partial`, from where it ends now until it has `size` bytes.
    pub(super) fn download(
        &self,
        url: &str,
        name: &str,
        partial: &Path,
        size: u64,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let mut have = fs::metadata(partial).map_or(0, |file| file.len());
        if have > size {
            fs::remove_file(partial).map_err(|source| io_error(partial, source))?;
            have = 0;
        }
        progress.file_started(name, have, Some(size));
        let mut fruitless = 0;
        while have < size || !partial.exists() {
            match self.append(url, name, partial, have, progress) {
                Ok(()) | Err(HubError::Network { .. }) => {}
                Err(error) => return Err(error),
            }
            let now = fs::metadata(partial).map_or(0, |file| file.len());
            fruitless = if now > have { 0 } else { fruitless + 1 };
            have = now;
            if size == 0 {
                break;
            }
            if fruitless == MAX_FRUITLESS || have > size {
                return Err(HubError::Incomplete { name: name.to_owned(), have, total: size });
            }
        }
        progress.file_finished(name);
        Ok(())
    }

    /// One request; what arrives before the connection breaks is kept.
    fn append(
        &self,
        url: &str,
        name: &str,
        partial: &Path,
        have: u64,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let mut response = self.follow(Method::Get, url, have)?;
        let status = response.status();
        let resumes =
            status == StatusCode::PARTIAL_CONTENT && range_start(response.headers()) == Some(have);
        if status == StatusCode::PARTIAL_CONTENT && !resumes {
            return Err(answer(url, "another range than asked for"));
        }
        checked(url, status)?;
        let open = || -> io::Result<File> {
            if resumes {
                OpenOptions::new().append(true).open(partial)
            } else {
                File::create(partial)
            }
        };
        let mut file = open().map_err(|source| io_error(partial, source))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut reader = response.body_mut().as_reader();
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(source) => return Err(network(url, ureq::Error::Io(source))),
            };
            file.write_all(&buffer[..read]).map_err(|source| io_error(partial, source))?;
            progress.file_advanced(name, read as u64);
        }
    }

    /// Follows redirects to the end.
    fn follow(&self, method: Method, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(method, &url, from)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = location(&url, response.headers())?;
        }
        Err(answer(&url, "too many redirects"))
    }

    fn send(&self, method: Method, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = match method {
            Method::Head => self.agent.head(url),
            Method::Get => self.agent.get(url),
        };
        // The size that counts is that of the file, not of its compression.
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| origin(url) == self.origin) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call().map_err(|source| network(url, source))
    }
}

fn metadata(url: &str, headers: &HeaderMap) -> Result<Metadata, HubError> {
    let find = |names: [&str; 2]| {
        names.into_iter().find_map(|name| headers.get(name)).and_then(|value| value.to_str().ok())
    };
    let etag = find(["x-linked-etag", "etag"]).ok_or_else(|| answer(url, "no etag"))?;
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if etag.is_empty() || !etag.bytes().all(is_name) {
        return Err(answer(url, "an etag that is no file name"));
    }
    let size = find(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
    let size = size.ok_or_else(|| answer(url, "no size"))?;
    Ok(Metadata { etag: etag.to_owned(), size })
}

/// `bytes 100-199/200` starts at 100.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Scheme and authority.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find('/').map_or(url, |at| &url[..start + at])
}

fn location(url: &str, headers: &HeaderMap) -> Result<String, HubError> {
    let target = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let target = target.ok_or_else(|| answer(url, "a redirect without a target"))?;
    match target {
        _ if target.starts_with("http://") || target.starts_with("https://") => {
            Ok(target.to_owned())
        }
        _ if target.starts_with('/') && !target.starts_with("//") => {
            Ok(format!("{}{target}", origin(url)))
        }
        _ => Err(answer(url, "a redirect to something else than a page")),
    }
}

fn checked(url: &str, status: StatusCode) -> Result<(), HubError> {
    match status.is_success() {
        true => Ok(()),
        false => Err(HubError::Status { url: url.to_owned(), status: status.as_u16() }),
    }
}

fn network(url: &str, source: ureq::Error) -> HubError {
    HubError::Network { url: origin(url).to_owned(), source: Box::new(source) }
}

fn answer(url: &str, reason: &str) -> HubError {
    HubError::Answer { url: url.to_owned(), reason: reason.to_owned() }
}
