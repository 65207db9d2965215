//! A server process that dies with the test that started it.
//!
//! A shell waits on a pipe that closes when the test process ends in whatever
//! way, and then kills the server: a server kept in a `static` is never
//! dropped, and a killed test runs no destructor.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::Client;

/// The words that end SGLang's startup, which launch scripts wait for.
const READY: &str = "ready to roll!";
/// Loading with an unoptimised build on a busy machine stays far below this.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free local port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A binary of this workspace, found next to the running test.
#[derive(Debug, Clone)]
pub struct Binary(PathBuf);

impl Binary {
    /// Finds `name` in the folder that cargo builds into; panics with the
    /// command to run if it was not built.
    pub fn find(name: &str) -> Self {
        let test = std::env::current_exe().expect("the running test has a path");
        // <target>/<profile>/deps/<test>-<hash>
        let folder = test.parent().and_then(|deps| deps.parent()).expect("cargo's layout");
        let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        assert!(path.exists(), "{} is missing: run `cargo build -p cli` first", path.display());
        Self(path)
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        Command::new(&self.0)
    }
}

/// What a process printed so far.
#[derive(Debug, Default)]
struct Log {
    text: Mutex<(String, usize)>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, (String, usize)> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a pipe into the log on a thread of its own.
    fn follow(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        log.lock().1 += 1;
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                writeln!(log.lock().0, "{}", String::from_utf8_lossy(&line)).expect("a String");
                log.changed.notify_all();
            }
            log.lock().1 -= 1;
            log.changed.notify_all();
        });
    }

    /// Waits until the text holds `words` or every pipe is closed; whether it holds them.
    fn wait_for(&self, words: Option<&str>, timeout: Duration) -> bool {
        let holds = |text: &str| words.is_some_and(|words| text.contains(words));
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |(text, open)| *open > 0 && !holds(text))
            .unwrap_or_else(PoisonError::into_inner);
        match words {
            Some(_) => holds(&state.0),
            None => state.1 == 0,
        }
    }
}

/// A running server; killed when dropped.
pub struct ServerProcess {
    binary: Binary,
    args: Vec<String>,
    child: Child,
    watchdog: Child,
    log: Arc<Log>,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts `binary` with `args` and a free `--port`, and waits for the ready
    /// line. Fails with everything the process printed.
    pub fn start(binary: &Binary, args: &[&str]) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Self::start_at(address, binary.clone(), args)
    }

    /// Ends it as `kill -9` does, and starts the same at the same port.
    pub fn kill_and_start(mut self) -> io::Result<Self> {
        self.signal("KILL")?;
        self.child.wait()?;
        Self::start_at(self.address, self.binary.clone(), self.args.clone())
    }

    fn start_at(address: SocketAddr, binary: Binary, args: Vec<String>) -> io::Result<Self> {
        let server = Self::spawn(address, binary, args)?;
        if server.log.wait_for(Some(READY), START_TIMEOUT) {
            return Ok(server);
        }
        Err(io::Error::other(format!("the server did not start:\n{}", server.log())))
    }

    fn spawn(address: SocketAddr, binary: Binary, args: Vec<String>) -> io::Result<Self> {
        let mut child = binary
            .command()
            .args(&args)
            .args(["--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let watchdog = watch(&child)?;
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        Ok(Self { binary, args, child, watchdog, log, address })
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// What it printed so far, stdout and stderr in order of arrival.
    pub fn log(&self) -> String {
        self.log.lock().0.clone()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it printed `words`.
    pub fn wait_for_log(&self, words: &str, timeout: Duration) -> bool {
        self.log.wait_for(Some(words), timeout)
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill: {status}"))) }
    }

    /// Waits for its end; an error if it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        if !self.log.wait_for(None, timeout) {
            let message = format!("still running after {timeout:?}:\n{}", self.log());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        self.child.wait()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Each may fail only because the process has ended already.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the shell that kills `child` when this process ends.
fn watch(child: &Child) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", "read -r _; kill -s KILL \"$0\" 2>/dev/null", &child.id().to_string()])
        .stdin(Stdio::piped())
        .spawn()
}
