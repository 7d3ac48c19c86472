//! Free ports.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range from which operating systems take ports for outgoing connections: a service that is restarted finds
/// its port free. Above the range that the servers' own choice starts from.
const FIRST: u16 = 22_000;
const COUNT: u16 = 9_000;

/// An address on `ip` where nobody listens at this moment.
pub fn free(ip: IpAddr) -> Option<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes start at different places, so that two that start together seldom meet.
    let start = (std::process::id() as u16).wrapping_mul(223);
    (0..COUNT).find_map(|_| {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::new(ip, FIRST + start.wrapping_add(step) % COUNT);
        TcpListener::bind(address).is_ok().then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let first = free(ip).expect("a port");
        let _taken = TcpListener::bind(first).expect("free");
        for _ in 0..10 {
            assert_ne!(free(ip).expect("another"), first);
        }
    }
}
