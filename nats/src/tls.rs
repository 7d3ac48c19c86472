//! The cryptography of this process's TLS connections.

/// Chooses ring for the whole process, as the client of nats-server does for itself; an earlier choice stands. Every program
/// that makes an HTTP client calls it first: such a client, which may have to reach `https` addresses, takes what the process
/// has chosen, and cannot be made before.
pub fn choose() {
    let _ = rustls::crypto::ring::default_provider().install_default(); // an earlier choice stands
}
