//! Models from the hub, through the cache that every Hugging Face tool shares.
//!
//! A client of our own, since the blocking one of `hf-hub` ignores HF_TOKEN and
//! HF_HUB_OFFLINE, appends to a partial file whatever the server answers, and
//! panics on unexpected redirects. A snapshot is pinned to one commit before
//! its first file is fetched, so a push in between cannot mix two versions.
//!
//! Upstream: `download_weights_from_hf` in
//! `sglang/srt/model_loader/weight_utils.py`.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{Progress, folder::is_plain_name};

mod cache;
mod client;
mod error;
#[cfg(test)]
mod tests;

use cache::RepoCache;
use client::Client;

pub use error::HubError;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_REVISION: &str = "main";

/// Where the hub is, where its files are kept, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// `HF_ENDPOINT`, without a slash at the end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`; `--download-dir` replaces it.
    pub cache_dir: PathBuf,
    /// `HF_TOKEN`, or the token file that the hub's own tools write.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: use the cache and nothing else.
    pub offline: bool,
}

impl std::fmt::Debug for HubOptions {
    /// Everything but the token, which has no place in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("offline", &self.offline)
            .finish()
    }
}

impl HubOptions {
    /// As the environment says.
    pub fn from_env() -> Self {
        Self::from_vars(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let cache = || match var("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache),
            None => PathBuf::from(var("HOME").unwrap_or_default()).join(".cache"),
        };
        let home = var("HF_HOME").map_or_else(|| cache().join("huggingface"), PathBuf::from);
        let token_file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let stored = || fs::read_to_string(&token_file).ok();
        let token = var("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned());
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let offline = var("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
        });
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache_dir: var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            token: token.filter(|token| !token.is_empty()),
            offline,
        }
    }
}

/// The hub's answer about a repository.
#[derive(Deserialize)]
struct RepoInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

pub(crate) struct Hub {
    options: HubOptions,
    client: Client,
}

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Self {
        Self { client: Client::new(&options), options }
    }

    /// The folder of a model's files at one commit, fetched as far as needed.
    pub(crate) fn snapshot(
        &self,
        id: &str,
        revision: Option<&str>,
        with_weights: bool,
        progress: &dyn Progress,
    ) -> Result<PathBuf, HubError> {
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        if !is_revision(revision) {
            return Err(HubError::Revision { revision: revision.to_owned() });
        }
        let cache = RepoCache::new(&self.options.cache_dir, id);
        if self.options.offline {
            let offline = || HubError::Offline { id: id.to_owned(), revision: revision.to_owned() };
            return cache.snapshot(revision).ok_or_else(offline);
        }
        let info = match self.info(id, revision) {
            // A machine that lost its network serves what it has.
            Err(error @ HubError::Network { .. }) => {
                return cache.snapshot(revision).ok_or(error);
            }
            answer => answer?,
        };
        let wanted = info.siblings.iter().map(|sibling| sibling.rfilename.as_str());
        let wanted: BTreeSet<_> = wanted.filter(|name| is_wanted(name, with_weights)).collect();
        for name in wanted {
            if !cache.pointer(&info.sha, name).exists() {
                self.fetch(&cache, id, &info.sha, name, progress)?;
            }
        }
        cache.set_ref(revision, &info.sha)?;
        Ok(cache.snapshot_dir(&info.sha))
    }

    fn info(&self, id: &str, revision: &str) -> Result<RepoInfo, HubError> {
        let url = format!("{}/api/models/{id}/revision/{revision}", self.options.endpoint);
        let text = self.client.text(&url).map_err(|error| error.about(id, revision))?;
        let wrong = |reason: String| HubError::Answer { url: url.clone(), reason };
        let info: RepoInfo =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(wrong(format!("{:?} is not a commit", info.sha)));
        }
        Ok(info)
    }

    fn fetch(
        &self,
        cache: &RepoCache,
        id: &str,
        sha: &str,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let url = format!("{}/{id}/resolve/{sha}/{name}", self.options.endpoint);
        let meta = self.client.metadata(&url).map_err(|error| error.about(id, sha))?;
        let blob = cache.blob(&meta.etag);
        let _lock = cache.lock(&meta.etag)?;
        if !blob.exists() {
            let partial = cache.partial(&meta.etag);
            self.client.download(&url, name, &partial, meta.size, progress)?;
            fs::rename(&partial, &blob).map_err(|source| io(&blob, source))?;
        }
        cache.link(&meta.etag, sha, name)
    }
}

fn io(path: &Path, source: std::io::Error) -> HubError {
    HubError::Io { path: path.to_owned(), source }
}

/// Files that serving reads; weights of other frameworks stay where they are.
fn is_wanted(name: &str, with_weights: bool) -> bool {
    // A model's further templates, by name.
    const TEMPLATES: &str = "additional_chat_templates";
    const NAMES: [&str; 14] = [
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "hf_quant_config.json",
        "merges.txt",
        "modules.json",
        "special_tokens_map.json",
        "spiece.model",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    ];
    let is_weight = name.starts_with("model")
        && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"));
    match name.split_once('/') {
        Some((TEMPLATES, name)) => is_plain_name(name) && name.ends_with(".jinja"),
        // Of sentence-transformers, as `1_Pooling`.
        Some((folder, "config.json")) => is_plain_name(folder) && folder.ends_with("_Pooling"),
        Some(_) => false,
        None => {
            is_plain_name(name)
                && (NAMES.contains(&name)
                    || name.starts_with("chat_template")
                    || name.ends_with(".jinja")
                    || name.ends_with(".tiktoken")
                    || (is_weight && with_weights))
        }
    }
}

fn is_commit(sha: &str) -> bool {
    sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A branch, tag or commit that is safe as a path below `refs`.
fn is_revision(revision: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    revision.split('/').all(is_part)
}
