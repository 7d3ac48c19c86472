use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::ServerError;

/// Below the range from which operating systems pick ports for outgoing connections, so
/// that a server which is stopped for a while finds its port free when it starts again.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A port that nobody listens on at this moment. Another process may take it before it is
/// used; whoever asked for "any port" then asks again.
pub(crate) fn free(host: &str) -> Option<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes start at different places, so that parallel tests seldom meet.
    let start = (std::process::id() as u16).wrapping_mul(211);
    (0..COUNT).find_map(|_| {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        TcpListener::bind((host, port)).is_ok().then_some(port)
    })
}

/// The wanted port, checked to be free, or any free one for 0.
pub(crate) fn choose(
    server: &'static str,
    setting: &'static str,
    host: &str,
    wanted: u16,
) -> Result<u16, ServerError> {
    let in_use = |port| ServerError::PortInUse {
        server,
        port,
        setting,
    };
    if wanted == 0 {
        return free(host).ok_or_else(|| in_use(0));
    }
    match TcpListener::bind((host, wanted)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(in_use(wanted)),
        // Any other trouble with the address is the server's to report, in its own words.
        _ => Ok(wanted),
    }
}
