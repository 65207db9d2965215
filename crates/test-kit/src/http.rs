//! HTTP/1.1 over a blocking socket, one connection a request.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longest wait for the next byte of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// Sends requests to one server.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// The same client, sending one more header with each request.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.send("GET", path, b"")
    }

    /// `POST path` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> io::Result<Response> {
        self.send("POST", path, body.to_string().as_bytes())
    }

    /// Any method, any body; the body goes out as `application/json`.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        Head::read(self.open(method, path, body)?)?.into_response()
    }

    /// Starts a request whose answer comes as server-sent events.
    ///
    /// Fails if the answer is no event stream; the error holds its body.
    pub fn stream(&self, path: &str, body: &Value) -> io::Result<EventStream> {
        let head = Head::read(self.open("POST", path, body.to_string().as_bytes())?)?;
        let is_stream =
            head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if head.status != 200 || !is_stream {
            let response = head.into_response()?;
            return Err(invalid(format!("no stream: {} {}", response.status, response.text())));
        }
        Ok(EventStream { body: BufReader::new(head.into_body()) })
    }

    /// Connects and sends a request; returns the socket to read from.
    pub fn open(&self, method: &str, path: &str, body: &[u8]) -> io::Result<TcpStream> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        socket.set_nodelay(true)?;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        // In one piece: a server may answer and hang up once it has read the
        // head, and what it did not read turns its answer into a reset. If it
        // refuses a large body half way, its answer is what counts.
        match socket.write_all(&[head.as_bytes(), body].concat()) {
            Err(error) if !is_hang_up(&error) => Err(error),
            _ => Ok(socket),
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded if it came in chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text; panics if it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON; panics with the body if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Status line and headers, with the socket at the first byte of the body.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    socket: BufReader<TcpStream>,
}

impl Head {
    fn read(socket: TcpStream) -> io::Result<Self> {
        let mut socket = BufReader::new(socket);
        let first = read_line(&mut socket)?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid(format!("no status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut socket)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Self { status, headers, socket })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn into_body(self) -> Box<dyn Read + Send> {
        if self.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return Box::new(Chunked { socket: self.socket, left: 0, done: false });
        }
        match self.header("content-length").and_then(|len| len.parse().ok()) {
            Some(len) => Box::new(self.socket.take(len)),
            None => Box::new(self.socket),
        }
    }

    fn into_response(self) -> io::Result<Response> {
        let (status, headers) = (self.status, self.headers.clone());
        let mut body = Vec::new();
        self.into_body().read_to_end(&mut body)?;
        Ok(Response { status, headers, body })
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let line = String::from_utf8(line).map_err(|_| invalid("a header is not UTF-8"))?;
    Ok(line.trim_end().to_owned())
}

/// Undoes `Transfer-Encoding: chunked`.
struct Chunked {
    socket: BufReader<TcpStream>,
    left: usize,
    done: bool,
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.done {
            let line = read_line(&mut self.socket)?;
            self.left = usize::from_str_radix(&line, 16)
                .map_err(|_| invalid(format!("the stream broke off: {line:?} is no chunk size")))?;
            self.done = self.left == 0;
        }
        if self.done {
            return Ok(0);
        }
        let room = buffer.len().min(self.left);
        let read = self.socket.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(invalid("the stream broke off inside a chunk"));
        }
        self.left -= read;
        if self.left == 0 {
            read_line(&mut self.socket)?;
        }
        Ok(read)
    }
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `data: {...}`
    Data(Value),
    /// `data: [DONE]`
    Done,
}

impl Event {
    /// The payload of a data event; panics on the end mark.
    pub fn data(self) -> Value {
        match self {
            Self::Data(value) => value,
            Self::Done => panic!("the stream is done"),
        }
    }
}

/// The events of one answer, as they arrive. Dropping it hangs up.
///
/// Ends with an error if the text is not UTF-8 or the payload is not JSON, so
/// a character split over two events cannot pass unseen.
pub struct EventStream {
    body: BufReader<Box<dyn Read + Send>>,
}

impl EventStream {
    /// The payloads up to `[DONE]`; fails if the stream ends without it.
    pub fn collect_data(self) -> io::Result<Vec<Value>> {
        let mut payloads = Vec::new();
        for event in self {
            match event? {
                Event::Data(value) => payloads.push(value),
                Event::Done => return Ok(payloads),
            }
        }
        Err(invalid("the stream ended without [DONE]"))
    }
}

impl Iterator for EventStream {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            match self.body.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            let Ok(line) = String::from_utf8(line) else {
                return Some(Err(invalid("an event is not UTF-8")));
            };
            if let Some(payload) = line.trim_end().strip_prefix("data:") {
                return Some(parse_event(payload.trim_start()));
            }
        }
    }
}

fn parse_event(payload: &str) -> io::Result<Event> {
    if payload == "[DONE]" {
        return Ok(Event::Done);
    }
    let value = serde_json::from_str(payload);
    value.map(Event::Data).map_err(|error| invalid(format!("{error}: {payload}")))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use serde_json::json;

    use super::*;

    /// A server that reads one request and answers with `answer`.
    fn client_of(answer: &'static [u8]) -> (Client, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut socket = BufReader::new(listener.accept().unwrap().0);
            let mut request = String::new();
            let mut length = 0;
            loop {
                let line = read_line(&mut socket).unwrap();
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.parse().unwrap();
                }
                request += &line;
                request.push('\n');
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            socket.read_exact(&mut body).unwrap();
            socket.get_mut().write_all(answer).unwrap();
            request + std::str::from_utf8(&body).unwrap()
        });
        (client, server)
    }

    #[test]
    fn a_request_goes_out_and_a_sized_answer_comes_back() {
        let (client, server) = client_of(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\nX-A: b\r\n\r\n{\"a\": 1} ",
        );
        let response =
            client.with_header("Authorization", "Bearer k").post("/p", &json!({"q": 1})).unwrap();
        assert_eq!((response.status, response.json()), (400, json!({"a": 1})));
        assert_eq!(response.headers[1], ("x-a".to_owned(), "b".to_owned()));
        let request = server.join().unwrap();
        assert!(request.starts_with("POST /p HTTP/1.1\n"), "{request}");
        assert!(request.contains("\nAuthorization: Bearer k\n"), "{request}");
        assert!(request.ends_with("\n\n{\"q\":1}"), "{request}");
    }

    #[test]
    fn events_are_read_across_chunks() {
        let (client, _server) = client_of(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
              9\r\ndata: {\"t\r\n17\r\n\":\"\xc3\xa9\"}\n\ndata: [DONE]\n\n\r\n0\r\n\r\n",
        );
        let events: Vec<Event> =
            client.stream("/s", &json!({})).unwrap().map(Result::unwrap).collect();
        assert_eq!(events, [Event::Data(json!({"t": "é"})), Event::Done]);
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        let (client, _server) = client_of(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
              a\r\ndata: {}\n\n\r\n",
        );
        assert!(client.stream("/s", &json!({})).unwrap().collect_data().is_err());
    }
}
