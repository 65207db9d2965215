//! The hub client against a fake hub on a local port.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::{LoaderOptions, ModelSource, test_files::PACKED};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
const ID: &str = "org/model";

/// What a request looked like: method, path, range, authorization.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    method: String,
    path: String,
    range: Option<String>,
    authorization: Option<String>,
}

/// Behaviour of the fake hub beyond serving its files.
#[derive(Default, Clone)]
struct Quirks {
    /// Break the connection after so many bytes of a body, this many times.
    cuts: Vec<usize>,
    /// Answer every request so.
    status: Option<u16>,
    ignore_ranges: bool,
    /// Large files are redirected to this origin.
    cdn: Option<String>,
    info: Option<String>,
}

/// A hub on a local port, with the hub's own paths and headers.
struct FakeHub {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn files() -> Files {
    let weights: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    [
        ("additional_chat_templates/rag.jinja", b"{{ documents }}".to_vec()),
        ("additional_chat_templates/../evil.jinja", b"evil".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights),
        ("tokenizer.json", b"tokens".to_vec()),
        ("pytorch_model.bin", b"other".to_vec()),
        ("README.md", b"readme".to_vec()),
    ]
    .into()
}

impl FakeHub {
    fn start(files: Files, quirks: Quirks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let mut quirks = quirks;
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = serve(&stream.unwrap(), &files, &mut quirks, &log);
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn options(&self, cache: &TempDir) -> HubOptions {
        HubOptions {
            endpoint: self.url.clone(),
            cache_dir: cache.path().to_owned(),
            token: Some("secret".to_owned()),
            offline: false,
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect();
    let header = |name: &str| headers.get(name).cloned();
    Some(Seen { method, path, range: header("range"), authorization: header("authorization") })
}

/// One request per connection.
fn serve(
    mut stream: &TcpStream,
    files: &Files,
    quirks: &mut Quirks,
    log: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    use std::io::Write;
    let Some(request) = read_request(stream) else { return Ok(()) };
    log.lock().unwrap().push(request.clone());
    if let Some(status) = quirks.status {
        return write!(
            stream,
            "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    }
    if request.path.starts_with("/api/") {
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        let body = json!({"sha": SHA, "siblings": siblings}).to_string();
        let body = quirks.info.clone().unwrap_or(body);
        let len = body.len();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
        );
    }
    // "/org/model/resolve/<commit>/<name>".
    let name = request.path.splitn(6, '/').last().unwrap();
    let Some(body) = files.get(name) else {
        return write!(stream, "HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let total = body.len();
    let etag = format!("etag-{}", name.replace(['.', '/'], "-"));
    if let Some(cdn) = quirks.cdn.as_ref().filter(|_| name.ends_with(".safetensors")) {
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: {cdn}/cdn/{name}\r\nx-linked-etag: \"{etag}\"\r\n\
             x-linked-size: {total}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    }
    let from = request.range.as_ref().filter(|_| !quirks.ignore_ranges);
    let from = from.map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    let from = from.unwrap_or(0);
    let rest = &body[from..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\netag: W/\"{etag}\"\r\ncontent-length: {}\r\n\
         content-range: bytes {from}-{}/{total}\r\nconnection: close\r\n\r\n",
        rest.len(),
        total - 1
    )?;
    match request.method.as_str() {
        "HEAD" => Ok(()),
        _ if name.ends_with(".safetensors") && !quirks.cuts.is_empty() => {
            stream.write_all(&rest[..quirks.cuts.remove(0).min(rest.len())])
        }
        _ => stream.write_all(rest),
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Log(RefCell<Vec<(String, u64, u64, bool)>>);

impl Progress for Log {
    fn file_started(&self, name: &str, have: u64, total: Option<u64>) {
        assert!(total.is_some());
        self.0.borrow_mut().push((name.to_owned(), have, 0, false));
    }

    fn file_advanced(&self, name: &str, bytes: u64) {
        let mut entries = self.0.borrow_mut();
        let entry = entries.last_mut().unwrap();
        assert_eq!(entry.0, name);
        entry.2 += bytes;
    }

    fn file_finished(&self, _name: &str) {
        self.0.borrow_mut().last_mut().unwrap().3 = true;
    }
}

fn snapshot(options: HubOptions, with_weights: bool) -> Result<PathBuf, HubError> {
    Hub::new(options).snapshot(ID, None, with_weights, &crate::Quiet)
}

fn error(options: HubOptions) -> String {
    snapshot(options, true).unwrap_err().to_string()
}

fn is_complete(folder: &Path) -> bool {
    files()
        .iter()
        .filter(|(name, _)| is_wanted(name, true))
        .all(|(name, bytes)| fs::read(folder.join(name)).is_ok_and(|found| found == *bytes))
}

#[test]
fn fetches_what_serving_needs_into_the_shared_layout() {
    let (hub, cache) = (FakeHub::start(files(), Quirks::default()), tempdir().unwrap());
    let log = Log::default();
    let folder = Hub::new(hub.options(&cache)).snapshot(ID, None, true, &log).unwrap();
    let root = cache.path().join("models--org--model");
    assert_eq!(folder, root.join("snapshots").join(SHA));
    assert!(is_complete(&folder));
    assert!(!folder.join("README.md").exists() && !folder.join("pytorch_model.bin").exists());
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), SHA);
    let link = fs::read_link(folder.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs/etag-model-safetensors"));
    let link = fs::read_link(folder.join("additional_chat_templates/rag.jinja")).unwrap();
    assert_eq!(link, Path::new("../../../blobs/etag-additional_chat_templates-rag-jinja"));
    assert!(!folder.join("evil.jinja").exists());
    let seen = hub.seen();
    assert_eq!(seen[0].path, "/api/models/org/model/revision/main");
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer secret")));
    assert!(
        seen[1..].iter().all(|seen| seen.path.starts_with(&format!("/org/model/resolve/{SHA}/")))
    );
    assert_eq!(
        log.0.into_inner(),
        [
            ("additional_chat_templates/rag.jinja".to_owned(), 0, 15, true),
            ("config.json".to_owned(), 0, 2, true),
            ("model.safetensors".to_owned(), 0, 400_000, true),
            ("tokenizer.json".to_owned(), 0, 6, true),
        ]
    );

    let again = snapshot(hub.options(&cache), true).unwrap();
    assert_eq!(again, folder);
    assert_eq!(hub.seen().len(), 1, "a second load asks for the commit and for no file");
    let offline = HubOptions { offline: true, ..hub.options(&cache) };
    assert_eq!(snapshot(offline, true).unwrap(), folder);
    assert!(hub.seen().is_empty());
}

#[test]
fn the_pooling_of_sentence_transformers_keeps_its_folder() {
    let mut files = files();
    files.insert("1_Pooling/config.json", b"pool".to_vec());
    files.insert("2_Dense/config.json", b"dense".to_vec());
    let (hub, cache) = (FakeHub::start(files, Quirks::default()), tempdir().unwrap());
    let folder = snapshot(hub.options(&cache), true).unwrap();
    let pooling = folder.join("1_Pooling/config.json");
    assert_eq!(fs::read_to_string(&pooling).unwrap(), "pool");
    let link = fs::read_link(pooling).unwrap();
    assert_eq!(link, Path::new("../../../blobs/etag-1_Pooling-config-json"));
    assert!(!folder.join("2_Dense").exists());
}

#[test]
fn dummy_weights_fetch_no_weights() {
    let (hub, cache) = (FakeHub::start(files(), Quirks::default()), tempdir().unwrap());
    let folder = snapshot(hub.options(&cache), false).unwrap();
    assert!(folder.join("config.json").exists() && !folder.join("model.safetensors").exists());
}

#[test]
fn a_cut_connection_resumes_in_the_same_run_and_in_the_next() {
    let quirks = Quirks { cuts: vec![150_000, 100_000], ..Quirks::default() };
    let (hub, cache) = (FakeHub::start(files(), quirks), tempdir().unwrap());
    assert!(is_complete(&snapshot(hub.options(&cache), true).unwrap()));
    let ranges = |seen: Vec<Seen>| {
        let gets = seen
            .into_iter()
            .filter(|seen| seen.method == "GET" && seen.path.ends_with("model.safetensors"));
        gets.map(|seen| seen.range).collect::<Vec<_>>()
    };
    let range = |from: usize| Some(format!("bytes={from}-"));
    assert_eq!(ranges(hub.seen()), [None, range(150_000), range(250_000)]);

    // Cut three times without a byte: given up, kept, and resumed by the next.
    let quirks = Quirks { cuts: vec![1000, 0, 0, 0], ..Quirks::default() };
    let (hub, cache) = (FakeHub::start(files(), quirks), tempdir().unwrap());
    assert_eq!(
        error(hub.options(&cache)),
        "model.safetensors: the download broke off at 1000 of 400000 bytes; start again to resume"
    );
    hub.seen();
    let log = Log::default();
    let folder = Hub::new(hub.options(&cache)).snapshot(ID, None, true, &log).unwrap();
    assert!(is_complete(&folder));
    assert_eq!(ranges(hub.seen()), [range(1000)]);
    assert_eq!(log.0.borrow()[0], ("model.safetensors".to_owned(), 1000, 399_000, true));
}

#[test]
fn a_server_without_ranges_starts_over() {
    let quirks = Quirks { cuts: vec![5000], ignore_ranges: true, ..Quirks::default() };
    let (hub, cache) = (FakeHub::start(files(), quirks), tempdir().unwrap());
    assert!(is_complete(&snapshot(hub.options(&cache), true).unwrap()));
}

#[test]
fn large_files_come_from_elsewhere_without_the_token() {
    let cdn = FakeHub::start(files(), Quirks::default());
    let quirks = Quirks { cdn: Some(cdn.url.clone()), ..Quirks::default() };
    let (hub, cache) = (FakeHub::start(files(), quirks), tempdir().unwrap());
    let folder = snapshot(hub.options(&cache), true).unwrap();
    assert!(is_complete(&folder));
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1, "the size came with the redirect");
    assert_eq!((seen[0].path.as_str(), &seen[0].authorization), ("/cdn/model.safetensors", &None));
}

#[test]
fn errors_say_what_to_do() {
    let cache = tempdir().unwrap();
    let status = |status| {
        let quirks = Quirks { status: Some(status), ..Quirks::default() };
        error(FakeHub::start(files(), quirks).options(&cache))
    };
    for refused in [401, 403] {
        let text = status(refused);
        assert!(
            text.starts_with("the hub refuses org/model: ") && text.contains("HF_TOKEN"),
            "{text}"
        );
    }
    assert_eq!(status(404), "the hub has no model org/model at revision main");
    assert!(status(503).ends_with("the hub answers with status 503"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = HubOptions {
        endpoint: format!("http://{nobody}"),
        cache_dir: cache.path().to_owned(),
        token: None,
        offline: false,
    };
    let text = error(options.clone());
    assert!(
        text.starts_with("no connection to http://127.0.0.1") && text.contains("network"),
        "{text}"
    );
    let text = error(HubOptions { offline: true, ..options });
    assert!(text.contains("org/model at revision main is not in the cache"), "{text}");
    for (info, expected) in [("{", "EOF"), (r#"{"sha": "../.."}"#, "is not a commit")] {
        let quirks = Quirks { info: Some(info.to_owned()), ..Quirks::default() };
        let text = error(FakeHub::start(files(), quirks).options(&cache));
        assert!(text.contains("unexpected answer: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn without_network_the_cache_serves() {
    let (hub, cache) = (FakeHub::start(files(), Quirks::default()), tempdir().unwrap());
    let folder = snapshot(hub.options(&cache), true).unwrap();
    let gone = HubOptions { endpoint: "http://127.0.0.1:1".to_owned(), ..hub.options(&cache) };
    assert_eq!(snapshot(gone, true).unwrap(), folder);
}

#[test]
fn names_and_revisions_stay_inside_the_cache() {
    for name in ["a/model.safetensors", "../config.json", "model/../../x.jinja", ".jinja", ""] {
        assert!(!is_wanted(name, true), "{name}");
    }
    for name in ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "x.jinja"] {
        assert!(is_wanted(name, true), "{name}");
    }
    let (hub, cache) = (FakeHub::start(files(), Quirks::default()), tempdir().unwrap());
    for revision in ["..", "a/../b", "", "a?b", "/a"] {
        let error = Hub::new(hub.options(&cache)).snapshot(ID, Some(revision), true, &crate::Quiet);
        assert!(matches!(error, Err(HubError::Revision { .. })), "{revision}");
    }
    Hub::new(hub.options(&cache)).snapshot(ID, Some("refs/pr/1"), true, &crate::Quiet).unwrap();
    assert!(cache.path().join("models--org--model/refs/refs/pr/1").is_file());
}

#[test]
fn the_environment() {
    let vars = |pairs: &[(&str, &str)]| {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HubOptions::from_vars(move |name| map.get(name).cloned())
    };
    let plain = vars(&[("HOME", "/h")]);
    assert_eq!(plain.cache_dir, Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(
        (plain.endpoint.as_str(), plain.token, plain.offline),
        (DEFAULT_ENDPOINT, None, false)
    );
    let home = tempdir().unwrap();
    fs::write(home.path().join("token"), "stored\n").unwrap();
    let path = home.path().to_str().unwrap();
    let stored =
        vars(&[("HF_HOME", path), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "1")]);
    assert_eq!(stored.cache_dir, home.path().join("hub"));
    assert_eq!((stored.endpoint.as_str(), stored.offline), ("http://mirror", true));
    assert_eq!(stored.token.as_deref(), Some("stored"));
    let named = vars(&[("HF_HOME", path), ("HF_TOKEN", "named"), ("HF_HUB_CACHE", "/c")]);
    assert_eq!((named.token.as_deref(), named.cache_dir), (Some("named"), PathBuf::from("/c")));
    assert!(!format!("{:?}", vars(&[("HF_TOKEN", "named")])).contains("named"));
}

#[test]
fn weights_of_a_config_that_is_refused_are_never_asked_for() {
    let cache = tempdir().unwrap();
    let hub = FakeHub::start(files(), Quirks::default());
    let source = ModelSource::Hub { id: ID.to_owned(), revision: None };
    let options = LoaderOptions {
        hub: hub.options(&cache),
        check_config: |_| Err(nn::LoadError::Missing { name: "X".to_owned() }),
        ..LoaderOptions::new(PACKED)
    };
    let error = crate::load(&source, &options, &crate::Quiet).err().unwrap().to_string();
    assert_eq!(error, "weight X is missing from the checkpoint");
    let asked = hub.seen();
    assert!(asked.iter().any(|seen| seen.path.ends_with("/config.json")), "{asked:?}");
    assert!(!asked.iter().any(|seen| seen.path.ends_with(".safetensors")), "{asked:?}");
}
