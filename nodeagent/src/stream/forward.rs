//! Raw connections: SPDY clients, and port forwarding, whose SPDY frames travel inside a WebSocket. The
//! runtime's server speaks the same frames, so that bytes only pass through.

use std::io;

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::remote_command::{linger, normal_close};
use super::upgrade::{self, Upgraded};

/// The WebSocket subprotocol of a SPDY tunnel.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol inside the tunnel.
pub const PORT_FORWARD: &str = "portforward.k8s.io";
/// What is read at once.
const CHUNK: usize = 32 << 10;

/// Passes SPDY frames between a WebSocket and the runtime.
pub async fn tunnel(socket: WebSocket, url: &str) -> io::Result<()> {
    let upgraded = upgrade::connect(url, &[PORT_FORWARD.to_owned()]).await?;
    let (read, write) = upgraded.stream.into_split();
    let (to_client, mut from_client) = socket.split();
    tokio::select! {
        result = to_websocket(read, upgraded.rest, to_client) => result?,
        result = from_websocket(&mut from_client, write) => return result,
    }
    linger(from_client).await;
    Ok(())
}

async fn to_websocket(
    mut read: OwnedReadHalf,
    rest: Vec<u8>,
    mut client: SplitSink<WebSocket, Message>,
) -> io::Result<()> {
    if !rest.is_empty() {
        client.send(Message::Binary(rest.into())).await.map_err(io::Error::other)?;
    }
    loop {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        if read.read_buf(&mut buffer).await? == 0 {
            return client.send(normal_close()).await.map_err(io::Error::other);
        }
        client.send(Message::Binary(buffer.freeze())).await.map_err(io::Error::other)?;
    }
}

async fn from_websocket(
    client: &mut SplitStream<WebSocket>,
    mut write: OwnedWriteHalf,
) -> io::Result<()> {
    while let Some(message) = client.next().await {
        let data = match message.map_err(io::Error::other)? {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        write.write_all(&data).await?;
    }
    write.shutdown().await
}

/// Passes bytes between an upgraded HTTP connection and the runtime.
pub async fn pipe(client: hyper::upgrade::OnUpgrade, runtime: Upgraded) -> io::Result<()> {
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    let mut stream = runtime.stream;
    client.write_all(&runtime.rest).await?;
    copy_bidirectional(&mut client, &mut stream).await.map(|_| ())
}
