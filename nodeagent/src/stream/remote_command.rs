//! `exec` and `attach` for a WebSocket client: each message starts with its channel.

use std::io;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::spdy::{Frame, Receiver, Sender, StreamId};
use super::upgrade;
use crate::runtime::Streams;

/// The subprotocol with half-close.
pub const V5: &str = "v5.channel.k8s.io";
/// The subprotocol before it.
pub const V4: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Pings that wait to be answered; more would be a server gone mad.
const PONGS: usize = 8;
/// How long a client gets to close its side.
const LINGER: Duration = Duration::from_secs(5);

/// The streams of one command at the runtime.
#[derive(Debug)]
struct Opened {
    error: StreamId,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    resize: Option<StreamId>,
}

impl Opened {
    fn channel_of(&self, stream: StreamId) -> Option<u8> {
        let stream = Some(stream);
        match stream {
            s if s == Some(self.error) => Some(ERROR),
            s if s == self.stdout => Some(STDOUT),
            s if s == self.stderr => Some(STDERR),
            _ => None,
        }
    }
}

/// Connects the client with the command behind `url` until the command ends or the client goes.
pub async fn bridge(socket: WebSocket, url: &str, streams: Streams) -> io::Result<()> {
    let upgraded = upgrade::connect(url, &[V4.to_owned()]).await?;
    let (read, write) = upgraded.stream.into_split();
    let mut sender = Sender::new(write);
    let opened = open(&mut sender, streams).await?;
    let receiver = Receiver::new(read, &upgraded.rest);
    let (to_client, mut from_client) = socket.split();
    let (pong, pongs) = mpsc::channel(PONGS);
    tokio::select! {
        result = output(receiver, to_client, &opened, streams, pong) => result?,
        result = input(&mut from_client, sender, &opened, pongs) => return result,
    }
    linger(from_client).await;
    Ok(())
}

/// The frame that clients take for a good end.
pub(super) fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() }))
}

/// Waits for the client to close, too: a connection that is dropped with unread bytes is reset, and a
/// reset takes back what was sent last.
pub(super) async fn linger(mut client: SplitStream<WebSocket>) {
    let read = async { while let Some(Ok(_)) = client.next().await {} };
    if tokio::time::timeout(LINGER, read).await.is_err() {
        tracing::debug!("the client does not close");
    }
}

async fn open(sender: &mut Sender<OwnedWriteHalf>, streams: Streams) -> io::Result<Opened> {
    let error = sender.open(&[("streamtype", "error")]).await?;
    let mut opened = Opened { error, stdin: None, stdout: None, stderr: None, resize: None };
    for (wanted, kind, place) in [
        (streams.stdin, "stdin", &mut opened.stdin),
        (streams.stdout, "stdout", &mut opened.stdout),
        (streams.stderr && !streams.tty, "stderr", &mut opened.stderr),
        (streams.tty, "resize", &mut opened.resize),
    ] {
        if wanted {
            *place = Some(sender.open(&[("streamtype", kind)]).await?);
        }
    }
    Ok(opened)
}

/// Runtime to client. Ends when the runtime has said how the command ended.
async fn output(
    mut receiver: Receiver<OwnedReadHalf>,
    mut client: SplitSink<WebSocket, Message>,
    opened: &Opened,
    streams: Streams,
    pong: mpsc::Sender<u32>,
) -> io::Result<()> {
    if streams.stdout {
        // Tells the client that the connection stands.
        send(&mut client, STDOUT, Bytes::new()).await?;
    }
    while let Some(frame) = receiver.next().await? {
        match frame {
            Frame::Data { stream, data, .. } => {
                if let Some(channel) = opened.channel_of(stream).filter(|_| !data.is_empty()) {
                    send(&mut client, channel, data).await?;
                }
            }
            // The input side answers; when it is swamped the ping is lost.
            Frame::Ping(id) => drop(pong.try_send(id)),
            Frame::GoAway => break,
            Frame::Reset(_) | Frame::Other => {}
        }
    }
    client.send(normal_close()).await.map_err(io::Error::other)
}

async fn send(
    client: &mut SplitSink<WebSocket, Message>,
    channel: u8,
    data: Bytes,
) -> io::Result<()> {
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.put_u8(channel);
    message.put_slice(&data);
    client.send(Message::Binary(message.freeze())).await.map_err(io::Error::other)
}

/// Client to runtime. Ends when the client goes; a client that only closes its input stays.
async fn input(
    client: &mut SplitStream<WebSocket>,
    mut sender: Sender<OwnedWriteHalf>,
    opened: &Opened,
    mut pongs: mpsc::Receiver<u32>,
) -> io::Result<()> {
    loop {
        let message = tokio::select! {
            Some(id) = pongs.recv() => {
                sender.pong(id).await?;
                continue;
            }
            message = client.next() => message,
        };
        let data = match message {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Text(text))) => Bytes::copy_from_slice(text.as_bytes()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_))) | None => return Ok(()),
            Some(Err(error)) => return Err(io::Error::other(error)),
        };
        let Some((channel, data)) = data.split_first() else { continue };
        match *channel {
            STDIN => {
                if let Some(stdin) = opened.stdin {
                    sender.data(stdin, data, false).await?;
                }
            }
            RESIZE => {
                if let Some(resize) = opened.resize {
                    sender.data(resize, data, false).await?;
                }
            }
            CLOSE if data == [STDIN] => {
                if let Some(stdin) = opened.stdin {
                    sender.data(stdin, &[], true).await?;
                }
            }
            _ => {}
        }
    }
}
