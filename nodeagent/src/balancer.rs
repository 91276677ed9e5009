//! One address for many apiservers: a TCP balancer that leaves TLS to the two ends.
//!
//! A backend that refuses or times out is set aside for a moment and the next one is tried, so
//! that a client sees a dead apiserver at most as one broken connection. Connections are counted
//! and bounded; the surplus waits in the kernel's backlog.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A live apiserver on the same network answers a SYN well within this.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// How long a backend that did not answer is only a last resort.
const ASIDE: Duration = Duration::from_secs(1);
/// File descriptors are finite: each connection costs two.
const CONNECTIONS_MAX: usize = 8192;

/// Listens on one address and spreads connections over the backends.
#[derive(Debug)]
pub struct Balancer {
    listener: TcpListener,
    local_addr: SocketAddr,
    backends: Arc<Backends>,
}

#[derive(Debug)]
struct Backends {
    addresses: Vec<SocketAddr>,
    /// When a backend last failed; guards only this list, never held over an await.
    failed_at: Mutex<Vec<Option<Instant>>>,
    next: AtomicUsize,
}

impl Balancer {
    /// Port 0 takes any free port.
    pub async fn bind(listen: SocketAddr, backends: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let local_addr = listener.local_addr()?;
        let failed_at = Mutex::new(vec![None; backends.len()]);
        let backends =
            Arc::new(Backends { addresses: backends, failed_at, next: AtomicUsize::new(0) });
        Ok(Self { listener, local_addr, backends })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until told to stop; connections under way end with it.
    pub async fn run(self, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let client = match accepted {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (backends, shutdown) = (self.backends.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = forward(client, &backends) => {}
                }
                drop(slot);
            });
        }
    }
}

async fn forward(mut client: TcpStream, backends: &Backends) {
    let Some(mut server) = backends.connect().await else {
        tracing::warn!("no apiserver answers");
        return;
    };
    // Small requests must not wait for each other; failures show in the copy below.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "connection ended");
    }
}

impl Backends {
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for index in self.order(first, Instant::now()) {
            let attempt = TcpStream::connect(self.addresses[index]);
            match tokio::time::timeout(CONNECT_WITHIN, attempt).await {
                Ok(Ok(stream)) => {
                    self.failed_at.lock()[index] = None;
                    return Some(stream);
                }
                _ => self.failed_at.lock()[index] = Some(Instant::now()),
            }
        }
        None
    }

    /// Round robin; those that failed a moment ago come last.
    fn order(&self, first: usize, now: Instant) -> Vec<usize> {
        let count = self.addresses.len();
        let failed_at = self.failed_at.lock();
        let aside =
            |index: &usize| failed_at[*index].is_some_and(|at| now.duration_since(at) < ASIDE);
        let mut order: Vec<usize> = (0..count).map(|i| (first + i) % count).collect();
        order.sort_by_key(aside);
        order
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn backend(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(answer).await.expect("answer");
            }
        });
        address
    }

    async fn ask(address: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        answer
    }

    #[tokio::test]
    async fn a_dead_backend_costs_no_connection() {
        let dead = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
            listener.local_addr().expect("address")
        };
        let alive = backend(b"alive").await;
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let balancer = Balancer::bind(any, vec![dead, alive]).await.expect("bind");
        let address = balancer.local_addr();
        let stop = CancellationToken::new();
        tokio::spawn(balancer.run(stop.clone()));
        for _ in 0..4 {
            assert_eq!(ask(address).await, b"alive");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn connections_go_round() {
        let backends = vec![backend(b"a").await, backend(b"b").await];
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let balancer = Balancer::bind(any, backends).await.expect("bind");
        let address = balancer.local_addr();
        tokio::spawn(balancer.run(CancellationToken::new()));
        let mut answers = vec![ask(address).await, ask(address).await];
        answers.sort();
        assert_eq!(answers, [b"a", b"b"]);
    }
}
