//! Images: whether a container's image is there, and getting it when it is not.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use crate::events::Recorder;
use crate::pod::backoff::Backoff;
use crate::pod::status::WaitingReason;
use crate::runtime::{ImageRef, Runtime};

/// Images that came by `image import` have no registry to ask.
const IMPORTED: &str = "localhost/";

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// When it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

/// The policy of a container; `latest` is pulled each time unless it says otherwise.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let latest = !last.contains(':') || last.ends_with(":latest");
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// Gets images. The lock guards the backoff table and is never held over an await.
#[derive(Clone)]
pub struct ImageManager {
    runtime: Arc<dyn Runtime>,
    events: Recorder,
    backoff: Arc<Mutex<Failures>>,
}

#[derive(Default)]
struct Failures {
    backoff: Backoff<String>,
    last: std::collections::HashMap<String, Timestamp>,
}

impl ImageManager {
    /// Images of a runtime.
    pub fn new(runtime: Arc<dyn Runtime>, events: Recorder) -> Self {
        Self { runtime, events, backoff: Arc::default() }
    }

    /// The image of a container, pulled if its policy says so.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<ImageRef, WaitingReason> {
        let name = container.image.as_deref().unwrap_or_default();
        let present = self.runtime.image(name).await.map_err(|error| WaitingReason {
            reason: "ImageInspectError".to_owned(),
            message: format!("Failed to inspect image {name:?}: {error}"),
        })?;
        match (pull_policy(container), present) {
            (PullPolicy::Always, Some(image)) if name.starts_with(IMPORTED) => {
                Ok(self.use_present(pod, container, image))
            }
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
                Ok(self.use_present(pod, container, image))
            }
            (PullPolicy::Never, None) => {
                let message =
                    format!("Container image {name:?} is not present with pull policy of Never");
                self.events.warning(
                    pod,
                    Some(&container.name),
                    "ErrImageNeverPull",
                    message.clone(),
                );
                Err(WaitingReason { reason: "ErrImageNeverPull".to_owned(), message })
            }
            (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => {
                self.pull(pod, container, name).await
            }
        }
    }

    fn use_present(&self, pod: &Pod, container: &Container, image: ImageRef) -> ImageRef {
        let name = container.image.as_deref().unwrap_or_default();
        let message = format!("Container image {name:?} already present on machine");
        self.events.normal(pod, Some(&container.name), "Pulled", message);
        image
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        name: &str,
    ) -> Result<ImageRef, WaitingReason> {
        let now = Timestamp::now();
        let waits = {
            let failures = self.backoff.lock();
            let last = failures.last.get(name).copied();
            last.is_some_and(|last| {
                failures.backoff.remaining(&name.to_owned(), last, now).is_some()
            })
        };
        if waits {
            let message = format!("Back-off pulling image {name:?}");
            self.events.normal(pod, Some(&container.name), "BackOff", message.clone());
            return Err(WaitingReason { reason: "ImagePullBackOff".to_owned(), message });
        }
        self.events.normal(
            pod,
            Some(&container.name),
            "Pulling",
            format!("Pulling image {name:?}"),
        );
        let pulled = match self.runtime.pull_image(name).await {
            Ok(_) => self.runtime.image(name).await,
            Err(error) => Err(error),
        };
        match pulled {
            Ok(Some(image)) => {
                let mut failures = self.backoff.lock();
                failures.backoff.reset(&name.to_owned());
                failures.last.remove(name);
                self.events.normal(
                    pod,
                    Some(&container.name),
                    "Pulled",
                    format!("Successfully pulled image {name:?}"),
                );
                Ok(image)
            }
            Ok(None) => {
                Err(self.pull_failed(pod, container, name, "the pulled image is not there"))
            }
            Err(error) => Err(self.pull_failed(pod, container, name, &error.to_string())),
        }
    }

    fn pull_failed(
        &self,
        pod: &Pod,
        container: &Container,
        name: &str,
        error: &str,
    ) -> WaitingReason {
        let now = Timestamp::now();
        {
            let mut failures = self.backoff.lock();
            let last = failures.last.insert(name.to_owned(), now).unwrap_or(now);
            failures.backoff.attempted(name.to_owned(), last, now);
        }
        let message = format!("Failed to pull image {name:?}: {error}");
        self.events.warning(pod, Some(&container.name), "Failed", message.clone());
        self.events.warning(pod, Some(&container.name), "Failed", "Error: ErrImagePull");
        WaitingReason { reason: "ErrImagePull".to_owned(), message: error.to_owned() }
    }

    /// Removes images that no container uses until `bytes` are free; the largest first. Returns what
    /// was freed.
    pub async fn collect_garbage(&self, bytes: u64) -> u64 {
        let (Ok(images), Ok(containers)) =
            (self.runtime.list_images().await, self.runtime.list_containers(None).await)
        else {
            return 0;
        };
        let used: HashSet<&str> = containers.iter().map(|c| c.image_ref.as_str()).collect();
        let mut unused: Vec<_> = images
            .iter()
            .filter(|image| !image.pinned && !used.contains(image.id.as_str()))
            .filter(|image| !image.repo_tags.iter().any(|tag| tag.starts_with(IMPORTED)))
            .collect();
        unused.sort_by_key(|image| std::cmp::Reverse(image.size));
        let mut freed = 0;
        for image in unused {
            if freed >= bytes {
                break;
            }
            match self.runtime.remove_image(&image.id).await {
                Ok(()) => freed += image.size,
                Err(error) => tracing::warn!(image = image.id, %error, "cannot remove an image"),
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_pulled_each_time() {
        let policy = |image: &str, policy: Option<&str>| {
            pull_policy(&Container {
                image: Some(image.to_owned()),
                image_pull_policy: policy.map(str::to_owned),
                ..Container::default()
            })
        };
        assert_eq!(policy("demo", None), PullPolicy::Always);
        assert_eq!(policy("host:5000/demo", None), PullPolicy::Always);
        assert_eq!(policy("demo:latest", None), PullPolicy::Always);
        assert_eq!(policy("demo:v1", None), PullPolicy::IfNotPresent);
        assert_eq!(policy("demo@sha256:1", None), PullPolicy::IfNotPresent);
        assert_eq!(policy("demo:v1", Some("Never")), PullPolicy::Never);
    }
}
