//! One question to another server: what a pod sends through a service or a DNS name.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Whom to ask, and how.
#[derive(Args)]
pub(crate) struct Options {
    /// The protocol.
    protocol: Protocol,
    /// Host and port: web.default.svc.cluster.local:80
    address: String,
    /// The path for HTTP, the text for TCP and UDP.
    #[arg(default_value = "/")]
    text: String,
    /// How often to ask (each time by a new connection).
    #[arg(long, default_value_t = 1, conflicts_with = "until")]
    times: u32,
    /// Go on asking until this file exists.
    #[arg(long, value_name = "FILE")]
    until: Option<PathBuf>,
    /// Milliseconds between two questions.
    #[arg(long, default_value_t = 0)]
    every_ms: u64,
    /// Milliseconds to wait for one answer.
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Http,
    Tcp,
    Udp,
}

impl Options {
    fn is_over(&self, asked: usize) -> bool {
        match &self.until {
            Some(file) => file.exists(),
            None => asked >= self.times as usize,
        }
    }
}

/// Asks as often as told and prints the answers as they come, a line each.
pub(crate) fn ask(options: &Options) -> io::Result<()> {
    let timeout = Duration::from_millis(options.timeout_ms);
    let mut asked = 0;
    while !options.is_over(asked) {
        if asked > 0 {
            crate::pass(Duration::from_millis(options.every_ms));
        }
        let answer = match options.protocol {
            Protocol::Http => ask_http(options, timeout)?,
            Protocol::Tcp => ask_tcp(options, timeout)?,
            Protocol::Udp => ask_udp(options, timeout)?,
        };
        asked += 1;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", answer.trim_end())?;
        out.flush()?;
    }
    Ok(())
}

/// The addresses of a name, through the pod's own resolver configuration.
pub(crate) fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<_> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn first_address(address: &str) -> io::Result<SocketAddr> {
    address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{address}: no address")))
}

fn connect(options: &Options, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&first_address(&options.address)?, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    Ok(stream)
}

fn ask_http(options: &Options, timeout: Duration) -> io::Result<String> {
    let mut stream = connect(options, timeout)?;
    let (path, host) = (&options.text, &options.address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))?;
    if !head.starts_with("HTTP/1.1 2") {
        return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    Ok(body.to_owned())
}

fn ask_tcp(options: &Options, timeout: Duration) -> io::Result<String> {
    let mut stream = connect(options, timeout)?;
    writeln!(stream, "{}", options.text)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

fn ask_udp(options: &Options, timeout: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(first_address(&options.address)?)?;
    socket.send(options.text.as_bytes())?;
    let mut buffer = [0u8; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
