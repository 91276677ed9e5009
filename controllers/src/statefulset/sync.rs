//! The I/O of the StatefulSet controller.

use super::{Action, Inputs, Plan, identity, plan, status::status};
use crate::{
    children::{
        Deed, PodControl, Terms, claim_children, claim_children_with, delete_exactly, follow_pods,
        forget_deleted, is_namespace_going, message, slow_start,
    },
    history,
    object::{self, ObjectKey},
    pod::next_available,
    runtime::{Controller, Recorder, Setup, Store, SyncError, Verdict, Written},
};
use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus},
        core::v1::{PersistentVolumeClaim, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::Selector,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The label of a revision's own hash; its pods are labelled with its name.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let sets = setup.informer::<StatefulSet>();
    let pods = setup.informer::<Pod>();
    let claims = setup.informer::<PersistentVolumeClaim>();
    let revisions = setup.informer::<ControllerRevision>();
    let recorder = setup.recorder("statefulset-controller");
    let control = PodControl::new(setup.client(), recorder.clone()).with_words(words);
    sets.enqueue(&queue);
    forget_deleted(&sets, control.expectations.clone());
    let selector = |set: &StatefulSet| object::selector(Some(&set.spec.selector)).ok().flatten();
    follow_pods(&pods, &sets.store(), &queue, control.expectations.clone(), selector);
    revisions.enqueue_controller::<StatefulSet>(&queue);
    let controller = StatefulSetController {
        client: setup.client(),
        recorder,
        sets: sets.store(),
        pods: pods.store(),
        claims: claims.store(),
        revisions: revisions.store(),
        control,
        written: Written::default(),
    };
    setup.controller("statefulset", queue, controller);
}

fn words(deed: Deed, pod: &str, set: &str) -> String {
    match deed {
        Deed::Created => format!("create Pod {pod} in StatefulSet {set} successful"),
        Deed::Deleted => format!("delete Pod {pod} in StatefulSet {set} successful"),
        Deed::NotCreated(why) => {
            format!("create Pod {pod} in StatefulSet {set} failed error: {why}")
        }
        Deed::NotDeleted(why) => {
            format!("delete Pod {pod} in StatefulSet {set} failed error: {why}")
        }
    }
}

struct StatefulSetController {
    client: Client,
    recorder: Recorder,
    sets: Arc<Store<StatefulSet>>,
    pods: Arc<Store<Pod>>,
    claims: Arc<Store<PersistentVolumeClaim>>,
    revisions: Arc<Store<ControllerRevision>>,
    control: PodControl,
    written: Written,
}

#[async_trait]
impl Controller for StatefulSetController {
    fn keys(&self) -> Vec<ObjectKey> {
        self.sets.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(set) = self.sets.get(key) else {
            self.written.forget(key);
            return Ok(Verdict::Done);
        };
        let Some(selector) = object::selector(Some(&set.spec.selector))? else {
            return Ok(Verdict::Done);
        };
        if !self.written.is_shown(&*set) {
            return Err(SyncError::NotYet("the cache is behind".to_owned()));
        }
        let revisions = claim_children(&self.client, &*set, &selector, &self.revisions).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let template = &set.spec.template;
        let wanted = history::current(
            &*set,
            template,
            collisions.filter(|count| *count > 0),
            &revisions,
            REVISION_HASH,
        )
        .map_err(kube::Error::SerdeError)?;
        let Some(update) = history::establish(&self.client, wanted).await? else {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.store(&set, status).await?;
            return Err(SyncError::NotYet("the name of the revision is taken".to_owned()));
        };
        self.pass(key, &set, &selector, &update, &revisions).await
    }
}

impl StatefulSetController {
    async fn pass(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        selector: &Selector,
        update: &Arc<ControllerRevision>,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Verdict, SyncError> {
        // Asked before the pods are read: what is seen afterwards is at least as new.
        let settled = self.control.expectations.satisfied(key);
        let terms = Terms { fits: identity::has_its_name, ..Terms::default() };
        let pods = claim_children_with(&self.client, set, selector, &self.pods, &terms).await?;
        let named = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = revisions.iter().find(|one| Some(one.name_any().as_str()) == named);
        let claim = |name: &str| self.claims.get(&ObjectKey::new(&key.namespace, name));
        let inputs = Inputs {
            set,
            pods: &pods,
            current: current.unwrap_or(update),
            update,
            claim: &claim,
            now: Timestamp::now(),
        };
        let plan = if settled { plan(&inputs) } else { Plan::default() };
        let (deleted, outcome) = self.perform(set, &plan).await;
        let status = status(&inputs, &deleted);
        let live = [status.current_revision.clone(), status.update_revision.clone()];
        self.store(set, status).await?;
        outcome?;
        self.clean_up(set, live, &pods, revisions).await?;
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let ready = next_available(pods.iter().map(|pod| &**pod), min_ready, inputs.now);
        Ok(Verdict::after(plan.again.into_iter().chain(ready).min()))
    }

    /// The UIDs of the pods that were deleted, and what went wrong first. Claims come first, then deletions and labels, then
    /// new pods with more and more at a time.
    async fn perform(
        &self,
        set: &StatefulSet,
        plan: &Plan,
    ) -> (BTreeSet<String>, Result<(), SyncError>) {
        let mut deleted = BTreeSet::new();
        let outcome = self.change(set, plan, &mut deleted).await;
        let outcome = match outcome {
            Ok(()) => self.create(set, plan).await,
            failed => failed,
        };
        (deleted, outcome)
    }

    async fn change(
        &self,
        set: &StatefulSet,
        plan: &Plan,
        deleted: &mut BTreeSet<String>,
    ) -> Result<(), SyncError> {
        let mut going = Vec::new();
        for action in &plan.actions {
            match action {
                Action::Create { pod, claims } => {
                    self.create_claims(set, &pod.name_any(), claims).await?;
                }
                Action::CreateClaims(pod, claims) => {
                    self.create_claims(set, &pod.name_any(), claims).await?;
                }
                Action::OwnClaim(claim) => self.own_claim(claim).await?,
                Action::Label(pod, labels) => self.label(set, pod, labels).await?,
                Action::Delete(pod) => going.push(pod),
            }
        }
        let deletions = going.into_iter().map(|pod| async move {
            self.control.delete(set, pod).await.map(|()| pod.uid().unwrap_or_default())
        });
        for outcome in join_all(deletions).await {
            deleted.insert(outcome?);
        }
        Ok(())
    }

    async fn create(&self, set: &StatefulSet, plan: &Plan) -> Result<(), SyncError> {
        let new = plan.actions.iter().filter_map(|action| match action {
            Action::Create { pod, .. } => Some(pod),
            _ => None,
        });
        let outcome =
            slow_start(new.collect(), |pod| async move { self.control.create(set, pod).await });
        match outcome.await {
            Err(error) if !is_namespace_going(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn claim_api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default())
    }

    async fn create_claims(
        &self,
        set: &StatefulSet,
        pod: &str,
        claims: &[PersistentVolumeClaim],
    ) -> Result<(), SyncError> {
        for claim in claims {
            let (name, set_name) = (claim.name_any(), set.name_any());
            match self.claim_api(claim).create(&PostParams::default(), claim).await {
                Ok(_) => {
                    let text =
                        format!("create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                    self.recorder.normal(set, "SuccessfulCreate", text);
                }
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => {
                    let why = message(&error);
                    let text = format!(
                        "create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {why}"
                    );
                    self.recorder.warning(set, "FailedCreate", text);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn own_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), SyncError> {
        let change = json!({ "metadata": {
            "uid": claim.uid(),
            "resourceVersion": claim.resource_version(),
            "ownerReferences": claim.owner_references(),
        }});
        let api = self.claim_api(claim);
        api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    async fn label(
        &self,
        set: &StatefulSet,
        pod: &Pod,
        labels: &[(&'static str, String)],
    ) -> Result<(), SyncError> {
        let labels: BTreeMap<_, _> = labels.iter().cloned().collect();
        let change = json!({ "metadata": { "uid": pod.uid(), "labels": labels } });
        let namespace = set.namespace().unwrap_or_default();
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    async fn clean_up(
        &self,
        set: &StatefulSet,
        live: [Option<String>; 2],
        pods: &[Arc<Pod>],
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<(), SyncError> {
        let Some(limit) = set.spec.revision_history_limit else { return Ok(()) };
        let mut names = history::hashes(pods);
        names.extend(live.into_iter().flatten());
        let in_use = |revision: &ControllerRevision| names.contains(&revision.name_any());
        let namespace = set.namespace().unwrap_or_default();
        let api = Api::<ControllerRevision>::namespaced(self.client.clone(), &namespace);
        for revision in history::surplus(revisions, in_use, limit) {
            delete_exactly(&api, &revision.metadata).await?;
        }
        Ok(())
    }

    async fn store(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), SyncError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = StatefulSet { status: Some(status), ..set.clone() };
        let namespace = set.namespace().unwrap_or_default();
        let api = Api::<StatefulSet>::namespaced(self.client.clone(), &namespace);
        let stored = api.replace_status(&set.name_any(), &PostParams::default(), &changed).await?;
        self.written.note(&stored);
        Ok(())
    }
}
