//! Over real sockets: disconnects, many connections, draining, warm-up.

use std::{net::SocketAddr, time::Duration};

use server::{serve, warmup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use types::{EngineMsg, EngineStatus, Rid};

use crate::support::{Answer, FakeEngine, PATIENCE, Seen, Server, config};

/// "Its pages are free within a second."
const SOON: Duration = Duration::from_secs(1);

struct Listening {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn listen(server: &Server) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, asked) = oneshot::channel();
    let asked = async {
        let _ = asked.await;
    };
    let task = tokio::spawn(serve(server.state.clone(), listener, asked));
    Listening { address, shutdown, task }
}

async fn send(address: SocketAddr, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let len = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_client_that_disconnects_aborts_its_request() {
    let server = Server::new(FakeEngine::start(|_| Answer::endless("abc")));
    let listening = listen(&server).await;
    for (rid, is_streaming) in [("streaming", true), ("waiting", false)] {
        let body = format!(r#"{{"text":"x","rid":"{rid}","stream":{is_streaming}}}"#);
        let stream = send(listening.address, "/generate", &body).await;
        assert_eq!(server.engine.next_req().await.rid.as_str(), rid);
        drop(stream);
        let closed = server.engine.wait_for(Seen::Closed(Rid::new(rid)));
        timeout(SOON, closed).await.expect("the engine hears of it in time");
    }
    assert_eq!(server.state.num_live_requests(), 0);
}

#[tokio::test]
async fn five_hundred_connections_at_once() {
    let server = Server::new(FakeEngine::with_inbox(1024, |_| Answer::text("x")));
    let listening = listen(&server).await;
    let one = |i: usize| {
        let address = listening.address;
        tokio::spawn(async move {
            let body = format!(r#"{{"text":"{i}","stream":{}}}"#, i.is_multiple_of(2));
            read_all(send(address, "/generate", &body).await).await
        })
    };
    let clients: Vec<_> = (0..500).map(one).collect();
    for client in clients {
        let text = client.await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        assert!(text.contains(r#""text":"x""#), "{text}");
    }
    assert_eq!(server.state.num_live_requests(), 0);
}

#[tokio::test]
async fn draining_finishes_what_is_live_and_takes_nothing_new() {
    let server = Server::new(FakeEngine::start(|req| match req.rid.as_str() {
        "live" => Answer::endless("abSTOP"),
        _ => Answer::text("x"),
    }));
    let listening = listen(&server).await;
    let live = r#"{"text":"x","rid":"live","stream":true}"#;
    let mut live = send(listening.address, "/generate", live).await;
    let mut first = [0; 64];
    let read = timeout(PATIENCE, live.read(&mut first)).await.unwrap().unwrap();
    assert!(read > 0);
    listening.shutdown.send(()).unwrap();
    while server.engine.handle().status() != EngineStatus::Draining {
        tokio::task::yield_now().await;
    }
    // The router still answers those who are connected already.
    let refused = server.post("/generate", serde_json::json!({"text": "x"})).await;
    assert_eq!(refused.status, 503);
    assert!(!listening.task.is_finished());
    drop(live);
    timeout(PATIENCE, listening.task).await.unwrap().unwrap().unwrap();
    server.engine.wait_for(Seen::Drain).await;
    assert!(TcpStream::connect(listening.address).await.is_err());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_aborts() {
    let drain_timeout = Some(Duration::from_millis(20));
    let config = server::ServerConfig { drain_timeout, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::endless("a")), config);
    let listening = listen(&server).await;
    let live = send(listening.address, "/generate", r#"{"text":"x","stream":true}"#).await;
    server.engine.next_req().await;
    listening.shutdown.send(()).unwrap();
    server.engine.wait_for(Seen::Abort(None)).await;
    drop(live);
    timeout(PATIENCE, listening.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_engine_that_hangs_with_a_full_inbox_does_not_hold_up_the_end() {
    let (engine, mut inbox) = FakeEngine::stuck();
    let server = Server::new(engine);
    let listening = listen(&server).await;
    let live = send(listening.address, "/generate", r#"{"text":"x"}"#).await;
    while server.state.num_live_requests() == 0 {
        tokio::task::yield_now().await;
    }
    drop(live);
    listening.shutdown.send(()).unwrap();
    timeout(PATIENCE, listening.task).await.unwrap().unwrap().unwrap();
    // Should it go on after all, it hears of the drain.
    while !matches!(timeout(PATIENCE, inbox.recv()).await.unwrap(), Some(EngineMsg::Drain)) {}
}

#[tokio::test]
async fn a_connection_that_hangs_does_not_hold_up_a_drain_for_ever() {
    let drain_timeout = Some(Duration::from_millis(20));
    let config = server::ServerConfig { drain_timeout, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    let listening = listen(&server).await;
    // A request that is announced and never comes.
    let mut hangs = TcpStream::connect(listening.address).await.unwrap();
    let head = "POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    hangs.write_all(head.as_bytes()).await.unwrap();
    let answer = send(listening.address, "/generate", r#"{"text":"x"}"#).await;
    server.engine.next_req().await;
    drop(answer);
    listening.shutdown.send(()).unwrap();
    timeout(PATIENCE, listening.task).await.unwrap().unwrap().unwrap();
    server.engine.wait_for(Seen::Drain).await;
}

#[tokio::test]
async fn warmup_asks_for_eight_greedy_tokens() {
    let server = Server::answering("Paris");
    warmup(&server.state).await.unwrap();
    let params = server.engine.next_req().await.sampling_params;
    assert!(params.is_greedy() && params.ignore_eos);
    assert_eq!(params.max_new_tokens, Some(8));

    let server = Server::new(FakeEngine::start(|_| Answer { dies: true, ..Answer::endless("a") }));
    let error = warmup(&server.state).await.unwrap_err();
    assert_eq!(error.to_string(), "the warm-up request failed: The engine stopped.");
}
