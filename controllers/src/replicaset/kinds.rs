//! The two kinds behind [`Replicated`].

use super::{Counts, Replicated};
use crate::object::selector;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    core::v1::{
        PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
        ReplicationControllerStatus,
    },
};
use kube::core::{ParseExpressionError, Selector};

impl Replicated for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn selector(&self) -> Result<Option<Selector>, ParseExpressionError> {
        selector(Some(&self.spec.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.unwrap_or_default(),
        }
    }

    fn with_counts(&self, counts: &Counts) -> Self {
        let status = ReplicaSetStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: positive(counts.fully_labeled),
            ready_replicas: positive(counts.ready),
            available_replicas: positive(counts.available),
            terminating_replicas: counts.terminating,
            observed_generation: counts.observed_generation,
            conditions: Some(counts.conditions.clone()).filter(|conditions| !conditions.is_empty()),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Result<Option<Selector>, ParseExpressionError> {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.clone());
        Ok(labels.filter(|labels| !labels.is_empty()).map(|labels| labels.into_iter().collect()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        let conditions =
            status.conditions.into_iter().flatten().map(|condition| ReplicaSetCondition {
                type_: Some(condition.type_),
                status: Some(condition.status).filter(|status| !status.is_empty()),
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition_time,
            });
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation,
            conditions: conditions.collect(),
        }
    }

    fn with_counts(&self, counts: &Counts) -> Self {
        let conditions =
            counts.conditions.iter().cloned().map(|condition| ReplicationControllerCondition {
                type_: condition.type_.unwrap_or_default(),
                status: condition.status.unwrap_or_default(),
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition_time,
            });
        let status = ReplicationControllerStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: positive(counts.fully_labeled),
            ready_replicas: positive(counts.ready),
            available_replicas: positive(counts.available),
            observed_generation: counts.observed_generation,
            conditions: Some(conditions.collect::<Vec<_>>())
                .filter(|conditions| !conditions.is_empty()),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

/// Upstream leaves zero counts out.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_the_round_trip() {
        let counts = Counts {
            replicas: 3,
            fully_labeled: 3,
            ready: 2,
            available: 0,
            terminating: Some(1),
            observed_generation: Some(4),
            conditions: vec![ReplicaSetCondition {
                type_: Some("ReplicaFailure".into()),
                reason: Some("FailedCreate".into()),
                ..Default::default()
            }],
        };
        assert_eq!(ReplicaSet::default().with_counts(&counts).counts(), counts);
        let without_terminating = Counts { terminating: None, ..counts.clone() };
        assert_eq!(
            ReplicationController::default().with_counts(&counts).counts(),
            without_terminating
        );
    }
}
