//! The I/O of the DaemonSet controller.

use super::{Inputs, Plan, Retry, plan, pods, status::status};
use crate::{
    children::{
        PodControl, check_cache, claim_children, delete_exactly, follow_pods, forget_deleted,
        is_namespace_going, slow_start,
    },
    history,
    object::{self, ObjectKey, is_deleting},
    pod::next_available,
    runtime::{
        Change, Controller, Informer, Queue, Recorder, Setup, Store, SyncError, Term, Verdict,
    },
};
use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams, core::Selector};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let sets = setup.informer::<DaemonSet>();
    let pods = setup.informer::<Pod>();
    let nodes = setup.informer::<Node>();
    let revisions = setup.informer::<ControllerRevision>();
    let control = PodControl::new(setup.client(), setup.recorder("daemonset-controller"));
    sets.enqueue(&queue);
    forget_deleted(&sets, control.expectations.clone());
    let selector = |set: &DaemonSet| object::selector(Some(&set.spec.selector)).ok().flatten();
    follow_pods(&pods, &sets.store(), &queue, control.expectations.clone(), selector);
    revisions.enqueue_controller::<DaemonSet>(&queue);
    follow_nodes(&nodes, &sets.store(), &queue);
    let controller = DaemonSetController {
        client: setup.client(),
        recorder: setup.recorder("daemonset-controller"),
        term: setup.term(),
        sets: sets.store(),
        pods: pods.store(),
        nodes: nodes.store(),
        revisions: revisions.store(),
        control,
        retries: Mutex::default(),
    };
    setup.controller("daemonset", queue, controller);
}

/// A node that comes, goes, or changes in what selectors and tolerations speak of, may concern every set.
fn follow_nodes(nodes: &Informer<Node>, sets: &Arc<Store<DaemonSet>>, queue: &Arc<Queue>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    nodes.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && old.metadata.labels == new.metadata.labels
            && taints(old) == taints(new)
        {
            return;
        }
        sets.keys().into_iter().for_each(|key| queue.add(key));
    });
}

type Retries = HashMap<String, Retry>;

struct DaemonSetController {
    client: Client,
    recorder: Recorder,
    term: Term,
    sets: Arc<Store<DaemonSet>>,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    revisions: Arc<Store<ControllerRevision>>,
    control: PodControl,
    /// By set; of its current generation.
    retries: Mutex<HashMap<ObjectKey, (Option<i64>, Retries)>>,
}

#[async_trait]
impl Controller for DaemonSetController {
    fn keys(&self) -> Vec<ObjectKey> {
        self.sets.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(set) = self.sets.get(key) else {
            self.retries.lock().remove(key);
            return Ok(Verdict::Done);
        };
        let Some(selector) = object::selector(Some(&set.spec.selector))? else {
            return Ok(Verdict::Done);
        };
        if selector.selects_all() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&*set, "SelectingAll", text);
            return Ok(Verdict::Done);
        }
        if is_deleting(&set.metadata) {
            return Ok(Verdict::Done);
        }
        let revisions = claim_children(&self.client, &*set, &selector, &self.revisions).await?;
        let Some(current) = self.current_revision(&set, &revisions).await? else {
            return self.count_collision(&set).await;
        };
        self.pass(key, &set, &selector, &current, &revisions).await
    }
}

impl DaemonSetController {
    fn api(&self, set: &DaemonSet) -> Api<DaemonSet> {
        Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default())
    }

    async fn current_revision(
        &self,
        set: &DaemonSet,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Option<Arc<ControllerRevision>>, SyncError> {
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let (template, label) = (&set.spec.template, history::HASH_LABEL);
        let wanted = history::current(set, template, collisions, revisions, label)
            .map_err(kube::Error::SerdeError)?;
        history::establish(&self.client, wanted).await
    }

    async fn count_collision(&self, set: &DaemonSet) -> Result<Verdict, SyncError> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.store(set, status).await?;
        Err(SyncError::NotYet("the name of the revision is taken".to_owned()))
    }

    async fn pass(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        selector: &Selector,
        current: &ControllerRevision,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Verdict, SyncError> {
        // Asked before the pods are read: what is seen afterwards is at least as new.
        let settled = self.control.expectations.satisfied(key);
        let pods = claim_children(&self.client, set, selector, &self.pods).await?;
        let retries = self.retries_of(key, set);
        let hash = current.labels().get(history::HASH_LABEL).cloned().unwrap_or_default();
        let inputs = Inputs {
            set,
            nodes: &self.nodes.list(),
            pods: &pods,
            hash: &hash,
            retries: &retries,
            now: Timestamp::now(),
        };
        if !settled {
            self.store(set, status(&inputs, false)).await?;
            return Ok(Verdict::Done);
        }
        let plan = plan(&inputs);
        if !plan.create.is_empty() || !plan.delete.is_empty() {
            check_cache(&self.client, &self.term, &set.metadata, selector, &pods).await?;
        }
        let outcome = self.perform(key, set, &hash, &plan).await;
        self.clean_up(set, &hash, &pods, revisions).await?;
        self.store(set, status(&inputs, true)).await?;
        outcome?;
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let ready = next_available(pods.iter().map(|pod| &**pod), min_ready, inputs.now);
        Ok(Verdict::after(plan.again.into_iter().chain(ready).min()))
    }

    fn retries_of(&self, key: &ObjectKey, set: &DaemonSet) -> Retries {
        let generation = set.metadata.generation;
        let mut all = self.retries.lock();
        let entry = all.entry(key.clone()).or_insert_with(|| (generation, Retries::new()));
        if entry.0 != generation {
            *entry = (generation, Retries::new());
        }
        entry.1.clone()
    }

    fn note_failures(&self, key: &ObjectKey, failed: &[String]) {
        let now = Timestamp::now();
        let mut all = self.retries.lock();
        let Some((_, retries)) = all.get_mut(key) else { return };
        for node in failed {
            let next = Retry::next(retries.get(node), now);
            retries.insert(node.clone(), next);
        }
    }

    async fn perform(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        hash: &str,
        plan: &Plan,
    ) -> Result<(), SyncError> {
        for (type_, reason, message) in &plan.news {
            self.recorder.record(set, *type_, reason, message.clone());
        }
        self.note_failures(key, &plan.failed);
        let new: Vec<_> = plan.create.iter().map(|node| pods::new(set, hash, node)).collect();
        let created =
            slow_start(new, |pod| async move { self.control.create(set, &pod).await }).await;
        let deletions = plan.delete.iter().map(|pod| self.control.delete(set, pod));
        let deleted: Result<Vec<_>, _> = join_all(deletions).await.into_iter().collect();
        match created {
            Err(error) if !is_namespace_going(&error) => return Err(error.into()),
            _ => {}
        }
        deleted?;
        Ok(())
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        hash: &str,
        pods: &[Arc<Pod>],
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<(), SyncError> {
        let Some(limit) = set.spec.revision_history_limit else { return Ok(()) };
        let mut live = history::hashes(pods);
        live.insert(hash.to_owned());
        let in_use = |revision: &ControllerRevision| {
            revision.labels().get(history::HASH_LABEL).is_some_and(|hash| live.contains(hash))
        };
        let api = Api::<ControllerRevision>::namespaced(
            self.client.clone(),
            &set.namespace().unwrap_or_default(),
        );
        for revision in history::surplus(revisions, in_use, limit) {
            delete_exactly(&api, &revision.metadata).await?;
        }
        Ok(())
    }

    async fn store(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), SyncError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = DaemonSet { status: Some(status), ..set.clone() };
        self.api(set).replace_status(&set.name_any(), &PostParams::default(), &changed).await?;
        Ok(())
    }
}
