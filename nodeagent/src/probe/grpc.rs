//! The health protocol of gRPC: `grpc.health.v1.Health/Check`.

use std::net::{IpAddr, SocketAddr};

use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether `service` serves.
pub(super) async fn check(ip: IpAddr, port: i32, service: String) -> Result<(), String> {
    let port = u16::try_from(port).map_err(|_| format!("invalid port number: {port}"))?;
    let address = SocketAddr::new(ip, port);
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect()
        .await
        .map_err(|error| format!("timeout: failed to connect service {address:?}: {error}"))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    match client.unary(Request::new(HealthCheckRequest { service }), path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => {
            Err(format!("service unhealthy (responded with {})", answer.get_ref().status))
        }
        Err(status) if status.code() == Code::Unimplemented => {
            Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                .to_owned())
        }
        Err(status) => Err(format!("health rpc failed: {}", status.message())),
    }
}
