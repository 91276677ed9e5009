//! Starting one container: image, environment, configuration, the runtime's two calls, `postStart`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::actions::Start;
use super::env::{self, Sources as EnvSources};
use super::status::WaitingReason;
use super::sync::Error;
use super::worker::Worker;
use super::{ContainerKind, PodExt, container_config, hooks, sandbox_config, termination};
use crate::probe::check;
use crate::runtime;
use crate::volume::sources::Sources;

/// A hook that never ends must not hold the pod for ever.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

fn waits(reason: &str, message: impl Into<String>) -> WaitingReason {
    WaitingReason { reason: reason.to_owned(), message: message.into() }
}

impl Worker {
    /// Starts a container. The inner error says why it waits.
    pub(super) async fn start_container(
        &mut self,
        start: &Start,
    ) -> Result<Result<(), WaitingReason>, Error> {
        let container = &start.container;
        let image = match self.context.images.ensure(&self.pod, container).await {
            Ok(image) => image,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some(sandbox) = self.runtime.sandbox().cloned() else {
            return Ok(Err(waits("ContainerCreating", "")));
        };
        let config = match self.container_config(start, &image).await {
            Ok(config) => config,
            Err(message) => {
                self.context.events.warning(
                    &self.pod,
                    Some(&container.name),
                    "Failed",
                    format!("Error: {message}"),
                );
                return Ok(Err(waits("CreateContainerConfigError", message)));
            }
        };
        self.note_attempt(start);
        let sandbox_config = sandbox_config::sandbox_config(
            &self.pod,
            sandbox.attempt,
            &self.context.dns,
            &sandbox_config::read_host_resolv_conf(),
            &self.context.paths,
        );
        let created =
            self.context.runtime.create_container(&sandbox.id, config, sandbox_config).await;
        let id = match created {
            Ok(id) => id,
            Err(error @ runtime::Error::Unavailable(_)) => return Err(error.into()),
            Err(error) => {
                return Ok(Err(self.start_failed(container, "CreateContainerError", &error)));
            }
        };
        let message = format!("Created container: {}", container.name);
        self.context.events.normal(&self.pod, Some(&container.name), "Created", message);
        if let Err(error) = self.context.runtime.start_container(&id).await {
            return Ok(Err(self.start_failed(container, "RunContainerError", &error)));
        }
        let message = format!("Started container {}", container.name);
        self.context.events.normal(&self.pod, Some(&container.name), "Started", message);
        self.waiting.remove(&container.name);
        self.remove_predecessors(&container.name).await;
        self.post_start(container, &id).await;
        Ok(Ok(()))
    }

    fn start_failed(
        &self,
        container: &Container,
        reason: &str,
        error: &runtime::Error,
    ) -> WaitingReason {
        self.context.events.warning(
            &self.pod,
            Some(&container.name),
            "Failed",
            format!("Error: {error}"),
        );
        waits(reason, error.to_string())
    }

    async fn post_start(&mut self, container: &Container, id: &str) {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return;
        };
        let ip = check::address_of(&self.pod, &self.ips(), self.context.node_ip);
        let result =
            hooks::run(&*self.context.runtime, container, id, hook, ip, POST_START_LIMIT).await;
        if let Err(message) = result {
            let message = format!("PostStartHook failed: {message}");
            self.context.events.warning(
                &self.pod,
                Some(&container.name),
                "FailedPostStartHook",
                message,
            );
            let grace = Duration::from_secs(self.pod.grace_seconds().max(0).unsigned_abs());
            self.stop_one(id, &container.name, grace, "FailedPostStartHook".to_owned());
        }
    }

    /// Of the ended instances of a container the newest is kept, for its log and its last state.
    async fn remove_predecessors(&self, name: &str) {
        let ended =
            self.runtime.containers.iter().filter(|r| r.name == name && !r.is_running()).skip(1);
        for record in ended {
            if let Err(error) = self.context.runtime.remove_container(&record.status.id).await {
                tracing::debug!(container = record.status.id, %error, "old container stays");
            }
            let log = sandbox_config::log_directory(&self.context.paths, &self.pod)
                .join(container_config::log_path(name, record.restart_count()));
            crate::log::rotate::remove_all(&log);
        }
    }

    async fn container_config(
        &self,
        start: &Start,
        image: &runtime::ImageRef,
    ) -> Result<pintle_proto::cri::ContainerConfig, String> {
        let container = &start.container;
        let facts = self.context.facts(&self.pod, &self.ips());
        let sources = self.env_sources(container).await?;
        let env =
            env::environment(&self.pod, container, &sources, &facts).map_err(|e| e.to_string())?;
        let real = self.context.runtime.is_real();
        let hosts_file = if real { self.hosts_file().map_err(|e| e.to_string())? } else { None };
        let termination_file = match real {
            true => Some(self.termination_file(start).map_err(|e| e.to_string())?),
            false => None,
        };
        let empty = HashMap::new();
        let volumes = self.volumes.as_ref().filter(|_| real).unwrap_or(&empty);
        let mut definition = container.clone();
        if !real {
            definition.volume_mounts = None;
        }
        container_config::container_config(container_config::Input {
            pod: &self.pod,
            container: &definition,
            restart_count: start.restart_count,
            image,
            env,
            volumes,
            hosts_file,
            termination_file,
            node_memory: self.context.memory,
            target_id: self.target_of(start),
        })
        .map_err(|error| error.to_string())
    }

    /// The container whose processes an ephemeral container sees.
    fn target_of(&self, start: &Start) -> Option<String> {
        if start.kind != ContainerKind::Ephemeral {
            return None;
        }
        let list = self.pod.pod_spec().ephemeral_containers.as_ref()?;
        let target =
            list.iter().find(|c| c.name == start.container.name)?.target_container_name.as_ref()?;
        Some(self.runtime.newest(target)?.status.id.clone())
    }

    fn termination_file(&self, start: &Start) -> std::io::Result<PathBuf> {
        let file = termination::message_file(
            &self.context.paths,
            &self.pod,
            &start.container.name,
            start.restart_count,
        );
        termination::create_message_file(&file)?;
        Ok(file)
    }

    async fn env_sources(&self, container: &Container) -> Result<EnvSources, String> {
        let (config_maps, secrets) = env::references(container);
        let services = self.context.services.state().iter().map(|s| (**s).clone()).collect();
        let mut sources = EnvSources { services, ..EnvSources::default() };
        if !self.context.runtime.is_real() {
            return Ok(sources);
        }
        let facts = self.context.facts(&self.pod, &self.ips());
        let reader = Sources::new(self.context.client.clone(), facts, self.tokens.clone());
        for name in config_maps {
            let object =
                reader.config_map(self.pod.namespace(), &name).await.map_err(|e| e.to_string())?;
            sources.config_maps.insert(name, object);
        }
        for name in secrets {
            let object =
                reader.secret(self.pod.namespace(), &name).await.map_err(|e| e.to_string())?;
            sources.secrets.insert(name, object);
        }
        Ok(sources)
    }

    /// The pod's `/etc/hosts`.
    fn hosts_file(&self) -> std::io::Result<Option<PathBuf>> {
        let folder = self.context.paths.pod(self.pod.uid());
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("etc-hosts");
        let mut text = if self.pod.host_network() {
            let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            format!("# The node's own hosts file.\n{own}")
        } else {
            let mut text = String::from(
                "# Managed by the node agent.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            );
            let hostname = sandbox_config::hostname(&self.pod);
            for ip in self.ips() {
                let line = match sandbox_config::fqdn(&self.pod, &self.context.dns.domain) {
                    Some(fqdn) => format!("{ip}\t{fqdn}\t{hostname}\n"),
                    None => format!("{ip}\t{hostname}\n"),
                };
                text.push_str(&line);
            }
            text
        };
        for alias in self.pod.pod_spec().host_aliases.iter().flatten() {
            let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t");
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}\t{names}", alias.ip);
        }
        std::fs::write(&file, text)?;
        Ok(Some(file))
    }
}
