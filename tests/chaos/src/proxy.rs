//! A TCP proxy whose wire can be cut: silently, as by a failed switch, or with the connections closed.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// How a wire is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing is forwarded, and nobody is told. What was sent arrives when the wire is mended, as with TCP.
    Silent,
    /// Connections are closed, and new ones at once.
    Closed,
}

/// The state of all wires: rules look at it, and every change wakes those who wait.
#[derive(Debug)]
pub struct Switch<T>(watch::Sender<T>);

impl<T: Clone + Send + Sync + 'static> Switch<T> {
    /// A switch in this state.
    pub fn new(state: T) -> Self {
        Self(watch::Sender::new(state))
    }
    /// Changes the state of all wires at once.
    pub fn set(&self, state: T) {
        self.0.send_replace(state);
    }
}

/// A proxy. It ends, and its connections with it, when dropped.
pub struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that are taken at once.
const CHUNK: usize = 64 * 1024;

impl Proxy {
    /// Listens on `listen` and forwards to `upstream`. `of` is asked once for each connection, with the address that it comes
    /// from, and answers with how the switch's state bears on it.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start<T, F, R>(
        listen: SocketAddr,
        upstream: SocketAddr,
        switch: &Switch<T>,
        of: F,
    ) -> anyhow::Result<Self>
    where
        T: Clone + Send + Sync + 'static,
        F: Fn(SocketAddr) -> R + Send + 'static,
        R: Fn(&T) -> Option<Cut> + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let state = switch.0.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, from)) = accepted else { continue };
                        let wire = Wire { state: state.clone(), rule: of(from) };
                        connections.spawn(connection(client, upstream, wire));
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Wire<T, R> {
    state: watch::Receiver<T>,
    rule: R,
}

impl<T: Clone, R: Fn(&T) -> Option<Cut> + Clone> Wire<T, R> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            rule: self.rule.clone(),
        }
    }

    /// Waits until something may pass. `false`: the connection is to be closed.
    async fn open(&mut self) -> bool {
        let Self { state, rule } = self;
        match state
            .wait_for(|state| rule(state) != Some(Cut::Silent))
            .await
        {
            Ok(state) => rule(&state).is_none(),
            // The switch is gone, and the proxy with it.
            Err(_) => false,
        }
    }

    /// Waits until the connection is to be closed.
    async fn closed(&mut self) {
        let Self { state, rule } = self;
        let _ = state
            .wait_for(|state| rule(state) == Some(Cut::Closed))
            .await;
    }
}

async fn connection<T, R>(client: TcpStream, upstream: SocketAddr, mut wire: Wire<T, R>)
where
    T: Clone + Send + Sync + 'static,
    R: Fn(&T) -> Option<Cut> + Clone + Send + Sync + 'static,
{
    if !wire.open().await {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    // Small messages must not wait for each other.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let mut end = wire.clone();
    tokio::select! {
        () = pump(from_client, to_server, wire.clone()) => {}
        () = pump(from_server, to_client, wire.clone()) => {}
        () = end.closed() => {}
    }
}

async fn pump<T: Clone, R: Fn(&T) -> Option<Cut> + Clone>(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: Wire<T, R>,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        // What was read before the cut waits here, as it would in the sender's buffer.
        if !wire.open().await || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn started() -> (Proxy, Switch<Option<Cut>>) {
        let switch = Switch::new(None);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxy = Proxy::start(any, echo().await, &switch, |_| |cut: &Option<Cut>| *cut)
            .await
            .expect("listens");
        (proxy, switch)
    }

    async fn says(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).await.expect("sent");
        hears(stream, text).await;
    }

    async fn hears(stream: &mut TcpStream, text: &str) {
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await.expect("answered");
        assert_eq!(heard, text.as_bytes());
    }

    #[tokio::test]
    async fn a_silent_cut_holds_back_what_is_sent_until_it_is_mended() {
        let (proxy, switch) = started().await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("there");
        says(&mut stream, "before").await;
        switch.set(Some(Cut::Silent));
        stream.write_all(b"during").await.expect("taken");
        let mut byte = [0];
        let waited = timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
        assert!(waited.is_err(), "something came through");
        switch.set(None);
        hears(&mut stream, "during").await;
    }

    #[tokio::test]
    async fn a_closing_cut_ends_connections_and_takes_no_new_ones() {
        let (proxy, switch) = started().await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("there");
        says(&mut stream, "before").await;
        switch.set(Some(Cut::Closed));
        let mut rest = Vec::new();
        // An end or a reset: either is a closed connection.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let mut other = TcpStream::connect(proxy.address()).await.expect("listens");
        let _ = other.write_all(b"during").await;
        let _ = other.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        switch.set(None);
        let mut after = TcpStream::connect(proxy.address()).await.expect("there");
        says(&mut after, "after").await;
    }
}
