//! Ports for servers under test.

use std::net::TcpListener;
use std::ops::Range;

use crate::Result;

/// Below those that the system gives to outgoing connections: one of these could take a port while
/// its server is being started again.
const PORTS: Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1_000;

/// So many ports of loopback that nobody uses now.
pub(crate) fn free(count: usize) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    // Held until all are found, so that they differ.
    let mut held = Vec::new();
    for _ in 0..ATTEMPTS {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = rand::random_range(PORTS);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push(listener);
            ports.push(port);
        }
    }
    Err(format!("no {count} free ports"))
}
