//! A local web server of one file, with the faults of real ones.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request, and the number of bytes sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The start of `Range: bytes=N-`.
    pub(crate) from: Option<usize>,
    pub(crate) sent: usize,
}

/// A response.
pub(crate) struct Reply {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    /// The number of bytes of the body after which the connection closes or stalls.
    cut: Option<usize>,
    silent: bool,
}

impl Reply {
    pub(crate) fn status(status: &'static str) -> Self {
        Self { status, headers: vec!["Content-Length: 0".into()], body: Vec::new(), cut: None, silent: false }
    }

    /// All of `body`, without regard to ranges.
    pub(crate) fn whole(body: &[u8]) -> Self {
        let headers = vec![format!("Content-Length: {}", body.len())];
        Self { headers, body: body.into(), ..Self::status("200 OK") }
    }

    /// All of `body`, without its length.
    pub(crate) fn of_no_length(body: &[u8]) -> Self {
        Self { headers: Vec::new(), ..Self::whole(body) }
    }

    /// The requested part of `body`.
    pub(crate) fn requested(body: &[u8], request: &Request) -> Self {
        let Some(from) = request.from else { return Self::whole(body) };
        let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
        let mut reply = Self::whole(&body[from..]);
        reply.headers.push(range);
        Self { status: "206 Partial Content", ..reply }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        let mut reply = Self::status("302 Found");
        reply.headers.push(format!("Location: {to}"));
        reply
    }

    /// Closes the connection after `bytes` of the body.
    pub(crate) fn cut(self, bytes: usize) -> Self {
        Self { cut: Some(bytes), ..self }
    }

    /// Stalls after `bytes` of the body.
    pub(crate) fn stalled_after(self, bytes: usize) -> Self {
        Self { silent: true, ..self.cut(bytes) }
    }
}

/// A server that runs until the end of the test process.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts a server; `reply` gets the number of the request, from 0, and the request.
    pub(crate) fn start(reply: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (log, reply) = (Arc::clone(&requests), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                std::thread::spawn(move || answer(stream, &log, &*reply));
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The start of each request, and the number of bytes sent.
    pub(crate) fn ranges(&self) -> Vec<(Option<usize>, usize)> {
        self.requests().iter().map(|request| (request.from, request.sent)).collect()
    }
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<Request>>, reply: &impl Fn(usize, &Request) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, from: None, sent: 0 };
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            request.from = range.trim_end_matches('-').parse().ok();
        }
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let reply = reply(number, &request);
    let end = reply.cut.unwrap_or(reply.body.len());
    let head =
        format!("HTTP/1.1 {}\r\nConnection: close\r\n{}\r\n\r\n", reply.status, reply.headers.join("\r\n"));
    // Counted before sending, so that a client that has the bytes sees the count.
    log.lock().unwrap()[number].sent = end;
    let head = head.replace("\r\n\r\n\r\n", "\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body[..end]));
    if reply.silent {
        std::thread::park();
    }
}
