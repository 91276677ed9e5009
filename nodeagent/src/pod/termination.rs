//! Last words of containers, and stopping them.

use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::runtime_status::{ANNOTATION_TERMINATION_POLICY, Record};
use super::{PodExt, hooks, sandbox_config};
use crate::config::Paths;
use crate::context::NodeContext;
use crate::log::cri_format;

/// The API's limit for a message.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// What is taken of a log instead.
const LOG_LINES: usize = 80;
/// What is taken of a log instead.
const LOG_BYTES_MAX: usize = 2048;
/// What a container gets when its grace is used up by its hook.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// The file that a container instance may write its last words to.
pub fn message_file(paths: &Paths, pod: &Pod, container: &str, restart_count: i32) -> PathBuf {
    paths.pod(pod.uid()).join("containers").join(container).join(restart_count.to_string())
}

/// Creates an empty, writable file.
pub fn create_message_file(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, "")?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666))
}

/// The last words of a container that has ended.
pub fn read_message(paths: &Paths, pod: &Pod, record: &Record) -> String {
    let file = message_file(paths, pod, &record.name, record.restart_count());
    let mut message = String::new();
    if let Ok(file) = std::fs::File::open(file) {
        let mut bytes = Vec::new();
        if file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes).is_ok() {
            message = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    let policy = record.status.annotations.get(ANNOTATION_TERMINATION_POLICY);
    let from_log = policy.is_some_and(|policy| policy == "FallbackToLogsOnError");
    if message.is_empty() && from_log && record.status.exit_code != 0 {
        let log = sandbox_config::log_directory(paths, pod)
            .join(super::container_config::log_path(&record.name, record.restart_count()));
        message = tail_of_log(&log).unwrap_or_default();
    }
    message
}

fn tail_of_log(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(64 << 10)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let lines: Vec<Vec<u8>> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(cri_format::parse)
        .map(|line| line.text.to_vec())
        .collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES)..].concat();
    let tail = &text[text.len().saturating_sub(LOG_BYTES_MAX)..];
    Ok(String::from_utf8_lossy(tail).into_owned())
}

/// A container to stop, in a task of its own.
pub struct Stop {
    /// The node.
    pub context: Arc<NodeContext>,
    /// Its pod.
    pub pod: Arc<Pod>,
    /// Its definition, if it is still in the pod.
    pub container: Option<Container>,
    /// The runtime's id.
    pub container_id: String,
    /// How long hook and process get together.
    pub grace: Duration,
    /// The pod's address, for hooks.
    pub ip: Option<IpAddr>,
    /// Why, for the event.
    pub message: String,
}

impl Stop {
    /// `preStop`, the stop signal, and SIGKILL when the grace is over.
    pub async fn run(self) {
        let begun = Instant::now();
        let name = self.container.as_ref().map(|c| c.name.clone());
        self.context.events.normal(&self.pod, name.as_deref(), "Killing", self.message.clone());
        let hook = self
            .container
            .as_ref()
            .and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some((container, hook)) = hook.filter(|_| !self.grace.is_zero()) {
            let runtime = &*self.context.runtime;
            let run = hooks::run(runtime, container, &self.container_id, hook, self.ip, self.grace);
            let result = tokio::time::timeout(self.grace, run).await;
            let failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(message)) => Some(message),
                Err(_) => Some("PreStop hook did not end within the grace period".to_owned()),
            };
            if let Some(message) = failure {
                let message = format!("PreStopHook failed: {message}");
                self.context.events.warning(
                    &self.pod,
                    name.as_deref(),
                    "FailedPreStopHook",
                    message,
                );
            }
        }
        let left = self.grace.saturating_sub(begun.elapsed());
        let grace =
            if self.grace.is_zero() { Duration::ZERO } else { left.max(GRACE_MIN).min(self.grace) };
        if let Err(error) = self.context.runtime.stop_container(&self.container_id, grace).await {
            tracing::warn!(container = self.container_id, %error, "cannot stop a container");
        }
    }
}
