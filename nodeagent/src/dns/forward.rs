//! Names outside the cluster: the query goes, byte for byte, to the host's resolvers in turn.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// One resolver gets this long before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;

/// The resolvers of the host.
#[derive(Debug)]
pub(super) struct Resolvers {
    addresses: Vec<SocketAddr>,
}

impl Resolvers {
    /// As /etc/resolv.conf says; none when it says nothing.
    pub(super) fn of_host() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let addresses = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|address| address.trim().parse::<IpAddr>().ok())
            .map(|address| SocketAddr::new(address, 53))
            .collect();
        Self { addresses }
    }

    /// The first answer that comes.
    pub(super) async fn forward(&self, query: &[u8], udp: bool) -> io::Result<Vec<u8>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no resolver");
        for address in &self.addresses {
            let attempt = async {
                if udp { over_udp(*address, query).await } else { over_tcp(*address, query).await }
            };
            match tokio::time::timeout(PATIENCE, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = io::Error::new(io::ErrorKind::TimedOut, elapsed),
            }
        }
        Err(last)
    }
}

async fn over_udp(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut answer = vec![0u8; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The first two bytes are the id; another one belongs to nobody.
        if length >= 2 && answer[..2] == query[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    stream.write_u16(u16::try_from(query.len()).map_err(io::Error::other)?).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0u8; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_and_others_are_not() {
        let resolvers =
            Resolvers::parse("search a\nnameserver 192.0.2.1\n# nameserver 192.0.2.2\n");
        assert_eq!(resolvers.addresses, ["192.0.2.1:53".parse().expect("address")]);
    }
}
