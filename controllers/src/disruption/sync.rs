//! The I/O of the disruption controller.

use super::{asks_for_scale, expected, failed, reconcile, scale::Scales, stale};
use crate::{
    object::{self, ObjectKey},
    runtime::{Controller, Informer, Queue, Recorder, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams, core::Selector};
use std::sync::Arc;

/// Registers the controller.
pub fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let budgets = setup.informer::<PodDisruptionBudget>();
    let pods = setup.informer::<Pod>();
    budgets.enqueue(&queue);
    follow_pods(&pods, &budgets.store(), &queue);
    stale::register(setup);
    let controller = DisruptionController {
        client: setup.client(),
        recorder: setup.recorder("controllermanager"),
        budgets: budgets.store(),
        pods: pods.store(),
        scales: Scales::new(setup),
    };
    setup.controller("disruption", queue, controller);
}

/// Queues the budgets that cover, or covered, a pod that changes.
fn follow_pods(
    pods: &Informer<Pod>,
    budgets: &Arc<Store<PodDisruptionBudget>>,
    queue: &Arc<Queue>,
) {
    let (budgets, queue) = (budgets.clone(), queue.clone());
    pods.on_change(move |change| {
        let namespace = change.object().namespace().unwrap_or_default();
        for budget in budgets.in_namespace(&namespace) {
            let Ok(Some(selector)) = selector_of(&budget) else { continue };
            let covers = |pod: &Arc<Pod>| object::selects(&selector, pod.metadata.labels.as_ref());
            if change.states().any(covers) {
                queue.add(ObjectKey::of(&*budget));
            }
        }
    });
}

fn selector_of(budget: &PodDisruptionBudget) -> Result<Option<Selector>, SyncError> {
    Ok(object::selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()))?)
}

struct DisruptionController {
    client: Client,
    recorder: Recorder,
    budgets: Arc<Store<PodDisruptionBudget>>,
    pods: Arc<Store<Pod>>,
    scales: Scales,
}

#[async_trait]
impl Controller for DisruptionController {
    fn keys(&self) -> Vec<ObjectKey> {
        self.budgets.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Verdict::Done) };
        let pods = match selector_of(&budget)? {
            Some(selector) => self.pods.select(&key.namespace, &selector),
            None => Vec::new(),
        };
        if pods.is_empty() {
            self.recorder.normal(&*budget, "NoPods", "No matching pods found");
        }
        let scale = match asks_for_scale(&budget) {
            true => self.scales.of_pods(&pods).await?,
            false => Ok(0),
        };
        let now = Timestamp::now();
        let wanted = scale.and_then(|scale| expected(&budget, pods.len() as i32, scale));
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(why) => {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                self.recorder.warning(&*budget, "CalculateExpectedPodCountFailed", text);
                self.store(&budget, failed(&budget, &why, now)).await?;
                return Ok(Verdict::Done);
            }
        };
        let outcome = reconcile(&budget, &pods, wanted, now);
        for pod in &outcome.spared {
            let text = format!("Pod {pod} was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.warning(&*budget, "NotDeleted", text);
        }
        self.store(&budget, outcome.status).await?;
        Ok(Verdict::after(outcome.again))
    }
}

impl DisruptionController {
    async fn store(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), SyncError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        let namespace = budget.namespace().unwrap_or_default();
        let api = Api::<PodDisruptionBudget>::namespaced(self.client.clone(), &namespace);
        api.replace_status(&budget.name_any(), &PostParams::default(), &changed).await?;
        Ok(())
    }
}
