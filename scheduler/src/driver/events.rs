//! Event objects about pods, with repetitions counted instead of written again. Pure; [`report`](super::report) writes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use crate::pod::PodInfo;

/// Events that are remembered, to count their repetitions. The oldest is forgotten for a new one, and written anew if it recurs.
const REMEMBERED_MAX: usize = 4096;
/// Repetitions of an event closer than this are counted, but not written.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Normal,
    Warning,
}

/// Something to tell about a pod.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) kind: Kind,
    pub(super) reason: &'static str,
    pub(super) action: &'static str,
    pub(super) message: String,
    pub(super) pod: Subject,
}

/// The pod that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    resource_version: String,
}

/// What is to be written.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    /// A new event.
    Create(Box<Event>),
    /// An event that is there has happened again.
    Count { namespace: String, name: String, count: i32, last: Time },
    /// Nothing: it has just been written.
    Nothing,
}

#[derive(Debug)]
struct Seen {
    name: String,
    count: i32,
    written: Duration,
}

type Identity = (String, &'static str, String);

/// Knows the recent events.
#[derive(Debug)]
pub(super) struct Recorder {
    component: String,
    instance: String,
    seen: HashMap<Identity, Seen>,
    order: VecDeque<Identity>,
}

impl From<&PodInfo> for Subject {
    fn from(pod: &PodInfo) -> Self {
        Self {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: pod.uid.to_string(),
            resource_version: pod.resource_version.clone(),
        }
    }
}

impl Recorder {
    pub(super) fn new(component: String, instance: String) -> Self {
        Self { component, instance, seen: HashMap::new(), order: VecDeque::new() }
    }

    /// What to write about a note, at the local time `now` and the wall-clock time `wall`.
    pub(super) fn record(&mut self, note: Note, now: Duration, wall: Timestamp) -> Write {
        let identity = (note.pod.uid.clone(), note.reason, note.message.clone());
        if let Some(seen) = self.seen.get_mut(&identity) {
            seen.count += 1;
            if now < seen.written + WRITE_INTERVAL {
                return Write::Nothing;
            }
            seen.written = now;
            return Write::Count {
                namespace: note.pod.namespace,
                name: seen.name.clone(),
                count: seen.count,
                last: Time(wall),
            };
        }
        let name = format!("{}.{:x}", note.pod.name, wall.as_nanosecond());
        self.remember(identity, Seen { name: name.clone(), count: 1, written: now });
        Write::Create(Box::new(self.event(name, note, wall)))
    }

    fn remember(&mut self, identity: Identity, seen: Seen) {
        while self.order.len() >= REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        self.order.push_back(identity.clone());
        self.seen.insert(identity, seen);
    }

    fn event(&self, name: String, note: Note, wall: Timestamp) -> Event {
        let kind = match note.kind {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(note.pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(note.pod.namespace),
                name: Some(note.pod.name),
                uid: Some(note.pod.uid),
                resource_version: Some(note.pod.resource_version),
                field_path: None,
            },
            type_: Some(kind.to_owned()),
            reason: Some(note.reason.to_owned()),
            action: Some(note.action.to_owned()),
            message: Some(note.message),
            source: Some(EventSource { component: Some(self.component.clone()), host: None }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.instance.clone()),
            count: Some(1),
            first_timestamp: Some(Time(wall)),
            last_timestamp: Some(Time(wall)),
            event_time: Some(MicroTime(wall)),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let pod = Subject {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            resource_version: "7".into(),
        };
        Note {
            kind: Kind::Warning,
            reason: "FailedScheduling",
            action: "Scheduling",
            message: message.into(),
            pod,
        }
    }

    #[test]
    fn repetitions_are_counted_and_seldom_written() {
        let mut recorder = Recorder::new("default-scheduler".into(), "s-1".into());
        let wall = Timestamp::from_second(1000).unwrap();
        let secs = Duration::from_secs;
        let Write::Create(event) = recorder.record(note("a"), secs(0), wall) else { panic!() };
        assert_eq!(event.involved_object.uid.as_deref(), Some("u"));
        assert_eq!((event.count, event.type_.as_deref()), (Some(1), Some("Warning")));
        assert_eq!(recorder.record(note("a"), secs(5), wall), Write::Nothing);
        let again = recorder.record(note("a"), secs(12), wall);
        let Write::Count { count, name, .. } = again else { panic!("{again:?}") };
        assert_eq!((count, Some(name)), (3, event.metadata.name));
        assert!(matches!(recorder.record(note("b"), secs(12), wall), Write::Create(_)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut recorder = Recorder::new("s".into(), "s".into());
        for i in 0..(REMEMBERED_MAX + 10) {
            recorder.record(note(&i.to_string()), Duration::ZERO, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(recorder.seen.len(), REMEMBERED_MAX);
        assert_eq!(recorder.order.len(), REMEMBERED_MAX);
    }
}
