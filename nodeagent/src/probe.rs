//! Probes: whether a running container has started, is alive, is ready.

use std::collections::HashMap;

pub mod check;
mod grpc;
mod http;
pub mod prober;

/// What a probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Has it started? Holds back the others; failing restarts it.
    Startup,
    /// Is it alive? Failing restarts it.
    Liveness,
    /// Does it take traffic?
    Readiness,
}

impl ProbeKind {
    /// As in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What is known about one running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerHealth {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe succeeds, or there is none.
    pub ready: bool,
    /// The probe that condemned it.
    pub failed: Option<ProbeKind>,
}

/// Health by container id. A container that is not in it has not been looked at yet.
#[derive(Debug, Clone, Default)]
pub struct Health {
    containers: HashMap<String, ContainerHealth>,
}

impl Health {
    /// The health of a container; that of an unknown one is neither started nor ready.
    pub fn of(&self, container_id: &str) -> ContainerHealth {
        self.containers.get(container_id).cloned().unwrap_or_default()
    }

    /// Whether it has been entered.
    pub fn knows(&self, container_id: &str) -> bool {
        self.containers.contains_key(container_id)
    }

    /// Enters or changes a container.
    pub fn set(&mut self, container_id: &str, health: ContainerHealth) {
        self.containers.insert(container_id.to_owned(), health);
    }

    /// Forgets those that are not in `keep`.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.containers.retain(|id, _| keep(id));
    }
}
