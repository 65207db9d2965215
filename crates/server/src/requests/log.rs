//! The request log.

use std::{
    io, mem,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use serde_json::{Map, Value, json};
use thiserror::Error;
use tokenizer::Tokenizer;
use types::TokenId;

use super::{
    Received,
    file::LogFile,
    writer::{Line, LineWriter},
};
use crate::utc::Utc;

/// At level 2, longer texts and lists keep their two ends.
const SHORT: usize = 2048;

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `Receive: obj=...` and `Finish: obj=..., out=...`.
    #[default]
    Text,
    /// An object with `event`, `rid`, `obj` and `out`.
    Json,
}

/// A word that is no [`LogFormat`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not one of text, json")]
pub struct UnknownFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file named after this machine in this folder.
    Folder(PathBuf),
}

impl From<&str> for LogTarget {
    fn from(name: &str) -> Self {
        match name.eq_ignore_ascii_case("stdout") {
            true => Self::Stdout,
            false => Self::Folder(name.into()),
        }
    }
}

/// `--log-requests` and its companions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLogOptions {
    /// Whether there are any lines.
    pub is_on: bool,
    /// 0: metadata; 1: sampling parameters too; 2: beginnings and ends of inputs and outputs too;
    /// 3: all of them.
    pub level: u8,
    /// The shape of a line.
    pub format: LogFormat,
    /// None: standard output.
    pub targets: Vec<LogTarget>,
    /// Requests that took less have no line at their end.
    pub exceeded: Duration,
}

impl Default for RequestLogOptions {
    fn default() -> Self {
        Self {
            is_on: false,
            level: 2,
            format: LogFormat::Text,
            targets: Vec::new(),
            exceeded: Duration::ZERO,
        }
    }
}

/// A folder that cannot be logged to.
#[derive(Debug, Error)]
#[error("cannot log requests to {}", path.display())]
pub struct LogTargetError {
    path: PathBuf,
    source: io::Error,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished<'a> {
    pub(crate) meta_info: &'a Value,
    pub(crate) text: &'a str,
    pub(crate) output_ids: &'a [TokenId],
}

/// Makes lines; options may change while it runs.
#[derive(Debug, Default)]
pub struct RequestLog {
    options: RwLock<RequestLogOptions>,
    /// Until there is a first line.
    files: Mutex<Vec<LogFile>>,
    /// `None`: no thread to write with.
    writer: OnceLock<Option<LineWriter>>,
}

impl RequestLog {
    /// Opens what is to be written to.
    ///
    /// # Errors
    /// A folder or a file that cannot be made.
    pub fn open(options: RequestLogOptions) -> Result<Self, LogTargetError> {
        let folders = options.targets.iter().filter_map(|target| match target {
            LogTarget::Stdout => None,
            LogTarget::Folder(folder) => Some(folder),
        });
        let name = format!("{}_0.log", super::book::host_name());
        let open = |folder: &PathBuf| {
            LogFile::open(folder.join(&name))
                .map_err(|source| LogTargetError { path: folder.clone(), source })
        };
        let files = folders.map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            options: RwLock::new(options),
            files: Mutex::new(files),
            writer: OnceLock::new(),
        })
    }

    pub(crate) fn configure(&self, change: impl FnOnce(&mut RequestLogOptions)) {
        change(&mut self.options.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn received(&self, request: &Arc<Received>, tokenizer: &Tokenizer) {
        if let Some(options) = self.options_if_on() {
            self.write(&options, request, None, tokenizer);
        }
    }

    pub(crate) fn finished(
        &self,
        request: &Arc<Received>,
        end: Finished<'_>,
        tokenizer: &Tokenizer,
    ) {
        let Some(options) = self.options_if_on() else { return };
        let seconds = end.meta_info["e2e_latency"].as_f64();
        if seconds.is_some_and(|seconds| seconds < options.exceeded.as_secs_f64()) {
            return;
        }
        let mut out = Out { meta_info: end.meta_info.clone(), ..Out::default() };
        if options.level >= 2 {
            out.text = end.text.to_owned();
            out.output_ids = end.output_ids.to_vec();
        }
        self.write(&options, request, Some(out), tokenizer);
    }

    pub(super) fn is_on(&self) -> bool {
        self.options.read().unwrap_or_else(PoisonError::into_inner).is_on
    }

    fn options_if_on(&self) -> Option<RequestLogOptions> {
        let options = self.options.read().unwrap_or_else(PoisonError::into_inner);
        options.is_on.then(|| options.clone())
    }

    /// The line is made where it is written.
    fn write(
        &self,
        options: &RequestLogOptions,
        request: &Arc<Received>,
        out: Option<Out>,
        tokenizer: &Tokenizer,
    ) {
        let to_stdout = options.targets.is_empty() || options.targets.contains(&LogTarget::Stdout);
        let now = Utc::now();
        let (format, level) = (options.format, options.level);
        let (request, tokenizer) = (Arc::clone(request), tokenizer.clone());
        let num_bytes = request.num_bytes() + out.as_ref().map_or(0, Out::num_bytes);
        let make = move || {
            let obj = obj(&request, &tokenizer, level);
            let out = out.map(|out| out.to_json(level));
            line(now, format, &request.rid, (&obj, out.as_ref()))
        };
        if let Some(writer) = self.writer.get_or_init(|| self.start_writer()) {
            writer.write(Line { num_bytes, make: Box::new(make), to_stdout });
        }
    }

    fn start_writer(&self) -> Option<LineWriter> {
        let files = mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner));
        let writer = LineWriter::start(files);
        writer.inspect_err(|error| tracing::error!(%error, "requests are not logged")).ok()
    }

    /// Opens the files again, because somebody may have moved them away.
    pub(crate) fn reopen(&self) {
        if let Some(writer) = self.writer.get_or_init(|| self.start_writer()) {
            writer.reopen();
        }
    }

    /// Waits until all lines are written, or for so long.
    pub(crate) fn flush(&self, timeout: Duration) {
        if let Some(Some(writer)) = self.writer.get() {
            writer.flush(timeout);
        }
    }
}

/// The end of a request, until there is a line of it.
#[derive(Debug, Default)]
struct Out {
    meta_info: Value,
    text: String,
    output_ids: Vec<TokenId>,
}

impl Out {
    fn num_bytes(&self) -> usize {
        self.text.len() + size_of_val(self.output_ids.as_slice())
    }

    fn to_json(&self, level: u8) -> Value {
        let mut out = Map::from_iter([("meta_info".to_owned(), self.meta_info.clone())]);
        if level >= 2 {
            out.insert("text".to_owned(), text_json(&self.text, level));
            out.insert("output_ids".to_owned(), ids_json(&self.output_ids, level));
        }
        Value::Object(out)
    }
}

/// With `out`, of a request that has ended.
fn line(now: Utc, format: LogFormat, rid: &str, (obj, out): (&Value, Option<&Value>)) -> String {
    let message = match (format, out) {
        (LogFormat::Text, None) => format!("Receive: obj={obj}"),
        (LogFormat::Text, Some(out)) => format!("Finish: obj={obj}, out={out}"),
        (LogFormat::Json, out) => {
            let event = if out.is_some() { "request.finished" } else { "request.received" };
            let mut line = json!({"timestamp": now.iso(), "event": event, "rid": rid, "obj": obj});
            if let Some(out) = out {
                line["out"] = out.clone();
            }
            line.to_string()
        }
    };
    format!("[{}] {message}\n", now.stamp())
}

fn obj(request: &Received, tokenizer: &Tokenizer, level: u8) -> Value {
    let mut fields = request.to_json(level >= 1);
    if level >= 2 {
        let text = tokenizer.decode(&request.prompt_ids, false);
        fields.insert("text".to_owned(), text_json(&text, level));
        fields.insert("input_ids".to_owned(), ids_json(&request.prompt_ids, level));
    }
    Value::Object(fields)
}

fn text_json(text: &str, level: u8) -> Value {
    let num_chars = text.chars().count();
    if level > 2 || num_chars <= SHORT {
        return json!(text);
    }
    let head: String = text.chars().take(SHORT / 2).collect();
    let tail: String = text.chars().skip(num_chars - SHORT / 2).collect();
    json!(format!("{head}...{tail}"))
}

fn ids_json(ids: &[TokenId], level: u8) -> Value {
    if level > 2 || ids.len() <= SHORT {
        return json!(ids);
    }
    let (head, tail) = (&ids[..SHORT / 2], &ids[ids.len() - SHORT / 2..]);
    let ends = head.iter().map(|id| json!(id)).chain([json!("...")]);
    ends.chain(tail.iter().map(|id| json!(id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_keep_their_ends() {
        let text = format!("a{}z", "é".repeat(5000));
        let short = text_json(&text, 2);
        let short = short.as_str().unwrap();
        assert_eq!(short.chars().count(), SHORT + 3);
        assert!(short.starts_with("aé") && short.contains("é...é") && short.ends_with("éz"));
        assert_eq!(text_json(&text, 3), json!(text));
        let ids: Vec<TokenId> = (0..5000).collect();
        let short = ids_json(&ids, 2);
        assert_eq!(
            (&short[0], &short[1023], &short[1024]),
            (&json!(0), &json!(1023), &json!("..."))
        );
        assert_eq!((&short[1025], &short[2048]), (&json!(3976), &json!(4999)));
        assert_eq!(ids_json(&ids[..SHORT], 2), json!(ids[..SHORT]));
        assert_eq!(ids_json(&ids, 3), json!(ids));
    }
}
