//! What the command line decides.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// PEM files of one TLS identity.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Whom to trust on the other side, where that is asked of this identity.
    pub ca: Option<PathBuf>,
}

/// One apiserver.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's name, for its identity Lease and logs.
    pub member_name: String,
    /// Where HTTPS is served.
    pub listen: SocketAddr,
    /// The serving certificate.
    pub tls: TlsFiles,
    /// Client certificates signed by this CA are identities.
    pub client_ca: PathBuf,
    /// `iss` of service-account tokens.
    pub service_account_issuer: String,
    /// PEM PKCS#8 EC P-256 key that signs and verifies them (ES256).
    pub service_account_key: PathBuf,
    /// Where ClusterIPs come from.
    pub service_cidr: Ipv4Net,
    /// The CA of the cluster (`kube-root-ca.crt`, signer of certificate requests).
    pub cluster_ca: PathBuf,
    /// Its key, on members that may sign.
    pub cluster_ca_key: Option<PathBuf>,
    /// The identity shown to kubelets.
    pub kubelet_client: TlsFiles,
    /// API addresses of all members: the endpoints of `default/kubernetes`.
    pub advertise: Vec<SocketAddr>,
    /// Plain HTTP metrics and health.
    pub metrics_listen: Option<SocketAddr>,
}
