//! CRI v1 over a unix socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use pintle_proto::cri::image_service_client::ImageServiceClient;
use pintle_proto::cri::runtime_service_client::RuntimeServiceClient;
use pintle_proto::cri::*;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use super::{
    ContainerDetail, Error, ExecOutput, ImageRef, LABEL_POD_UID, Readiness, Result, Runtime,
    SandboxDetail, Streams, Version,
};

/// How often containers are looked at: a container killed by pid is noticed within this time.
const POLL_PERIOD: Duration = Duration::from_millis(500);
/// Lists of a full node fit well within this.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Calls that only read.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls that create or remove; upstream's runtime request timeout.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// Pulls take as long as the network does.
const PULL_TIMEOUT: Duration = Duration::from_secs(1800);

/// A runtime that speaks CRI.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    /// A client of the runtime at `socket`; connects when first used, and again after a failure.
    pub fn new(socket: &Path) -> Self {
        let channel = connect_lazy(socket.to_path_buf());
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }
}

fn connect_lazy(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://cri.invalid").connect_with_connector_lazy(connector)
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound(message),
            Code::Unavailable => Self::Unavailable(message),
            Code::DeadlineExceeded | Code::Cancelled => Self::DeadlineExceeded(message),
            Code::Unimplemented => Self::Unimplemented(message),
            _ => Self::Failed(message),
        }
    }
}

/// A call that ends within `limit`, also when the runtime hangs.
fn within<T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
) -> impl Future<Output = Result<T>> {
    // Requests are large, and callers keep several of these futures.
    let call = Box::pin(call);
    async move {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => {
                Err(Error::DeadlineExceeded(format!("no answer within {} s", limit.as_secs())))
            }
        }
    }
}

fn pod_selector(pod_uid: Option<&str>) -> HashMap<String, String> {
    pod_uid.map(|uid| (LABEL_POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

/// containerd puts a JSON document with the first process's pid under `info`.
fn pid_of(info: &HashMap<String, String>) -> Option<i32> {
    let document: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    document.get("pid")?.as_i64()?.try_into().ok()
}

/// Nothing to do is as good as done.
fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn image_spec(name: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: name.to_owned(), ..Default::default() })
}

#[async_trait]
impl Runtime for Cri {
    fn is_real(&self) -> bool {
        true
    }

    async fn changed(&self) {
        tokio::time::sleep(POLL_PERIOD).await;
    }

    async fn version(&self) -> Result<Version> {
        let request = VersionRequest { version: "v1".to_owned() };
        let answer = within(READ_TIMEOUT, self.runtime().version(request)).await?;
        Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn readiness(&self) -> Result<Readiness> {
        let answer =
            within(READ_TIMEOUT, self.runtime().status(StatusRequest { verbose: false })).await?;
        let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
        let problem = |kind: &str| match conditions.iter().find(|c| c.r#type == kind) {
            Some(condition) if condition.status => None,
            Some(condition) => Some(format!("{}: {}", condition.reason, condition.message)),
            None => Some(format!("the runtime reports no {kind} condition")),
        };
        Ok(Readiness { runtime: problem("RuntimeReady"), network: problem("NetworkReady") })
    }

    async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let answer = within(2 * WRITE_TIMEOUT, self.runtime().run_pod_sandbox(request)).await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let answer = within(WRITE_TIMEOUT, self.runtime().stop_pod_sandbox(request)).await;
        absent_is_fine(answer.map(|_| ()))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let answer = within(WRITE_TIMEOUT, self.runtime().remove_pod_sandbox(request)).await;
        absent_is_fine(answer.map(|_| ()))
    }

    async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandbox>> {
        let filter =
            PodSandboxFilter { label_selector: pod_selector(pod_uid), ..Default::default() };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        Ok(within(READ_TIMEOUT, self.runtime().list_pod_sandbox(request)).await?.items)
    }

    async fn sandbox(&self, id: &str) -> Result<SandboxDetail> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer = within(READ_TIMEOUT, self.runtime().pod_sandbox_status(request)).await?;
        let pid = pid_of(&answer.info);
        let status =
            answer.status.ok_or_else(|| Error::NotFound(format!("sandbox {id} has no status")))?;
        Ok(SandboxDetail { status, pid })
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        Ok(within(WRITE_TIMEOUT, self.runtime().create_container(request)).await?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        within(WRITE_TIMEOUT, self.runtime().start_container(request)).await.map(|_| ())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = grace.saturating_add(WRITE_TIMEOUT);
        absent_is_fine(within(limit, self.runtime().stop_container(request)).await.map(|_| ()))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        let answer = within(WRITE_TIMEOUT, self.runtime().remove_container(request)).await;
        absent_is_fine(answer.map(|_| ()))
    }

    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        let filter =
            ContainerFilter { label_selector: pod_selector(pod_uid), ..Default::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        Ok(within(READ_TIMEOUT, self.runtime().list_containers(request)).await?.containers)
    }

    async fn container(&self, id: &str) -> Result<ContainerDetail> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = within(READ_TIMEOUT, self.runtime().container_status(request)).await?;
        let pid = pid_of(&answer.info);
        let status = answer
            .status
            .ok_or_else(|| Error::NotFound(format!("container {id} has no status")))?;
        Ok(ContainerDetail { status, pid })
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = ReopenContainerLogRequest { container_id: id.to_owned() };
        within(WRITE_TIMEOUT, self.runtime().reopen_container_log(request)).await.map(|_| ())
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let request = ListContainerStatsRequest { filter: None };
        Ok(within(READ_TIMEOUT, self.runtime().list_container_stats(request)).await?.stats)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        // The runtime's own limit is the one that kills the command; ours only guards the call.
        let limit = if timeout.is_zero() { PULL_TIMEOUT } else { timeout + READ_TIMEOUT };
        let answer = within(limit, self.runtime().exec_sync(request)).await?;
        Ok(ExecOutput {
            stdout: answer.stdout.to_vec(),
            stderr: answer.stderr.to_vec(),
            exit_code: answer.exit_code,
        })
    }

    async fn exec(&self, id: &str, command: &[String], streams: Streams) -> Result<String> {
        let request = ExecRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(within(READ_TIMEOUT, self.runtime().exec(request)).await?.url)
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<String> {
        let request = AttachRequest {
            container_id: id.to_owned(),
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        Ok(within(READ_TIMEOUT, self.runtime().attach(request)).await?.url)
    }

    async fn port_forward(&self, sandbox_id: &str, ports: &[i32]) -> Result<String> {
        let request =
            PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: ports.to_vec() };
        Ok(within(READ_TIMEOUT, self.runtime().port_forward(request)).await?.url)
    }

    async fn list_images(&self) -> Result<Vec<ImageRef>> {
        let request = ListImagesRequest { filter: None };
        Ok(within(READ_TIMEOUT, self.images().list_images(request)).await?.images)
    }

    async fn image(&self, name: &str) -> Result<Option<ImageRef>> {
        let request = ImageStatusRequest { image: image_spec(name), verbose: false };
        Ok(within(READ_TIMEOUT, self.images().image_status(request)).await?.image)
    }

    async fn pull_image(&self, name: &str) -> Result<String> {
        let request =
            PullImageRequest { image: image_spec(name), auth: None, sandbox_config: None };
        Ok(within(PULL_TIMEOUT, self.images().pull_image(request)).await?.image_ref)
    }

    async fn remove_image(&self, name: &str) -> Result<()> {
        let request = RemoveImageRequest { image: image_spec(name) };
        let answer = within(WRITE_TIMEOUT, self.images().remove_image(request)).await;
        absent_is_fine(answer.map(|_| ()))
    }

    async fn image_filesystems(&self) -> Result<Vec<FilesystemUsage>> {
        let answer =
            within(READ_TIMEOUT, self.images().image_fs_info(ImageFsInfoRequest {})).await?;
        Ok(answer.image_filesystems)
    }
}
