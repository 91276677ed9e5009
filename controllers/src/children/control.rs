//! Creating and deleting children: with events, expectations, and care about what certainly happened.

use super::Namespaced;
use crate::{
    object::{ObjectKey, uid},
    runtime::{Expectations, Recorder},
};
use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use std::{future::Future, sync::Arc, time::Duration};

/// Creates and deletes pods for a controller, with events and expectations.
pub struct PodControl {
    client: Client,
    recorder: Recorder,
    words: Words,
    /// What the controller waits for; the informer's handler settles it.
    pub expectations: Arc<Expectations>,
}

/// How often is asked after a request without a clear answer, and the pause in between: as long as a change of leaders takes.
const DOUBT_TRIES: usize = 20;
const DOUBT_PAUSE: Duration = Duration::from_millis(250);

/// How events tell what was done: a function of what, the pod's name and the parent's.
type Words = fn(Deed, &str, &str) -> String;

/// What was done, or tried, to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It was created.
    Created,
    /// It was deleted.
    Deleted,
    /// It could not be created.
    NotCreated(String),
    /// It could not be deleted.
    NotDeleted(String),
}

fn plain_words(deed: Deed, pod: &str, _: &str) -> String {
    match deed {
        Deed::Created => format!("Created pod: {pod}"),
        Deed::Deleted => format!("Deleted pod: {pod}"),
        Deed::NotCreated(why) => format!("Error creating: {why}"),
        Deed::NotDeleted(why) => format!("Error deleting: {why}"),
    }
}

impl PodControl {
    /// A control that signs its events as `recorder` does.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder, words: plain_words, expectations: Arc::default() }
    }

    /// The same, with other words in its events.
    pub fn with_words(self, words: Words) -> Self {
        Self { words, ..self }
    }

    /// Creates a pod of `parent`.
    pub async fn create<P: Namespaced>(&self, parent: &P, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let promise = Promise::new(&self.expectations, ObjectKey::of(parent), &name);
        let api = self.api(parent);
        let Err(error) = api.create(&PostParams::default(), pod).await else {
            promise.keep();
            let text = (self.words)(Deed::Created, &name, &parent.name_any());
            self.recorder.normal(parent, "SuccessfulCreate", text);
            return Ok(());
        };
        if !is_certain(&error) && !is_absent(&api, &name).await {
            promise.keep();
        }
        if !is_namespace_going(&error) {
            let text = (self.words)(Deed::NotCreated(message(&error)), &name, &parent.name_any());
            self.recorder.warning(parent, "FailedCreate", text);
        }
        Err(error)
    }

    /// Deletes a pod of `parent`; one that is gone already is fine.
    pub async fn delete<P: Namespaced>(&self, parent: &P, pod: &Pod) -> Result<(), kube::Error> {
        let owner = ObjectKey::of(parent);
        let (name, pod_uid) = (pod.name_any(), uid(&pod.metadata));
        self.expectations.expect_deletion(&owner, pod_uid);
        let outcome = delete_exactly(&self.api(parent), &pod.metadata).await;
        if !matches!(outcome, Ok(true)) {
            // Should it have happened after all: to ask for it again does no harm.
            self.expectations.deletion_observed(&owner, pod_uid);
        }
        match outcome {
            Ok(true) => {
                let text = (self.words)(Deed::Deleted, &name, &parent.name_any());
                self.recorder.normal(parent, "SuccessfulDelete", text);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                let deed = Deed::NotDeleted(message(&error));
                let text = (self.words)(deed, &name, &parent.name_any());
                self.recorder.warning(parent, "FailedDelete", text);
                Err(error)
            }
        }
    }

    fn api<P: Namespaced>(&self, parent: &P) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &parent.namespace().unwrap_or_default())
    }
}

/// A pod that was asked for. It is waited for if it is kept; a request that failed, or was given up with its leader's term, must
/// not hold its owner up.
struct Promise<'a> {
    expectations: &'a Expectations,
    owner: ObjectKey,
    name: &'a str,
    kept: bool,
}

impl<'a> Promise<'a> {
    fn new(expectations: &'a Expectations, owner: ObjectKey, name: &'a str) -> Self {
        expectations.expect_creation(&owner, name);
        Self { expectations, owner, name, kept: false }
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.expectations.creation_observed(&self.owner, self.name);
        }
    }
}

/// Whether a pod whose creation got no clear answer certainly was not made. Asks until there is an answer, for a while.
async fn is_absent(api: &Api<Pod>, name: &str) -> bool {
    for _ in 0..DOUBT_TRIES {
        match api.get_opt(name).await {
            Ok(found) => return found.is_none(),
            Err(_) => tokio::time::sleep(DOUBT_PAUSE).await,
        }
    }
    false
}

/// Deletes the object with exactly this UID; `false` if it was gone already.
pub async fn delete_exactly<C: Namespaced>(
    api: &Api<C>,
    meta: &ObjectMeta,
) -> Result<bool, kube::Error> {
    let exactly = Preconditions { uid: meta.uid.clone(), resource_version: None };
    let params = DeleteParams::background().preconditions(exactly);
    match api.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the request certainly changed nothing.
pub fn is_certain(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code < 500)
}

/// Whether creation failed because the namespace is being deleted.
pub fn is_namespace_going(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_forbidden() && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// What the server said, without our client's decoration.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs `work` in batches of 1, 2, 4, … and stops after the first batch with a failure, so that a mistake in a template
/// costs one refused request and not hundreds.
pub async fn slow_start<T, Fut>(items: Vec<T>, work: impl Fn(T) -> Fut) -> Result<(), kube::Error>
where
    Fut: Future<Output = Result<(), kube::Error>>,
{
    let mut items = items.into_iter();
    let mut batch = 1;
    loop {
        let now: Vec<_> = items.by_ref().take(batch).map(&work).collect();
        if now.is_empty() {
            return Ok(());
        }
        join_all(now).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        batch *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn promise_is_waited_for_only_if_it_is_kept() {
        let expectations = Expectations::default();
        let owner = ObjectKey::new("ns", "web");
        drop(Promise::new(&expectations, owner.clone(), "web-a"));
        assert!(expectations.satisfied(&owner));
        Promise::new(&expectations, owner.clone(), "web-b").keep();
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner, "web-b");
        assert!(expectations.satisfied(&owner));
    }

    #[tokio::test]
    async fn slow_start_doubles_and_stops_at_the_first_failure() {
        let tried = AtomicUsize::new(0);
        let outcome = slow_start((0..100).collect(), |item: i32| {
            tried.fetch_add(1, Ordering::Relaxed);
            async move {
                if item == 2 { Err(kube::Error::LinesCodecMaxLineLengthExceeded) } else { Ok(()) }
            }
        })
        .await;
        assert!(outcome.is_err());
        assert_eq!(tried.load(Ordering::Relaxed), 3, "batches of one and two");
    }
}
