//! A proxy that stands before an HTTP server and lets things go wrong, one request at a time.
//!
//! Each connection carries one request: it is read whole, forwarded whole, and its answer comes back whole or damaged.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The server is not asked; the answer is this status with this code.
    Refuse(u16, &'static str),
    /// The server is not asked, and the connection ends.
    Drop,
    /// The server is asked, and its answer is lost.
    Lose,
    /// The server is asked, and the connection breaks in the middle of its answer.
    Tear,
    /// The server is asked, and the second half of its answer's body is missing without a trace.
    Shorten,
    /// The server is asked, and one bit of its answer's body is wrong.
    Flip,
    /// Nothing happens for this time; then the server is asked as it should be.
    Delay(Duration),
}

/// A request, as far as plans look at it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// How many requests came before it.
    pub number: usize,
}

type Plan = Box<dyn Fn(&Request) -> Option<Mishap> + Send + Sync>;

struct Shared {
    upstream: u16,
    plan: Mutex<Arc<Plan>>,
    count: AtomicUsize,
    log: Mutex<Vec<(Request, Option<Mishap>)>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A running proxy. It runs until the process ends.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts a proxy before a server on loopback. Nothing goes wrong until a plan says so.
    ///
    /// # Panics
    /// Where loopback has no free port.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|err| panic!("no free port: {err}"));
        let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
        let nothing: Plan = Box::new(|_| None);
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(Arc::new(nothing)),
            count: AtomicUsize::new(0),
            log: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let for_connections = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&for_connections);
                // A connection that breaks is what this is for.
                std::thread::spawn(move || drop(shared.serve(connection)));
            }
        });
        Self { port, shared }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, this decides what goes wrong; the log begins anew.
    pub fn plan(&self, plan: impl Fn(&Request) -> Option<Mishap> + Send + Sync + 'static) {
        *lock(&self.shared.plan) = Arc::new(Box::new(plan));
        lock(&self.shared.log).clear();
        self.shared.count.store(0, Ordering::SeqCst);
        self.shared.most.store(0, Ordering::SeqCst);
    }

    /// How many requests were under way at once, at the most, since the plan was made.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// What was asked since the plan was made, and what went wrong.
    pub fn log(&self) -> Vec<(Request, Option<Mishap>)> {
        lock(&self.shared.log).clone()
    }
}

/// A request between its beginning and its answer.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(now, Ordering::SeqCst);
        Self(&shared.now)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let under_way = UnderWay::begin(self);
        let (head, body) = read_request(&mut client)?;
        let mut words = head.split(' ');
        let request = Request {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            number: self.count.fetch_add(1, Ordering::SeqCst),
        };
        let plan = Arc::clone(&lock(&self.plan));
        let mishap = plan(&request);
        lock(&self.log).push((request.clone(), mishap));
        match mishap {
            Some(Mishap::Drop) => return client.shutdown(Shutdown::Both),
            Some(Mishap::Refuse(status, code)) => {
                let body =
                    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>planned</Message></Error>");
                let body = if request.method == "HEAD" { "" } else { &body };
                return write!(
                    client,
                    "HTTP/1.1 {status} Planned\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
            Some(Mishap::Delay(time)) => std::thread::sleep(time),
            Some(Mishap::Lose | Mishap::Tear | Mishap::Shorten | Mishap::Flip) | None => {}
        }
        let mut answer = self.forward(&head, &body)?;
        let at = body_at(&answer);
        match mishap {
            Some(Mishap::Lose) => return client.shutdown(Shutdown::Both),
            Some(Mishap::Tear) => answer.truncate(at + (answer.len() - at) / 2),
            Some(Mishap::Shorten) => shorten(&mut answer, at),
            Some(Mishap::Flip) if at < answer.len() => {
                let middle = at + (answer.len() - at) / 2;
                answer[middle] ^= 1;
            }
            Some(Mishap::Flip | Mishap::Delay(_) | Mishap::Drop | Mishap::Refuse(..)) | None => {}
        }
        // Whoever has the answer may ask again at once.
        drop(under_way);
        client.write_all(&answer)?;
        client.shutdown(Shutdown::Both)
    }

    /// The server's whole answer.
    fn forward(&self, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(("127.0.0.1", self.upstream))?;
        server.write_all(head.as_bytes())?;
        server.write_all(b"connection: close\r\n\r\n")?;
        server.write_all(body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// A request's head, without the empty line and without what says how long the connection lives; and its body.
fn read_request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut read, mut buffer) = (Vec::new(), [0; 16 << 10]);
    let mut more = |read: &mut Vec<u8>| match client.read(&mut buffer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        count => {
            read.extend_from_slice(&buffer[..count]);
            Ok::<_, std::io::Error>(())
        }
    };
    let end = loop {
        match read.windows(4).position(|part| part == b"\r\n\r\n") {
            Some(end) => break end,
            None => more(&mut read)?,
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let named = |line: &str, name: &str| line.to_ascii_lowercase().starts_with(name);
    let length = head.lines().find(|line| named(line, "content-length:")).and_then(|line| line.split(':').nth(1));
    let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    let mut body = read.split_off(end + 4);
    while body.len() < length {
        more(&mut body)?;
    }
    let lines = head.lines().filter(|line| !named(line, "connection:"));
    Ok((lines.map(|line| format!("{line}\r\n")).collect(), body))
}

fn body_at(answer: &[u8]) -> usize {
    answer.windows(4).position(|part| part == b"\r\n\r\n").map_or(answer.len(), |end| end + 4)
}

/// Halves the body, and its length in the head.
fn shorten(answer: &mut Vec<u8>, at: usize) {
    let body = answer.split_off(at);
    let body = &body[..body.len() / 2];
    let head = String::from_utf8_lossy(answer).into_owned();
    let lines = head.lines().map(|line| match line.to_ascii_lowercase().starts_with("content-length:") {
        true => format!("content-length: {}\r\n", body.len()),
        false => format!("{line}\r\n"),
    });
    *answer = lines.collect::<String>().into_bytes();
    answer.extend_from_slice(body);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
