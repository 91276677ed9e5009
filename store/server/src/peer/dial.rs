//! TLS connections to other members, with the certificates that the files hold at that moment.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
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

async fn dial(tls: &tls::Client, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
    let invalid =
        |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri}: {what}"));
    let host = uri.host().ok_or_else(|| invalid("no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().ok_or_else(|| invalid("no port"))?;
    let name = ServerName::try_from(host.clone()).map_err(|_| invalid("not a host name"))?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    tls.connector().connect(name, stream).await
}
