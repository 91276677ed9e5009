//! What a candidate does about the record it sees. Pure: time is a parameter, counted from any fixed local origin.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// The fields of a Lease that election is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `holderIdentity`; empty when the lease has been released.
    pub holder: String,
    /// `leaseDurationSeconds`.
    pub duration: Duration,
    /// When the present holder took the lease, by its own clock. Only ever copied.
    pub acquired: Option<Timestamp>,
    /// When the holder last renewed, by its own clock. Only ever compared for equality.
    pub renewed: Option<Timestamp>,
    /// How often the lease has changed hands.
    pub transitions: i32,
}

/// A record and the local time since which it has looked like that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    record: Record,
    since: Duration,
}

/// What to do next about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is no lease: create it with us as its holder.
    Create,
    /// It is free or has expired: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Another one holds it, and may do so for this much longer.
    Wait(Duration),
}

/// Decides for the candidate `identity`, which has observed `observed` (`None`: no lease exists), at the local time `now`.
pub fn decide(identity: &str, observed: Option<&Observation>, now: Duration) -> Decision {
    let Some(Observation { record, since }) = observed else {
        return Decision::Create;
    };
    if record.holder == identity {
        return Decision::Renew;
    }
    let expiry = *since + record.duration;
    if record.holder.is_empty() || expiry <= now {
        return Decision::Acquire;
    }
    Decision::Wait(expiry - now)
}

impl Observation {
    /// Takes in a record read at the local time `now`. The clock of the observation only starts anew if the record changed.
    pub fn update(previous: Option<Self>, record: Record, now: Duration) -> Self {
        match previous {
            Some(previous) if previous.record == record => previous,
            _ => Self { record, since: now },
        }
    }

    /// The record that was observed.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Record {
    /// The record that makes `identity` the holder at the wall-clock time `wall`, following `self`.
    pub(crate) fn held_by(&self, identity: &str, duration: Duration, wall: Timestamp) -> Self {
        let same = self.holder == identity;
        Self {
            holder: identity.to_owned(),
            duration,
            acquired: if same { self.acquired } else { Some(wall) },
            renewed: Some(wall),
            transitions: if same { self.transitions } else { self.transitions.saturating_add(1) },
        }
    }

    /// The first record of a new lease.
    pub(crate) fn first(identity: &str, duration: Duration, wall: Timestamp) -> Self {
        Self {
            holder: identity.to_owned(),
            duration,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: 0,
        }
    }

    /// The record of a lease that its holder gives up: anybody may take it at once.
    pub(crate) fn released(&self, wall: Timestamp) -> Self {
        Self {
            holder: String::new(),
            duration: Duration::from_secs(1),
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: self.transitions,
        }
    }

    pub(crate) fn from_spec(spec: &LeaseSpec) -> Self {
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        Self {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            duration: seconds.map_or(crate::LEASE_DURATION, Duration::from_secs),
            acquired: spec.acquire_time.as_ref().map(|t| t.0),
            renewed: spec.renew_time.as_ref().map(|t| t.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }

    /// Writes the record into `spec`, leaving the fields that election does not own.
    pub(crate) fn write_to(&self, spec: &mut LeaseSpec) {
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds =
            Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX).max(1));
        spec.acquire_time = self.acquired.map(MicroTime);
        spec.renew_time = self.renewed.map(MicroTime);
        spec.lease_transitions = Some(self.transitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, renewed: i64) -> Record {
        Record {
            holder: holder.into(),
            duration: Duration::from_secs(2),
            acquired: None,
            renewed: Some(Timestamp::from_second(renewed).unwrap()),
            transitions: 3,
        }
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn decisions_follow_the_table() {
        let seen = |holder: &str, since: u64| {
            Some(Observation { record: record(holder, 100), since: ms(since) })
        };
        let cases = [
            ("no lease", None, 0, Decision::Create),
            ("released", seen("", 500), 500, Decision::Acquire),
            ("ours", seen("a", 0), 10, Decision::Renew),
            ("ours, though long expired", seen("a", 0), 60_000, Decision::Renew),
            ("just seen", seen("b", 1000), 1000, Decision::Wait(ms(2000))),
            ("nearly expired", seen("b", 1000), 2999, Decision::Wait(ms(1))),
            ("expired", seen("b", 1000), 3000, Decision::Acquire),
        ];
        for (name, observed, now, expected) in cases {
            assert_eq!(decide("a", observed.as_ref(), ms(now)), expected, "{name}");
        }
    }

    #[test]
    fn expiry_counts_from_the_local_time_of_the_last_change() {
        // The holder's clock is an hour behind and then an hour ahead: neither matters.
        let first = Observation::update(None, record("b", -3600), ms(0));
        let unchanged = Observation::update(Some(first), record("b", -3600), ms(1900));
        assert_eq!(decide("a", Some(&unchanged), ms(1900)), Decision::Wait(ms(100)));
        let renewed = Observation::update(Some(unchanged), record("b", 3600), ms(1950));
        assert_eq!(decide("a", Some(&renewed), ms(3900)), Decision::Wait(ms(50)));
        assert_eq!(decide("a", Some(&renewed), ms(3950)), Decision::Acquire);
    }

    #[test]
    fn transitions_count_changes_of_the_holder_only() {
        let wall = Timestamp::from_second(7).unwrap();
        let taken = record("b", 1).held_by("a", ms(2000), wall);
        assert_eq!((taken.transitions, taken.acquired), (4, Some(wall)));
        let later = Timestamp::from_second(8).unwrap();
        let renewed = taken.held_by("a", ms(2000), later);
        assert_eq!((renewed.transitions, renewed.acquired), (4, Some(wall)));
        assert_eq!(renewed.renewed, Some(later));
        let released = renewed.released(later);
        assert_eq!((released.holder.as_str(), released.transitions), ("", 4));
        assert_eq!(released.held_by("b", ms(2000), later).transitions, 5);
    }

    #[test]
    fn duration_in_the_spec_is_at_least_a_second() {
        let mut spec = LeaseSpec::default();
        Record::first("a", ms(10), Timestamp::UNIX_EPOCH).write_to(&mut spec);
        assert_eq!(spec.lease_duration_seconds, Some(1));
        Record::first("a", crate::LEASE_DURATION, Timestamp::UNIX_EPOCH).write_to(&mut spec);
        assert_eq!(spec.lease_duration_seconds, Some(2));
        assert_eq!(Record::from_spec(&spec).duration, crate::LEASE_DURATION);
    }
}
