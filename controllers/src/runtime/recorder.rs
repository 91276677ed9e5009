//! Events about objects, as `kubectl describe` shows them.
//!
//! Recording never waits: entries go into a bounded channel and are dropped when it is full. One task aggregates them
//! (an event that repeats only counts up; a flood about one object is thinned out) and writes them.

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Entries that may wait to be written. Events are advice: beyond this, new ones are dropped.
const WAITING_MAX: usize = 4096;
/// Events that are remembered, so that a repetition counts up instead of making a new one.
const REMEMBERED_MAX: usize = 4096;
/// Different messages of one reason about one object within the window before they are merged into one.
const SIMILAR_MAX: u32 = 10;
/// The window of [`SIMILAR_MAX`].
const SIMILAR_WINDOW_SECONDS: i64 = 600;
/// Events about one object from one component that may come at once…
const BURST: f64 = 25.0;
/// …and how fast that allowance comes back.
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// Whether an event tells of routine or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// Records events for one component.
#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    sender: mpsc::Sender<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    component: &'static str,
    about: ObjectReference,
    type_: EventType,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

pub(super) fn channel() -> (mpsc::Sender<Entry>, mpsc::Receiver<Entry>) {
    mpsc::channel(WAITING_MAX)
}

impl Recorder {
    pub(super) fn new(component: &'static str, sender: mpsc::Sender<Entry>) -> Self {
        Self { component, sender }
    }

    /// Records an event about an object.
    pub fn record<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        type_: EventType,
        reason: &'static str,
        message: String,
    ) {
        self.record_reference(about.object_ref(&()), type_, reason, message);
    }

    /// Records an event about an object that is known by reference only.
    pub fn record_reference(
        &self,
        about: ObjectReference,
        type_: EventType,
        reason: &'static str,
        message: String,
    ) {
        let entry = Entry {
            component: self.component,
            about,
            type_,
            reason,
            message,
            at: Timestamp::now(),
        };
        if let Err(error) = self.sender.try_send(entry) {
            debug!(%error, reason, "event dropped");
        }
    }
}

pub(super) async fn run(
    client: Client,
    mut entries: mpsc::Receiver<Entry>,
    shutdown: CancellationToken,
) {
    let mut correlator = Correlator::default();
    loop {
        let entry = tokio::select! {
            () = shutdown.cancelled() => return,
            entry = entries.recv() => entry,
        };
        let Some(entry) = entry else { return shutdown.cancelled().await };
        let Some(write) = correlator.observe(entry) else { continue };
        let forget = write.identity.clone();
        if let Err(error) = send(&client, write).await {
            debug!(%error, "event not written");
            correlator.known.remove(&forget);
        }
    }
}

async fn send(client: &Client, write: Write) -> Result<(), kube::Error> {
    let namespace = write.event.metadata.namespace.clone().unwrap_or_default();
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    if write.is_new {
        api.create(&PostParams::default(), &write.event).await?;
    } else {
        let name = write.event.metadata.name.as_deref().unwrap_or_default();
        let change = json!({
            "count": write.event.count,
            "lastTimestamp": write.event.last_timestamp,
            "message": write.event.message,
        });
        api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    }
    Ok(())
}

/// What makes two entries the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    component: &'static str,
    about: (Option<String>, Option<String>, Option<String>, Option<String>),
    type_: EventType,
    reason: &'static str,
    /// `None` for the merged event of many messages.
    message: Option<String>,
}

#[derive(Debug)]
struct Write {
    identity: Identity,
    event: Event,
    is_new: bool,
}

/// Decides what becomes of each entry: a new event, one more count of a known one, or nothing.
#[derive(Default)]
struct Correlator {
    known: HashMap<Identity, Event>,
    order: VecDeque<Identity>,
    similar: HashMap<Identity, (u32, i64)>,
    allowance: HashMap<Identity, (f64, i64)>,
}

impl Correlator {
    fn observe(&mut self, entry: Entry) -> Option<Write> {
        let exact = identity(&entry, Some(entry.message.clone()));
        let merged = identity(&entry, None);
        let now = entry.at.as_second();
        if !self.allow(&entry, now) {
            return None;
        }
        let too_many =
            !self.known.contains_key(&exact) && self.count_similar(&merged, now) > SIMILAR_MAX;
        let (identity, message) = if too_many {
            (merged, format!("(combined from similar events): {}", entry.message))
        } else {
            (exact, entry.message.clone())
        };
        if let Some(event) = self.known.get_mut(&identity) {
            event.count = event.count.map(|count| count.saturating_add(1));
            event.last_timestamp = Some(Time(entry.at));
            event.message = Some(message);
            return Some(Write { identity, event: event.clone(), is_new: false });
        }
        let event = new_event(&entry, message);
        self.remember(identity.clone(), event.clone());
        Some(Write { identity, event, is_new: true })
    }

    fn remember(&mut self, identity: Identity, event: Event) {
        self.known.insert(identity.clone(), event);
        self.order.push_back(identity);
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        if self.similar.len() > REMEMBERED_MAX {
            self.similar.clear();
        }
        if self.allowance.len() > REMEMBERED_MAX {
            self.allowance.clear();
        }
    }

    fn count_similar(&mut self, merged: &Identity, now: i64) -> u32 {
        let (count, since) = self.similar.entry(merged.clone()).or_insert((0, now));
        if now - *since > SIMILAR_WINDOW_SECONDS {
            (*count, *since) = (0, now);
        }
        *count += 1;
        *count
    }

    /// A token bucket per component and object; routine events and warnings share it.
    fn allow(&mut self, entry: &Entry, now: i64) -> bool {
        let mut bucket = identity(entry, None);
        (bucket.reason, bucket.type_) = ("", EventType::Normal);
        let (tokens, last) = self.allowance.entry(bucket).or_insert((BURST, now));
        *tokens = (*tokens + (now - *last) as f64 * REFILL_PER_SECOND).min(BURST);
        *last = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }
}

fn identity(entry: &Entry, message: Option<String>) -> Identity {
    let about = &entry.about;
    Identity {
        component: entry.component,
        about: (about.kind.clone(), about.namespace.clone(), about.name.clone(), about.uid.clone()),
        type_: entry.type_,
        reason: entry.reason,
        message,
    }
}

fn new_event(entry: &Entry, message: String) -> Event {
    let namespace = entry.about.namespace.clone().filter(|namespace| !namespace.is_empty());
    let name = entry.about.name.as_deref().unwrap_or_default();
    let at = Some(Time(entry.at));
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{name}.{:016x}",
                entry.at.as_nanosecond() as u64 ^ rand::random::<u16>() as u64
            )),
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..Default::default()
        },
        involved_object: entry.about.clone(),
        reason: Some(entry.reason.to_owned()),
        message: Some(message),
        type_: Some(format!("{:?}", entry.type_)),
        source: Some(EventSource { component: Some(entry.component.to_owned()), host: None }),
        reporting_component: Some(entry.component.to_owned()),
        reporting_instance: Some(String::new()),
        count: Some(1),
        first_timestamp: at.clone(),
        last_timestamp: at,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str, second: i64) -> Entry {
        Entry {
            component: "test-controller",
            about: ObjectReference {
                name: Some("web".into()),
                namespace: Some("ns".into()),
                ..Default::default()
            },
            type_: EventType::Normal,
            reason: "SuccessfulCreate",
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn repetition_counts_up() {
        let mut correlator = Correlator::default();
        let first = correlator.observe(entry("created a", 10)).unwrap();
        let second = correlator.observe(entry("created a", 20)).unwrap();
        assert!(first.is_new && !second.is_new);
        assert_eq!(first.event.metadata.name, second.event.metadata.name);
        assert_eq!(second.event.count, Some(2));
        assert_eq!(second.event.first_timestamp, Some(Time(Timestamp::from_second(10).unwrap())));
        assert_eq!(second.event.last_timestamp, Some(Time(Timestamp::from_second(20).unwrap())));
    }

    #[test]
    fn many_different_messages_are_merged() {
        let mut correlator = Correlator::default();
        for pod in 0..10 {
            assert!(correlator.observe(entry(&format!("created {pod}"), pod)).unwrap().is_new);
        }
        let merged = correlator.observe(entry("created 10", 10)).unwrap();
        assert!(merged.is_new);
        let again = correlator.observe(entry("created 11", 11)).unwrap();
        assert!(!again.is_new);
        assert_eq!(
            again.event.message.as_deref(),
            Some("(combined from similar events): created 11")
        );
    }

    #[test]
    fn flood_about_one_object_is_cut_off() {
        let mut correlator = Correlator::default();
        let written =
            (0..100).filter(|_| correlator.observe(entry("created a", 5)).is_some()).count();
        assert_eq!(written, 25);
        assert!(correlator.observe(entry("created a", 5 + 301)).is_some());
    }
}
