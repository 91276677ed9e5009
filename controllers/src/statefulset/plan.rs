//! What to do next.

use super::{Inputs, claims, identity};
use crate::{
    intstr::{Round, scaled},
    object::is_deleting,
    pod::{is_finished, phase},
};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A claim that is on its way out is looked at again after this time.
const STALE_CLAIM_POLL: Duration = Duration::from_secs(1);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make these claims, then the pod.
    Create {
        /// The pod.
        pod: Box<Pod>,
        /// Claims that it lacks.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Make claims that a pending pod waits for.
    CreateClaims(Arc<Pod>, Vec<PersistentVolumeClaim>),
    /// Give a claim other owners.
    OwnClaim(Box<PersistentVolumeClaim>),
    /// Give a pod the labels that it lacks.
    Label(Arc<Pod>, Vec<(&'static str, String)>),
    /// Delete a pod.
    Delete(Arc<Pod>),
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The actions.
    pub actions: Vec<Action>,
    /// When to look again, although nothing may have changed.
    pub again: Option<Duration>,
}

/// Whether a pass may go on to the next pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Stop,
}

struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    /// The pods that the set asks for, by ordinal.
    replicas: BTreeMap<i32, Option<Arc<Pod>>>,
    /// The others, first to go first.
    condemned: Vec<(i32, Arc<Pod>)>,
    plan: Plan,
}

/// Decides what to do about the pods.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    if is_deleting(&inputs.set.metadata) {
        return Plan::default();
    }
    let mut planner = Planner::new(inputs);
    if planner.keep_replicas() == Flow::GoOn
        && planner.drop_condemned() == Flow::GoOn
        && inputs.rolls()
    {
        planner.roll();
    }
    planner.plan
}

impl<'a> Planner<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        let first = inputs.first_ordinal();
        let mut replicas: BTreeMap<_, _> = (first..first.saturating_add(inputs.replicas()))
            .map(|ordinal| (ordinal, None))
            .collect();
        let mut condemned = Vec::new();
        for pod in inputs.pods {
            let Some(ordinal) = identity::ordinal_of(&inputs.set.name_any(), &pod.name_any())
            else {
                continue;
            };
            match replicas.get_mut(&ordinal) {
                Some(place) => *place = Some(pod.clone()),
                None => condemned.push((ordinal, pod.clone())),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        Self { inputs, replicas, condemned, plan: Plan::default() }
    }

    fn keep_replicas(&mut self) -> Flow {
        let ordered = self.inputs.is_ordered();
        for (ordinal, pod) in self.replicas.clone() {
            let flow = match pod {
                None => self.create(ordinal),
                Some(pod) => self.keep(ordinal, &pod),
            };
            if ordered && flow == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::GoOn
    }

    fn create(&mut self, ordinal: i32) -> Flow {
        if claims::is_stale(self.inputs, ordinal) {
            self.plan.again = Some(STALE_CLAIM_POLL);
            return Flow::Stop;
        }
        let pod = Box::new(identity::new(self.inputs, ordinal));
        let claims = claims::missing(self.inputs, ordinal);
        self.plan.actions.push(Action::Create { pod, claims });
        Flow::Stop
    }

    fn keep(&mut self, ordinal: i32, pod: &Arc<Pod>) -> Flow {
        if is_finished(pod) {
            // An ended pod is made anew, once it is gone.
            if !is_deleting(&pod.metadata) {
                self.plan.actions.push(Action::Delete(pod.clone()));
            }
            return Flow::Stop;
        }
        if phase(pod) == "Pending" {
            let claims = claims::missing(self.inputs, ordinal);
            if !claims.is_empty() {
                self.plan.actions.push(Action::CreateClaims(pod.clone(), claims));
            }
        }
        if self.inputs.is_ordered() && !self.inputs.is_available(pod) {
            return Flow::Stop;
        }
        self.own_claims(ordinal, pod);
        let labels = identity::missing_labels(pod, ordinal);
        if !labels.is_empty() {
            self.plan.actions.push(Action::Label(pod.clone(), labels));
        }
        Flow::GoOn
    }

    fn own_claims(&mut self, ordinal: i32, pod: &Pod) {
        let claims = claims::with_wrong_owners(self.inputs, pod, ordinal);
        self.plan.actions.extend(claims.into_iter().map(|claim| Action::OwnClaim(Box::new(claim))));
    }

    /// All replicas are there (and, under `OrderedReady`, available).
    fn drop_condemned(&mut self) -> Flow {
        for (ordinal, pod) in self.condemned.clone() {
            self.own_claims(ordinal, &pod);
        }
        let first_unavailable = self.first_unavailable();
        for (_, pod) in self.condemned.clone() {
            if is_deleting(&pod.metadata) {
                if self.inputs.is_ordered() {
                    return Flow::Stop;
                }
                continue;
            }
            if self.inputs.is_ordered() {
                let is_first = first_unavailable.as_ref() == Some(&pod.metadata.uid);
                // One that has ended will never be ready, so that nothing is gained by waiting.
                if self.inputs.is_available(&pod) || is_first || is_finished(&pod) {
                    self.plan.actions.push(Action::Delete(pod));
                }
                return Flow::Stop;
            }
            self.plan.actions.push(Action::Delete(pod));
        }
        Flow::GoOn
    }

    /// The lowest condemned pod that is not available: it may go although it is not.
    fn first_unavailable(&self) -> Option<Option<String>> {
        let mut lowest_first = self.condemned.iter().rev();
        let first = lowest_first.find(|(_, pod)| !self.inputs.is_available(pod))?;
        Some(first.1.metadata.uid.clone())
    }

    /// Pods of former revisions go, from the last one down, as far as `maxUnavailable` allows. One that is unavailable already costs
    /// nothing.
    fn roll(&mut self) {
        let inputs = self.inputs;
        let is_unavailable =
            |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| !inputs.is_available(pod));
        let unavailable = self.replicas.values().filter(|pod| is_unavailable(pod)).count() as i32;
        let mut room = self.max_unavailable() - unavailable;
        let from = inputs.first_ordinal().saturating_add(inputs.partition());
        for (_, pod) in self.replicas.range(from..).rev() {
            let Some(pod) = pod else { continue };
            let is_new = identity::revision_of(pod) == inputs.update.name_any();
            if is_new || is_deleting(&pod.metadata) {
                continue;
            }
            if inputs.is_available(pod) {
                if room <= 0 {
                    continue;
                }
                room -= 1;
            }
            self.plan.actions.push(Action::Delete(pod.clone()));
        }
    }

    fn max_unavailable(&self) -> i32 {
        let strategy = self.inputs.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let value = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let limit = |value: &IntOrString| scaled(value, self.inputs.replicas(), Round::Down);
        value.and_then(limit).unwrap_or(1).max(1)
    }
}
