//! The HTTP/1.1 upgrade to SPDY/3.1 at the runtime's streaming server.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer's head fits into this many times over.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// An upgraded connection, and what the server sent behind its answer.
#[derive(Debug)]
pub struct Upgraded {
    /// The raw connection.
    pub stream: TcpStream,
    /// Bytes that were read too far.
    pub rest: Vec<u8>,
    /// The protocol that the server chose.
    pub protocol: Option<String>,
}

/// Upgrades at `url`, offering `protocols` in `X-Stream-Protocol-Version`.
pub async fn connect(url: &str, protocols: &[String]) -> io::Result<Upgraded> {
    let uri: http::Uri = url.parse().map_err(|_| invalid(format!("bad streaming URL {url:?}")))?;
    let authority = uri.authority().ok_or_else(|| invalid(format!("no host in {url:?}")))?;
    let port = authority.port_u16().unwrap_or(80);
    let mut stream = TcpStream::connect((authority.host(), port)).await?;
    stream.set_nodelay(true)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    );
    for protocol in protocols {
        request.push_str(&format!("X-Stream-Protocol-Version: {protocol}\r\n"));
    }
    request.push_str("Content-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(&mut stream).await?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        let body = String::from_utf8_lossy(&rest).trim().to_owned();
        return Err(io::Error::other(format!("the runtime refused to stream: {status} {body}")));
    }
    let protocol = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("x-stream-protocol-version"))
        .map(|(_, value)| value.trim().to_owned());
    Ok(Upgraded { stream, rest, protocol })
}

async fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(invalid("the answer's head has no end".to_owned()));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
