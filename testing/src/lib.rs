//! Ports for servers under test, of which all crates need some.
//!
//! A test learns a server's port before the server has it, and may start the server again on the
//! same one. Ports that the system gives to outgoing connections would do for neither: a connection
//! could take one in between. So all come from below those.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Above the ports that programs have by agreement; Kubernetes' node ports begin where these end.
const FIRST: u16 = 11_000;
const COUNT: u16 = 19_000;
/// How far apart processes begin that were started one after the other.
const STRIDE: u32 = 997;

/// A port of loopback that nobody uses now, different at each call.
pub fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(STRIDE);
    loop {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let offset = first.wrapping_add(call) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("below a number of 16 bits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// [`free_port`] as an address.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ports_differ_also_between_threads() {
        let some = || (0..50).map(|_| free_port()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(some)).collect();
        let ports = threads.into_iter().flat_map(|thread| thread.join().expect("ends"));
        assert_eq!(ports.collect::<HashSet<_>>().len(), 200);
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let first = free_port();
        let held: Vec<_> = (first + 1..=first + 20)
            .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
            .collect();
        let given: Vec<_> = (0..20).map(|_| free_port()).collect();
        for listener in &held {
            let port = listener.local_addr().expect("bound").port();
            assert!(!given.contains(&port), "{port} is taken");
        }
    }
}
