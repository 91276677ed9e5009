//! `pintle agent`: one node, or many pretended ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use pintle_nodeagent::RuntimeKind;
use pintle_nodeagent::balancer::Balancer;

use crate::cluster::{CLUSTER_DNS, CLUSTER_DOMAIN, SERVICE_CIDR};
use crate::pki::Pki;
use crate::{clients, signals};

/// One agent.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The name of the node.
    #[arg(long)]
    name: String,
    /// Where pods, logs and the runtime keep their data.
    #[arg(long)]
    data_dir: PathBuf,
    /// The folder with the cluster's certificates.
    #[arg(long)]
    pki_dir: PathBuf,
    /// The API addresses of all members; the agent balances over them itself.
    #[arg(long, value_delimiter = ',', required = true)]
    api_servers: Vec<SocketAddr>,
    /// Where logs, exec and statistics are served.
    #[arg(long, default_value = "127.0.0.1:10250")]
    listen: SocketAddr,
    /// The address that the node registers.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    node_ip: IpAddr,
    /// What runs the containers.
    #[arg(long, value_enum, default_value_t = Runtime::Containerd)]
    runtime: Runtime,
    /// How many nodes to pretend with --runtime hollow.
    #[arg(long, default_value_t = 1)]
    hollow_nodes: u32,
    /// Leave the services' addresses alone.
    #[arg(long)]
    no_proxy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    Containerd,
    Hollow,
}

/// Runs the node until SIGTERM; its containers go on without it.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let shutdown = signals::shutdown_token()?;
    let pki = Pki::new(options.pki_dir);
    let api = Balancer::bind((Ipv4Addr::LOCALHOST, 0).into(), options.api_servers.clone())
        .await
        .context("the way to the apiservers")?;
    let server = format!("https://{}", api.local_addr());
    tokio::spawn(api.run(shutdown.clone()));
    let pair = pki.node(&options.name);
    let runtime = match options.runtime {
        Runtime::Containerd => RuntimeKind::Containerd,
        Runtime::Hollow => RuntimeKind::Hollow { count: options.hollow_nodes },
    };
    // Pretended nodes are many, and a node certificate speaks for one: they act as the admin does.
    let identity = match options.runtime {
        Runtime::Containerd => pair.clone(),
        Runtime::Hollow => pki.admin(),
    };
    let config = pintle_nodeagent::Config {
        client: clients::kube_client(&server, &pki.ca().cert, &identity).await?,
        node_name: options.name,
        api_servers: options.api_servers,
        data_dir: options.data_dir,
        node_ip: options.node_ip,
        listen: options.listen,
        tls: pintle_nodeagent::TlsFiles { cert: pair.cert, key: pair.key },
        client_ca: pki.ca().cert,
        proxy: !options.no_proxy && options.runtime == Runtime::Containerd,
        runtime,
        cluster_dns: CLUSTER_DNS,
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        service_cidr: SERVICE_CIDR.parse()?,
    };
    Ok(pintle_nodeagent::run(config, shutdown).await?)
}
