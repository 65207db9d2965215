//! Servers for the tests: one that most of them share, and others on demand.

use std::{
    io,
    ops::Deref,
    process::{Output, Stdio},
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::{Value, json};
use test_kit::{Binary, Client, ServerProcess};

/// The binary under test.
pub fn sglang_mlx() -> Binary {
    Binary::find("sglang-mlx")
}

/// What every run gets: f32 on the CPU, so that outcomes are the same
/// everywhere. `E2E_DEVICE` names another device.
fn device_args() -> Vec<String> {
    let device = std::env::var("E2E_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    ["--device", &device, "--dtype", "float32"].map(str::to_owned).to_vec()
}

/// Starts a server of its own for one test, with the default model unless
/// `args` names another.
pub fn start(args: &[&str]) -> io::Result<ServerProcess> {
    let device = device_args();
    let device = device.iter().map(String::as_str);
    let args: Vec<&str> =
        ["launch-server"].into_iter().chain(device).chain(args.iter().copied()).collect();
    ServerProcess::start(&sglang_mlx(), &args)
}

/// Runs `command` of the binary to its end.
pub fn run(command: &str, args: &[&str]) -> io::Result<Output> {
    sglang_mlx().command().arg(command).args(device_args()).args(args).stdin(Stdio::null()).output()
}

/// The server that most tests share, with the default model and default
/// options. Tests that measure, or need it idle, take it [`exclusive`].
static SERVER: OnceLock<ServerProcess> = OnceLock::new();
static USE: RwLock<()> = RwLock::new(());

/// The shared server, in company.
pub struct Shared {
    client: Client,
    _use: RwLockReadGuard<'static, ()>,
}

/// The shared server, alone.
pub struct Exclusive {
    client: Client,
    _use: RwLockWriteGuard<'static, ()>,
}

/// Takes part in the shared server.
pub fn shared() -> Shared {
    // A test that failed with the server in hand leaves it usable.
    let guard = USE.read().unwrap_or_else(PoisonError::into_inner);
    Shared { client: server().client(), _use: guard }
}

/// Waits until no other test uses the shared server.
pub fn exclusive() -> Exclusive {
    let guard = USE.write().unwrap_or_else(PoisonError::into_inner);
    Exclusive { client: server().client(), _use: guard }
}

fn server() -> &'static ServerProcess {
    SERVER.get_or_init(|| {
        start(&["--enable-metrics", "--enable-cache-report"]).expect("the shared server starts")
    })
}

impl Deref for Shared {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Deref for Exclusive {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// `POST /generate` for token ids; panics unless it answers 200.
pub fn generate(client: &Client, input_ids: &[u32], sampling_params: &Value) -> Value {
    let body = json!({ "input_ids": input_ids, "sampling_params": sampling_params });
    let response = client.post("/generate", &body).expect("the server answers");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}
