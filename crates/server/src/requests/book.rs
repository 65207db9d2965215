//! Requests that are live, and those of the last minutes, for a crash dump.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};
use types::TokenId;

use super::Received;
use crate::{state::unix_seconds, utc::Utc};

/// Seconds that a finished request is remembered.
const MEMORY_SECONDS: f64 = 300.0;

/// Finished requests that are remembered at most, and their tokens: 64 MiB of ids.
const MEMORY_REQUESTS: usize = 4096;
const MEMORY_TOKENS: usize = 16 << 20;

/// `--crash-dump-folder`: remembers requests while there is a folder to write them to.
#[derive(Debug, Default)]
pub(crate) struct RequestBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    folder: Option<PathBuf>,
    live: HashMap<String, Arc<Received>>,
    finished: VecDeque<Entry>,
    /// Of all finished ones.
    num_tokens: usize,
}

#[derive(Debug)]
struct Entry {
    request: Arc<Received>,
    output_ids: Vec<TokenId>,
    meta_info: Value,
    /// Unix time, seconds.
    at: f64,
}

impl Entry {
    fn num_tokens(&self) -> usize {
        self.request.prompt_ids.len() + self.output_ids.len()
    }

    fn is_old(&self, now: f64) -> bool {
        now - self.at >= MEMORY_SECONDS
    }
}

impl Book {
    fn remember(&mut self, entry: Entry) {
        let now = entry.at;
        self.num_tokens += entry.num_tokens();
        self.finished.push_back(entry);
        while let Some(oldest) = self.finished.front()
            && (self.finished.len() > MEMORY_REQUESTS
                || self.num_tokens > MEMORY_TOKENS
                || oldest.is_old(now))
        {
            self.num_tokens -= oldest.num_tokens();
            self.finished.pop_front();
        }
    }
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
        book.remember(Entry {
            request: Arc::clone(request),
            output_ids: output_ids.to_vec(),
            meta_info: meta_info.clone(),
            at: unix_seconds(),
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
        let now = unix_seconds();
        let recent = || book.finished.iter().filter(|entry| !entry.is_old(now));
        if book.live.is_empty() && recent().next().is_none() {
            return Ok(None);
        }
        let finished = recent().map(|entry| {
            let out = json!({"output_ids": entry.output_ids, "meta_info": entry.meta_info});
            request_json(&entry.request, &out, Some(entry.at))
        });
        let live = book.live.values().map(|request| request_json(request, &json!({}), None));
        let head = [("reason", json!(reason)), ("server_args", json!(server_args))];
        write(folder, &head, finished.chain(live)).map(Some)
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

/// One object, of which one request at a time is in memory as text.
fn write(
    folder: &Path,
    head: &[(&str, Value)],
    requests: impl Iterator<Item = Value>,
) -> io::Result<PathBuf> {
    let folder = folder.join(host_name());
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("crash_dump_{}.json", Utc::now().file_name()));
    let mut file = BufWriter::new(File::create(&path)?);
    file.write_all(b"{")?;
    for (name, value) in head {
        write!(file, "{}:{value},", json!(name))?;
    }
    file.write_all(b"\"requests\":[")?;
    for (index, request) in requests.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(file, "{comma}{request}")?;
    }
    file.write_all(b"]}")?;
    file.flush()?;
    Ok(path)
}

/// As the environment has it.
pub(super) fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use types::SamplingParams;

    use super::*;

    fn entry(rid: &str, num_tokens: usize, at: f64) -> Entry {
        let request = Received {
            rid: rid.to_owned(),
            prompt_ids: vec![0; num_tokens - 1].into(),
            params: SamplingParams::default(),
            is_streaming: false,
            at,
            parent: None,
        };
        Entry { request: Arc::new(request), output_ids: vec![1], meta_info: json!({}), at }
    }

    fn rids(book: &Book) -> Vec<&str> {
        book.finished.iter().map(|entry| entry.request.rid.as_str()).collect()
    }

    #[test]
    fn what_is_remembered_is_bounded_by_number_tokens_and_age() {
        let mut book = Book::default();
        for index in 0..=MEMORY_REQUESTS {
            book.remember(entry(&index.to_string(), 2, 0.0));
        }
        assert_eq!((book.finished.len(), rids(&book)[0]), (MEMORY_REQUESTS, "1"));
        book.remember(entry("young", 10, MEMORY_SECONDS));
        assert_eq!((rids(&book), book.num_tokens), (vec!["young"], 10));
        book.remember(entry("large", MEMORY_TOKENS - 10, MEMORY_SECONDS));
        assert_eq!(rids(&book), ["young", "large"]);
        book.remember(entry("one more", 1 + 1, MEMORY_SECONDS));
        assert_eq!((rids(&book), book.num_tokens), (vec!["large", "one more"], MEMORY_TOKENS - 8));
        book.remember(entry("too large", MEMORY_TOKENS + 1, MEMORY_SECONDS));
        assert_eq!((rids(&book).len(), book.num_tokens), (0, 0));
    }

    #[test]
    fn a_dump_has_no_old_requests() {
        let folder = tempfile::tempdir().unwrap();
        let book = RequestBook::new(Some(folder.path().to_owned()));
        let now = unix_seconds();
        book.lock().finished.push_back(entry("old", 3, now - MEMORY_SECONDS - 1.0));
        assert!(book.dump("a test", &Map::new()).unwrap().is_none());
        for (rid, at) in [("a", now - 5.0), ("b", now)] {
            book.lock().finished.push_back(entry(rid, 3, at));
        }
        let path = book.dump("a test", &Map::new()).unwrap().unwrap();
        let dump: Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
        let rids: Vec<_> = dump["requests"].as_array().unwrap().iter().collect();
        assert_eq!((rids.len(), &dump["reason"]), (2, &json!("a test")));
        assert_eq!((&rids[0]["obj"]["rid"], &rids[1]["obj"]["rid"]), (&json!("a"), &json!("b")));
        assert_eq!(rids[1]["out"]["output_ids"], json!([1]));
    }
}
