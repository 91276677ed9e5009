//! A runtime that pretends: sandboxes and containers are entries in a table, run at once, and end when
//! they are told to. Deterministic: ids count up, addresses are handed out in order.
//!
//! With it a process can be thousands of nodes, to load the control plane with real agents' traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use pintle_proto::cri::{
    Container, ContainerConfig, ContainerState, ContainerStats, ContainerStatus, FilesystemUsage,
    Image, LinuxPodSandboxStatus, Namespace, NamespaceMode, PodSandbox, PodSandboxConfig,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{
    ContainerDetail, Error, ExecOutput, ImageRef, Readiness, Result, Runtime, SandboxDetail,
    Streams, Version, pod_uid,
};

/// Changes are told; this is only the heartbeat of the PLEG.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// The pretended containers of one node. The lock is never held over an await.
#[derive(Debug, Default)]
pub struct Hollow {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ids: u64,
    subnet: Option<Ipv4Net>,
    taken: BTreeSet<Ipv4Addr>,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, (String, ContainerStatus)>,
}

impl State {
    fn next_id(&mut self) -> String {
        self.ids += 1;
        format!("{:064x}", self.ids)
    }

    /// The lowest free address above the gateway's.
    fn take_address(&mut self) -> Result<Ipv4Addr> {
        let subnet = self
            .subnet
            .ok_or_else(|| Error::Failed("the node has no pod network yet".to_owned()))?;
        let free = subnet.hosts().skip(1).find(|address| !self.taken.contains(address));
        let address = free.ok_or_else(|| Error::Failed(format!("no free address in {subnet}")))?;
        self.taken.insert(address);
        Ok(address)
    }

    fn release_address(&mut self, sandbox: &str) {
        let network = self.sandboxes.get(sandbox).and_then(|status| status.network.as_ref());
        if let Some(address) = network.and_then(|network| network.ip.parse().ok()) {
            self.taken.remove(&address);
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut ContainerStatus> {
        let found = self.containers.get_mut(id).map(|(_, status)| status);
        found.ok_or_else(|| Error::NotFound(format!("container {id} does not exist")))
    }
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn digest(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn end(status: &mut ContainerStatus) {
    if status.state() == ContainerState::ContainerRunning {
        status.state = ContainerState::ContainerExited as i32;
        status.finished_at = now();
        status.reason = "Completed".to_owned();
    }
}

fn pretends<T>(what: &str) -> Result<T> {
    Err(Error::Unimplemented(format!("a hollow node has no {what}")))
}

impl Hollow {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let result = change(&mut self.state.lock());
        self.changed.notify_one();
        result
    }
}

#[async_trait]
impl Runtime for Hollow {
    fn is_real(&self) -> bool {
        false
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    }

    fn pod_network(&self, subnet: Ipv4Net) {
        self.state.lock().subnet = Some(subnet);
    }

    async fn version(&self) -> Result<Version> {
        Ok(Version { name: "hollow".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
    }

    async fn readiness(&self) -> Result<Readiness> {
        let waits = self.state.lock().subnet.is_none();
        Ok(Readiness {
            runtime: None,
            network: waits.then(|| "the node has no podCIDR yet".to_owned()),
        })
    }

    async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        self.change(|state| {
            let options = config.linux.and_then(|linux| linux.security_context?.namespace_options);
            let host = options.as_ref().is_some_and(|o| o.network() == NamespaceMode::Node);
            let ip = if host { String::new() } else { state.take_address()?.to_string() };
            let id = state.next_id();
            let status = PodSandboxStatus {
                id: id.clone(),
                metadata: config.metadata,
                state: PodSandboxState::SandboxReady as i32,
                created_at: now(),
                network: Some(PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
                linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
                labels: config.labels,
                annotations: config.annotations,
                runtime_handler: String::new(),
            };
            state.sandboxes.insert(id.clone(), status);
            Ok(id)
        })
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        self.change(|state| {
            for (sandbox, status) in state.containers.values_mut() {
                if sandbox == id {
                    end(status);
                }
            }
            state.release_address(id);
            if let Some(sandbox) = state.sandboxes.get_mut(id) {
                sandbox.state = PodSandboxState::SandboxNotready as i32;
                sandbox.network = None;
            }
            Ok(())
        })
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.change(|state| {
            state.release_address(id);
            state.sandboxes.remove(id);
            state.containers.retain(|_, (sandbox, _)| sandbox != id);
            Ok(())
        })
    }

    async fn list_sandboxes(&self, uid: Option<&str>) -> Result<Vec<PodSandbox>> {
        let state = self.state.lock();
        let wanted =
            state.sandboxes.values().filter(|s| uid.is_none() || pod_uid(&s.labels) == uid);
        Ok(wanted
            .map(|status| PodSandbox {
                id: status.id.clone(),
                metadata: status.metadata.clone(),
                state: status.state,
                created_at: status.created_at,
                labels: status.labels.clone(),
                annotations: status.annotations.clone(),
                runtime_handler: String::new(),
            })
            .collect())
    }

    async fn sandbox(&self, id: &str) -> Result<SandboxDetail> {
        let found = self.state.lock().sandboxes.get(id).cloned();
        let status =
            found.ok_or_else(|| Error::NotFound(format!("sandbox {id} does not exist")))?;
        Ok(SandboxDetail { status, pid: None })
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        _sandbox: PodSandboxConfig,
    ) -> Result<String> {
        self.change(|state| {
            if !state.sandboxes.contains_key(sandbox_id) {
                return Err(Error::NotFound(format!("sandbox {sandbox_id} does not exist")));
            }
            let id = state.next_id();
            let status = ContainerStatus {
                id: id.clone(),
                metadata: config.metadata,
                state: ContainerState::ContainerCreated as i32,
                created_at: now(),
                image_ref: config
                    .image
                    .as_ref()
                    .map(|image| image.image.clone())
                    .unwrap_or_default(),
                image: config.image,
                labels: config.labels,
                annotations: config.annotations,
                ..ContainerStatus::default()
            };
            state.containers.insert(id.clone(), (sandbox_id.to_owned(), status));
            Ok(id)
        })
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.change(|state| {
            let status = state.container(id)?;
            status.state = ContainerState::ContainerRunning as i32;
            status.started_at = now();
            Ok(())
        })
    }

    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<()> {
        self.change(|state| {
            if let Some((_, status)) = state.containers.get_mut(id) {
                end(status);
            }
            Ok(())
        })
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.change(|state| {
            state.containers.remove(id);
            Ok(())
        })
    }

    async fn list_containers(&self, uid: Option<&str>) -> Result<Vec<Container>> {
        let state = self.state.lock();
        let wanted =
            state.containers.values().filter(|(_, s)| uid.is_none() || pod_uid(&s.labels) == uid);
        Ok(wanted
            .map(|(sandbox, status)| Container {
                id: status.id.clone(),
                pod_sandbox_id: sandbox.clone(),
                metadata: status.metadata.clone(),
                image: status.image.clone(),
                image_ref: status.image_ref.clone(),
                state: status.state,
                created_at: status.created_at,
                labels: status.labels.clone(),
                annotations: status.annotations.clone(),
                image_id: String::new(),
            })
            .collect())
    }

    async fn container(&self, id: &str) -> Result<ContainerDetail> {
        let status = self.state.lock().container(id)?.clone();
        Ok(ContainerDetail { status, pid: None })
    }

    async fn reopen_log(&self, _id: &str) -> Result<()> {
        pretends("logs")
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        Ok(Vec::new())
    }

    async fn exec_sync(
        &self,
        _id: &str,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput> {
        Ok(ExecOutput::default())
    }

    async fn exec(&self, _id: &str, _command: &[String], _streams: Streams) -> Result<String> {
        pretends("processes to run a command beside")
    }

    async fn attach(&self, _id: &str, _streams: Streams) -> Result<String> {
        pretends("processes to attach to")
    }

    async fn port_forward(&self, _sandbox_id: &str, _ports: &[i32]) -> Result<String> {
        pretends("network to forward to")
    }

    async fn list_images(&self) -> Result<Vec<ImageRef>> {
        Ok(Vec::new())
    }

    /// Every image is there.
    async fn image(&self, name: &str) -> Result<Option<ImageRef>> {
        Ok(Some(Image {
            id: format!("sha256:{}", digest(name)),
            repo_tags: vec![name.to_owned()],
            // Nobody's in particular, so that `runAsNonRoot` is content.
            uid: Some(pintle_proto::cri::Int64Value { value: 65_532 }),
            ..Image::default()
        }))
    }

    async fn pull_image(&self, name: &str) -> Result<String> {
        Ok(format!("sha256:{}", digest(name)))
    }

    async fn remove_image(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    async fn image_filesystems(&self) -> Result<Vec<FilesystemUsage>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::LABEL_POD_UID;

    fn config(uid: &str) -> PodSandboxConfig {
        let labels = [(LABEL_POD_UID.to_owned(), uid.to_owned())].into();
        PodSandboxConfig { labels, ..PodSandboxConfig::default() }
    }

    async fn ip(runtime: &Hollow, id: &str) -> String {
        runtime.sandbox(id).await.unwrap().status.network.unwrap().ip
    }

    #[tokio::test]
    async fn containers_run_at_once_and_end_with_their_sandbox() {
        let runtime = Hollow::default();
        assert!(runtime.run_sandbox(config("u")).await.is_err(), "no network yet");
        runtime.pod_network("10.244.1.0/24".parse().unwrap());
        let sandbox = runtime.run_sandbox(config("u")).await.unwrap();
        let container = runtime
            .create_container(
                &sandbox,
                ContainerConfig { labels: config("u").labels, ..Default::default() },
                config("u"),
            )
            .await
            .unwrap();
        runtime.start_container(&container).await.unwrap();
        let state = |runtime: &Hollow| runtime.state.lock().container(&container).unwrap().state();
        assert_eq!(state(&runtime), ContainerState::ContainerRunning);
        runtime.stop_sandbox(&sandbox).await.unwrap();
        assert_eq!(state(&runtime), ContainerState::ContainerExited);
        runtime.remove_sandbox(&sandbox).await.unwrap();
        assert!(runtime.list_containers(Some("u")).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn addresses_are_handed_out_in_order_and_given_back() {
        let runtime = Hollow::default();
        runtime.pod_network("10.244.1.0/30".parse().unwrap());
        let first = runtime.run_sandbox(config("a")).await.unwrap();
        assert_eq!(ip(&runtime, &first).await, "10.244.1.2");
        assert!(runtime.run_sandbox(config("b")).await.is_err(), "the range is used up");
        runtime.stop_sandbox(&first).await.unwrap();
        let second = runtime.run_sandbox(config("b")).await.unwrap();
        assert_eq!(ip(&runtime, &second).await, "10.244.1.2");
    }
}
