//! The alarms that are raised, and what they forbid. Part of the replicated state: every member
//! refuses the same commands at the same place of the log.

use std::collections::{BTreeMap, BTreeSet};

use pintle_proto::raft::command::Kind;
use pintle_store_api::pb::AlarmType;
use pintle_store_api::pb::alarm_request::AlarmAction;
use pintle_store_api::{Rejection, pb};

use crate::database::Database;
use crate::keyspace::{Family, alarm};
use crate::pending::Pending;
use crate::{Fault, cost};

/// The raised alarms, by kind and member, and what has not been written yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    raised: BTreeSet<(i32, u64)>,
    touched: BTreeMap<(i32, u64), bool>,
}

impl Alarms {
    pub(crate) fn load(database: &Database) -> Result<Self, Fault> {
        let mut stored = database.db().raw_iterator_cf(database.family(Family::Meta));
        stored.seek(alarm::PREFIX);
        let mut raised = BTreeSet::new();
        while let Some(key) = stored.key().filter(|key| key.starts_with(alarm::PREFIX)) {
            raised.insert(alarm::split(key)?);
            stored.next();
        }
        stored.status()?;
        Ok(Self { raised, touched: BTreeMap::new() })
    }

    pub(crate) fn list(&self) -> Vec<pb::AlarmMember> {
        self.raised.iter().map(|(kind, member)| message(*kind, *member)).collect()
    }

    /// Raises or clears one; answers with the alarm that it was about, if there is one.
    pub(crate) fn command(&mut self, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let id = (request.alarm, request.member_id);
        let known = AlarmType::try_from(request.alarm).is_ok_and(|kind| kind != AlarmType::None);
        let about = match request.action() {
            AlarmAction::Activate if known => {
                if self.raised.insert(id) {
                    self.touched.insert(id, true);
                }
                true
            }
            AlarmAction::Deactivate => {
                let was_raised = self.raised.remove(&id);
                if was_raised {
                    self.touched.insert(id, false);
                }
                was_raised
            }
            AlarmAction::Activate | AlarmAction::Get => false,
        };
        let alarms = if about { vec![message(id.0, id.1)] } else { Vec::new() };
        pb::AlarmResponse { header: None, alarms }
    }

    pub(crate) fn clear(&mut self) {
        let raised = std::mem::take(&mut self.raised);
        self.touched.extend(raised.into_iter().map(|id| (id, false)));
    }

    /// Why a command may not run, if it may not.
    pub(crate) fn refusal(&self, command: &Kind) -> Option<Rejection> {
        if self.raised.is_empty() {
            return None;
        }
        if self.is_raised(AlarmType::Corrupt) && concerns_data(command) {
            return Some(corrupt());
        }
        let grows = match command {
            Kind::Put(_) | Kind::LeaseGrant(_) => true,
            Kind::Txn(txn) => cost::txn(txn) > 0,
            _ => false,
        };
        (grows && self.is_raised(AlarmType::Nospace)).then_some(Rejection::NoSpace)
    }

    fn is_raised(&self, kind: AlarmType) -> bool {
        let first = (kind.into(), 0);
        self.raised.range(first..).next().is_some_and(|(raised, _)| *raised == first.0)
    }

    pub(crate) fn write_to(&mut self, pending: &mut Pending) {
        for ((kind, member), raised) in std::mem::take(&mut self.touched) {
            let nothing: &[u8] = b"";
            pending.row(Family::Meta, &alarm::key(kind, member), raised.then_some(nothing));
        }
    }
}

fn message(alarm: i32, member_id: u64) -> pb::AlarmMember {
    pb::AlarmMember { member_id, alarm }
}

/// What a cluster whose members differ must not do any more.
fn concerns_data(command: &Kind) -> bool {
    matches!(
        command,
        Kind::Put(_)
            | Kind::DeleteRange(_)
            | Kind::Txn(_)
            | Kind::Compact(_)
            | Kind::LeaseGrant(_)
            | Kind::LeaseRevoke(_)
    )
}

fn corrupt() -> Rejection {
    const DATA_LOSS: i32 = 15;
    Rejection::Other { code: DATA_LOSS, message: "etcdserver: corrupt cluster".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: AlarmAction, alarm: AlarmType, member_id: u64) -> pb::AlarmRequest {
        pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() }
    }

    fn put() -> Kind {
        Kind::Put(pb::PutRequest { key: "a".into(), ..Default::default() })
    }

    #[test]
    fn an_alarm_is_raised_once_and_cleared_once() {
        let mut alarms = Alarms::default();
        let raise = request(AlarmAction::Activate, AlarmType::Nospace, 7);
        let expected = [pb::AlarmMember { member_id: 7, alarm: AlarmType::Nospace.into() }];
        assert_eq!(alarms.command(&raise).alarms, expected);
        assert_eq!(alarms.command(&raise).alarms, expected, "as in etcd, raising again answers");
        assert_eq!(alarms.list(), expected);
        let other = request(AlarmAction::Deactivate, AlarmType::Nospace, 8);
        assert!(alarms.command(&other).alarms.is_empty());
        let clear = request(AlarmAction::Deactivate, AlarmType::Nospace, 7);
        assert_eq!(alarms.command(&clear).alarms, expected);
        assert!(alarms.command(&clear).alarms.is_empty());
        assert!(alarms.list().is_empty());
    }

    #[test]
    fn no_alarm_is_no_alarm() {
        let mut alarms = Alarms::default();
        let raise = request(AlarmAction::Activate, AlarmType::None, 7);
        assert!(alarms.command(&raise).alarms.is_empty());
        assert!(alarms.list().is_empty());
    }

    #[test]
    fn a_full_cluster_takes_what_does_not_grow_it() {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.refusal(&put()), None);
        alarms.command(&request(AlarmAction::Activate, AlarmType::Nospace, 7));
        assert_eq!(alarms.refusal(&put()), Some(Rejection::NoSpace));
        assert_eq!(alarms.refusal(&Kind::LeaseGrant(Default::default())), Some(Rejection::NoSpace));
        assert_eq!(alarms.refusal(&Kind::DeleteRange(Default::default())), None);
        assert_eq!(alarms.refusal(&Kind::Compact(Default::default())), None);
        assert_eq!(alarms.refusal(&Kind::Txn(Default::default())), None);
        alarms.command(&request(AlarmAction::Deactivate, AlarmType::Nospace, 7));
        assert_eq!(alarms.refusal(&put()), None);
    }

    #[test]
    fn a_corrupt_cluster_takes_nothing_but_orders_about_alarms() {
        let mut alarms = Alarms::default();
        alarms.command(&request(AlarmAction::Activate, AlarmType::Corrupt, 0));
        assert_eq!(alarms.refusal(&put()), Some(corrupt()));
        assert_eq!(alarms.refusal(&Kind::DeleteRange(Default::default())), Some(corrupt()));
        assert_eq!(alarms.refusal(&Kind::Alarm(Default::default())), None);
        assert_eq!(alarms.refusal(&Kind::LeaseCheckpoint(Default::default())), None);
    }
}
