//! Requests that are live, and those of the last minutes, for a crash dump.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};
use types::TokenId;

use super::Received;
use crate::utc::Utc;

/// Seconds that a finished request is remembered.
const MEMORY_SECONDS: f64 = 300.0;

/// Finished requests that are remembered at most.
const MEMORY_REQUESTS: usize = 4096;

/// `--crash-dump-folder`: remembers requests while there is a folder to write them to.
#[derive(Debug, Default)]
pub(crate) struct RequestBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    folder: Option<PathBuf>,
    live: HashMap<String, Arc<Received>>,
    finished: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    request: Arc<Received>,
    output_ids: Vec<TokenId>,
    meta_info: Value,
    /// Unix time, seconds.
    at: f64,
}

impl RequestBook {
    pub(super) fn is_on(&self) -> bool {
        self.lock().folder.is_some()
    }

    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self(Mutex::new(Book { folder, ..Book::default() }))
    }

    /// Where to write; requests that came before are not known.
    pub(crate) fn set_folder(&self, folder: PathBuf) {
        self.lock().folder = Some(folder);
    }

    pub(crate) fn begin(&self, request: &Arc<Received>) {
        let mut book = self.lock();
        if book.folder.is_some() {
            book.live.insert(request.rid.clone(), Arc::clone(request));
        }
    }

    pub(crate) fn end(&self, request: &Arc<Received>, output_ids: &[TokenId], meta_info: &Value) {
        let mut book = self.lock();
        if book.live.remove(&request.rid).is_none() {
            return;
        }
        let now = crate::state::unix_seconds();
        let is_old = |entry: &Entry| now - entry.at >= MEMORY_SECONDS;
        while book.finished.len() >= MEMORY_REQUESTS || book.finished.front().is_some_and(is_old) {
            book.finished.pop_front();
        }
        book.finished.push_back(Entry {
            request: Arc::clone(request),
            output_ids: output_ids.to_vec(),
            meta_info: meta_info.clone(),
            at: now,
        });
    }

    /// Writes what is known, if there is a folder and something to tell.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub(crate) fn dump(
        &self,
        reason: &str,
        server_args: &Map<String, Value>,
    ) -> io::Result<Option<PathBuf>> {
        let book = self.lock();
        let Some(folder) = &book.folder else { return Ok(None) };
        if book.live.is_empty() && book.finished.is_empty() {
            return Ok(None);
        }
        let finished = book.finished.iter().map(|entry| {
            let out = json!({"output_ids": entry.output_ids, "meta_info": entry.meta_info});
            request_json(&entry.request, &out, Some(entry.at))
        });
        let live = book.live.values().map(|request| request_json(request, &json!({}), None));
        let dump = json!({
            "reason": reason,
            "server_args": server_args,
            "requests": finished.chain(live).collect::<Vec<_>>(),
        });
        write(folder, &dump).map(Some)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request_json(request: &Received, out: &Value, finished: Option<f64>) -> Value {
    let mut obj = request.to_json(true);
    obj.insert("input_ids".to_owned(), json!(request.prompt_ids.to_vec()));
    json!({"obj": obj, "out": out, "created_time": request.at, "finished_time": finished})
}

fn write(folder: &Path, dump: &Value) -> io::Result<PathBuf> {
    let folder = folder.join(host_name());
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("crash_dump_{}.json", Utc::now().file_name()));
    fs::write(&path, dump.to_string())?;
    Ok(path)
}

/// As the environment has it.
pub(super) fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned())
}
