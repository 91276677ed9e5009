//! Connections to a running store, with etcdctl's options.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use pintle_proto::etcdserverpb as pb;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// Answers may be large; the other side has its own limits.
pub(super) const MESSAGE_BYTES_MAX: usize = usize::MAX;

/// Whom to ask, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The endpoints; the first one that answers is used.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub(super) endpoints: Vec<String>,
    /// Who signed the server's certificate.
    #[arg(long)]
    pub(super) cacert: Option<PathBuf>,
    /// The certificate to show.
    #[arg(long, requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// NAME:PASSWORD, where authentication is on.
    #[arg(long)]
    pub(super) user: Option<String>,
}

/// A channel that shows a token with every request.
pub(super) type Authorized = InterceptedService<Channel, Token>;

/// The token, where there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// Connects to the first endpoint that answers.
pub(super) async fn connect(options: &Options) -> anyhow::Result<Authorized> {
    let mut problem = None;
    for endpoint in &options.endpoints {
        match connect_to(endpoint, options).await {
            Ok(channel) => return Ok(channel),
            Err(error) => problem = Some(error.context(endpoint.clone())),
        }
    }
    Err(problem.unwrap_or_else(|| anyhow::anyhow!("no endpoint was given")))
}

async fn connect_to(endpoint: &str, options: &Options) -> anyhow::Result<Authorized> {
    let secure = options.cacert.is_some() || options.cert.is_some();
    let url = match (endpoint.contains("://"), secure) {
        (true, _) => endpoint.to_owned(),
        (false, true) => format!("https://{endpoint}"),
        (false, false) => format!("http://{endpoint}"),
    };
    let mut target = Endpoint::from_shared(url.clone())?;
    if url.starts_with("https://") {
        target = target.tls_config(tls(options)?)?;
    }
    let channel = target.connect().await?;
    let token = match &options.user {
        Some(user) => Token(Some(authenticate(channel.clone(), user).await?)),
        None => Token::default(),
    };
    Ok(InterceptedService::new(channel, token))
}

fn tls(options: &Options) -> anyhow::Result<ClientTlsConfig> {
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let mut config = ClientTlsConfig::new();
    if let Some(ca) = &options.cacert {
        config = config.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(cert), Some(key)) = (&options.cert, &options.key) {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(config)
}

async fn authenticate(channel: Channel, user: &str) -> anyhow::Result<MetadataValue<Ascii>> {
    let Some((name, password)) = user.split_once(':') else {
        bail!("--user needs NAME:PASSWORD");
    };
    let request = pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    let mut client = pb::auth_client::AuthClient::new(channel);
    let token = client.authenticate(request).await.context("authenticating")?.into_inner().token;
    Ok(token.parse()?)
}
