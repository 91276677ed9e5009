//! Forgetting UDP flows. A UDP flow has no end that the kernel sees, so one that was sent to an
//! endpoint that is gone, or was refused while there was none, would go on for as long as the client talks.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tokio::process::Command;

/// A flow to forget.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flow {
    /// Sent on from the service's address to this endpoint.
    Endpoint { service: Ipv4Addr, port: u16, endpoint: Ipv4Addr },
    /// Any to the service's address.
    Service { service: Ipv4Addr, port: u16 },
}

impl Flow {
    fn arguments(&self) -> Vec<String> {
        let (service, port) = match self {
            Self::Endpoint { service, port, .. } | Self::Service { service, port } => {
                (service, port)
            }
        };
        let mut arguments: Vec<String> =
            ["-D", "-p", "udp", "--orig-dst"].map(str::to_owned).to_vec();
        arguments.extend([service.to_string(), "--dport".to_owned(), port.to_string()]);
        if let Self::Endpoint { endpoint, .. } = self {
            arguments.extend(["--dst-nat".to_owned(), endpoint.to_string()]);
        }
        arguments
    }
}

/// Deletes the flows; a flow that is not there is no error.
pub(super) async fn forget(flows: BTreeSet<Flow>) {
    for flow in flows {
        match Command::new("conntrack").args(flow.arguments()).output().await {
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "conntrack is missing: UDP flows to old endpoints linger");
                return;
            }
        }
    }
}
