//! A server that says who it is over HTTP, TCP and UDP, whose readiness can be switched, and
//! that goes on serving for a while after SIGTERM, as a well-behaved backend does.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::http;

/// Which ports to serve; port 0 switches a protocol off.
#[derive(Args)]
pub(crate) struct Options {
    /// HTTP: `/` names the server, `/healthz`, `/readyz`, `/env/NAME`, POST `/ready/on|off`, POST `/die/CODE`, `/echo`.
    #[arg(long, env = "HTTP_PORT", default_value_t = 8080)]
    http: u16,
    /// TCP: every line comes back after the server's name.
    #[arg(long, env = "TCP_PORT", default_value_t = 9000)]
    tcp: u16,
    /// UDP: every datagram comes back after the server's name.
    #[arg(long, env = "UDP_PORT", default_value_t = 9001)]
    udp: u16,
    /// Milliseconds to go on serving after SIGTERM.
    #[arg(long, env = "DRAIN_MS", default_value_t = 3000)]
    drain_ms: u64,
    /// Milliseconds before `/readyz` answers 200.
    #[arg(long, env = "READY_AFTER_MS", default_value_t = 0)]
    ready_after_ms: u64,
}

struct Server {
    /// Host name and version: "web-1 v2".
    name: String,
    ready: AtomicBool,
    requests: AtomicU64,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let version = std::env::var("VERSION").unwrap_or_else(|_| "dev".to_owned());
    let server = Arc::new(Server {
        name: format!("{} {version}", host.trim()),
        ready: AtomicBool::new(options.ready_after_ms == 0),
        requests: AtomicU64::new(0),
    });
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
    ])?;
    start_listeners(options, &server)?;
    println!("{} serving", server.name);
    if options.ready_after_ms > 0 {
        let server = server.clone();
        let after = Duration::from_millis(options.ready_after_ms);
        thread::spawn(move || {
            crate::pass(after);
            server.ready.store(true, Ordering::Relaxed);
        });
    }
    signals.forever().next();
    println!("{} draining after {} requests", server.name, server.requests.load(Ordering::Relaxed));
    crate::pass(Duration::from_millis(options.drain_ms));
    Ok(())
}

fn start_listeners(options: &Options, server: &Arc<Server>) -> io::Result<()> {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    if options.http != 0 {
        accept(TcpListener::bind(any(options.http))?, server.clone(), serve_http);
    }
    if options.tcp != 0 {
        accept(TcpListener::bind(any(options.tcp))?, server.clone(), serve_tcp);
    }
    if options.udp != 0 {
        let socket = UdpSocket::bind(any(options.udp))?;
        let server = server.clone();
        thread::spawn(move || serve_udp(&socket, &server));
    }
    Ok(())
}

fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    serve: fn(TcpStream, &Server) -> io::Result<()>,
) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            thread::spawn(move || {
                if let Err(error) = serve(stream, &server) {
                    eprintln!("{}: {error}", server.name);
                }
            });
        }
    });
}

fn serve_http(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = http::read_request(&mut reader)? {
        server.requests.fetch_add(1, Ordering::Relaxed);
        let (status, body) = answer(server, &request);
        http::write_response(&mut stream, status, &body, request.close)?;
        if request.close {
            break;
        }
    }
    Ok(())
}

fn answer(server: &Server, request: &http::Request) -> (&'static str, String) {
    const OK: &str = "200 OK";
    let path = request.path.split('?').next().unwrap_or("/");
    match (request.method.as_str(), path) {
        ("GET", "/healthz") => (OK, "ok\n".to_owned()),
        ("GET", "/readyz") if server.ready.load(Ordering::Relaxed) => (OK, "ok\n".to_owned()),
        ("GET", "/readyz") => ("503 Service Unavailable", "not ready\n".to_owned()),
        ("POST", "/ready/on" | "/ready/off") => {
            server.ready.store(path.ends_with("on"), Ordering::Relaxed);
            (OK, "ok\n".to_owned())
        }
        ("POST", path) if path.starts_with("/die/") => {
            std::process::exit(path["/die/".len()..].parse().unwrap_or(1))
        }
        ("GET", path) if path.starts_with("/env/") => match std::env::var(&path["/env/".len()..]) {
            Ok(value) => (OK, value + "\n"),
            Err(_) => ("404 Not Found", "not set\n".to_owned()),
        },
        (_, "/echo") => (OK, String::from_utf8_lossy(&request.body).into_owned()),
        ("GET", "/") => (OK, format!("{}\n", server.name)),
        _ => ("404 Not Found", "no such page\n".to_owned()),
    }
}

fn serve_tcp(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    let reader = BufReader::new(stream.try_clone()?);
    for line in reader.lines() {
        server.requests.fetch_add(1, Ordering::Relaxed);
        writeln!(stream, "{} tcp {}", server.name, line?)?;
    }
    Ok(())
}

fn serve_udp(socket: &UdpSocket, server: &Server) {
    let mut buffer = [0u8; 2048];
    loop {
        let sent = socket.recv_from(&mut buffer).and_then(|(length, from)| {
            server.requests.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&buffer[..length]);
            socket.send_to(format!("{} udp {text}", server.name).as_bytes(), from)
        });
        if let Err(error) = sent {
            eprintln!("{}: udp: {error}", server.name);
        }
    }
}
