//! Connections to other members; those with TLS have the certificates that the files hold at that
//! moment.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::tls;

/// Connects and shakes hands. The channel above sees a plain connection.
#[derive(Clone)]
pub(super) struct Dial(pub(super) Arc<tls::Client>);

type Dialed = TokioIo<TlsStream<TcpStream>>;

impl Service<Uri> for Dial {
    type Response = Dialed;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = Arc::clone(&self.0);
        Box::pin(async move { dial(&tls, &uri).await.map(TokioIo::new) })
    }
}

/// What bytes are exchanged through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects, with TLS if it is given.
pub(super) async fn connect(tls: Option<&Arc<tls::Client>>, uri: &Uri) -> io::Result<Box<dyn Io>> {
    Ok(match tls {
        Some(tls) => Box::new(dial(tls, uri).await?),
        None => Box::new(tcp(uri).await?.0),
    })
}

async fn dial(tls: &tls::Client, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
    let (stream, host) = tcp(uri).await?;
    let name = ServerName::try_from(host).map_err(|_| invalid(uri, "not a host name"))?;
    tls.connector().connect(name, stream).await
}

async fn tcp(uri: &Uri) -> io::Result<(TcpStream, String)> {
    let host = uri.host().ok_or_else(|| invalid(uri, "no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().ok_or_else(|| invalid(uri, "no port"))?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    Ok((stream, host))
}

fn invalid(uri: &Uri, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{uri}: {what}"))
}
