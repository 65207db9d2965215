//! Writes the lines of the request log, from a thread of its own: neither a full disk nor a slow
//! pipe holds up a request, nor does making a line, which for a long prompt takes its time.

use std::{
    io::{self, Write, stdout},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::file::LogFile;

/// Lines that wait to be written, and bytes of what they are made of; more are lost, and counted
/// in the log.
const MAX_LINES: usize = 1024;
const MAX_BYTES: usize = 64 << 20;
/// Between two complaints.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A line to be made.
pub(super) struct Line {
    /// What it holds on to until then.
    pub(super) num_bytes: usize,
    pub(super) make: Box<dyn FnOnce() -> String + Send>,
    pub(super) to_stdout: bool,
}

enum Msg {
    Line(Line),
    /// Answer when all before it is written.
    Flush(Sender<()>),
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct LineWriter {
    sender: SyncSender<Msg>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    num_waiting_bytes: AtomicUsize,
    num_lost: AtomicUsize,
    /// Files are to be opened again before anything else is written.
    reopen: AtomicBool,
}

impl LineWriter {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(files: Vec<LogFile>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_LINES);
        let shared = Arc::new(Shared::default());
        let writing = Writing { files, shared: Arc::clone(&shared), complained: None };
        thread::Builder::new()
            .name("request-log".to_owned())
            .spawn(move || writing.run(&receiver))?;
        Ok(Self { sender, shared })
    }

    /// Never waits.
    pub(super) fn write(&self, line: Line) {
        let Shared { num_waiting_bytes, num_lost, .. } = &*self.shared;
        let len = line.num_bytes;
        let num_before = num_waiting_bytes.fetch_add(len, Ordering::Relaxed);
        let has_room = num_before + len <= MAX_BYTES;
        if !has_room || self.sender.try_send(Msg::Line(line)).is_err() {
            num_waiting_bytes.fetch_sub(len, Ordering::Relaxed);
            num_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the files again before the next line is written. Never waits.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Wakes the thread. If there is no room, it has lines to write and looks by itself.
        let _ = self.sender.try_send(Msg::Flush(channel().0));
    }

    /// Waits until everything is written, or for so long.
    pub(super) fn flush(&self, timeout: Duration) {
        let (done, is_done) = channel();
        if self.sender.try_send(Msg::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(timeout);
        }
    }
}

struct Writing {
    files: Vec<LogFile>,
    shared: Arc<Shared>,
    complained: Option<Instant>,
}

impl Writing {
    fn run(mut self, inbox: &Receiver<Msg>) {
        while let Ok(msg) = inbox.recv() {
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.files.iter_mut().for_each(LogFile::reopen);
            }
            match msg {
                Msg::Line(Line { num_bytes, make, to_stdout }) => {
                    self.shared.num_waiting_bytes.fetch_sub(num_bytes, Ordering::Relaxed);
                    // A tokenizer that panics costs a line, not the log.
                    let text = catch_unwind(AssertUnwindSafe(make));
                    let error = text.map(|text| self.write(text.as_bytes(), to_stdout));
                    let error = error.unwrap_or_else(|_| {
                        self.shared.num_lost.fetch_add(1, Ordering::Relaxed);
                        None
                    });
                    self.complain(error.as_ref());
                }
                // Whoever asked may have stopped waiting.
                Msg::Flush(done) => drop(done.send(())),
            }
        }
    }

    /// Everywhere, whatever fails; the last error.
    fn write(&mut self, line: &[u8], to_stdout: bool) -> Option<io::Error> {
        let to_files = self.files.iter_mut().map(|file| file.write_all(line));
        let written = to_stdout.then(|| stdout().lock().write_all(line));
        let mut last_error = None;
        for written in to_files.chain(written) {
            last_error = written.err().or(last_error);
        }
        last_error
    }

    fn complain(&mut self, error: Option<&io::Error>) {
        let num_lost = self.shared.num_lost.load(Ordering::Relaxed);
        let is_fine = error.is_none() && num_lost == 0;
        if is_fine || self.complained.is_some_and(|when| when.elapsed() < COMPLAIN_EVERY) {
            return;
        }
        self.complained = Some(Instant::now());
        self.shared.num_lost.fetch_sub(num_lost, Ordering::Relaxed);
        if num_lost > 0 {
            tracing::warn!("the request log is too slow: {num_lost} lines are lost");
        }
        if let Some(error) = error {
            tracing::warn!(%error, "cannot write to the request log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let text = text.to_owned();
        Line { num_bytes: text.len(), make: Box::new(|| text), to_stdout: false }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_rest_is_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let writer = LineWriter::start(vec![LogFile::open(path.clone()).unwrap()]).unwrap();
        writer.write(line(&"x".repeat(MAX_BYTES + 1)));
        writer.write(line("a\n"));
        writer.write(Line { make: Box::new(|| panic!("no such token")), ..line("") });
        writer.write(line("b\n"));
        writer.flush(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a\nb\n");
        assert_eq!(writer.shared.num_waiting_bytes.load(Ordering::Relaxed), 0);
        // The first is told by now, with the first line; the other is to wait for its turn.
        assert_eq!(writer.shared.num_lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let old = folder.path().join("log.1");
        let writer = LineWriter::start(vec![LogFile::open(path.clone()).unwrap()]).unwrap();
        let write = |text: &str| {
            writer.write(line(text));
            writer.flush(Duration::from_secs(10));
        };
        write("a\n");
        std::fs::rename(&path, &old).unwrap();
        write("b\n");
        writer.reopen();
        write("c\n");
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&old), read(&path)), ("a\nb\n".to_owned(), "c\n".to_owned()));
        // Where it cannot be, the one that is there goes on.
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        writer.reopen();
        write("d\n");
        assert_eq!(read(&old), "c\nd\n");
    }
}
