//! Users and roles over crashes, restarts and snapshots, and permissions against what the roles
//! say one by one.

use bytes::Bytes;
use pintle_mvcc::{Auth, Caller, Entry, Mvcc, QueryError};
use pintle_proto::raft::auth_command::Change;
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{self, AuthCommand, Command};
use pintle_store_api::authpb::{Permission, permission::Type};
use pintle_store_api::{AuthError, KeyRange, Rejection, Revision, pb};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::replay::{options, scratch};

fn server() -> Option<raft::Caller> {
    Some(raft::Caller { server: true, ..Default::default() })
}

fn command(change: Change) -> Command {
    let kind = Some(Kind::Auth(AuthCommand { change: Some(change) }));
    Command { kind, caller: server() }
}

fn apply(mvcc: &mut Mvcc, commands: &[Command]) -> Vec<Result<(), Rejection>> {
    let applied = mvcc.apply(&[Entry { term: 1, commands }], Bytes::new()).expect("apply");
    applied.outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
}

/// Two users, three roles, and a few keys between which ranges run.
fn change() -> impl Strategy<Value = Change> {
    let user = || select(vec!["root", "alice"]).prop_map(str::to_owned);
    let role = || select(vec!["root", "r", "w"]).prop_map(str::to_owned);
    let key = || select(vec!["a", "b", "c", "d"]).prop_map(Bytes::from);
    let range_end = || select(vec!["", "\0", "a", "b", "c", "d"]).prop_map(Bytes::from);
    let permission = (0i32..3, key(), range_end())
        .prop_map(|(perm_type, key, range_end)| Permission { perm_type, key, range_end });
    prop_oneof![
        1 => Just(Change::Enable(pb::AuthEnableRequest {})),
        1 => Just(Change::Disable(pb::AuthDisableRequest {})),
        3 => user().prop_map(|name| Change::UserAdd(pb::AuthUserAddRequest {
            name,
            hashed_password: "hash".to_owned(),
            ..Default::default()
        })),
        1 => user().prop_map(|name| Change::UserDelete(pb::AuthUserDeleteRequest { name })),
        6 => (user(), role())
            .prop_map(|(user, role)| Change::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })),
        2 => (user(), role())
            .prop_map(|(name, role)| Change::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role })),
        3 => role().prop_map(|name| Change::RoleAdd(pb::AuthRoleAddRequest { name })),
        1 => role().prop_map(|role| Change::RoleDelete(pb::AuthRoleDeleteRequest { role })),
        8 => (role(), permission).prop_map(|(name, perm)| {
            let perm = Some(perm);
            Change::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
        }),
        3 => (role(), key(), range_end()).prop_map(|(role, key, range_end)| {
            Change::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
        }),
    ]
}

/// Whether `user` may read `key`, by going through all roles and permissions.
fn naive(auth: &Auth, user: &str, key: &[u8]) -> bool {
    let Ok(roles) = auth.user(user) else { return false };
    let reads = |permission: &Permission| {
        let range = KeyRange::from_request(permission.key.clone(), permission.range_end.clone());
        permission.perm_type() != Type::Write && range.contains(key)
    };
    roles
        .iter()
        .any(|role| role == "root" || auth.role(role).is_ok_and(|all| all.iter().any(reads)))
}

fn decisions(mvcc: &Mvcc) -> Vec<bool> {
    let (reader, auth) = (mvcc.reader(), mvcc.reader().auth());
    let mut decisions = Vec::new();
    for name in ["root", "alice", "nobody"] {
        for key in ["a", "aa", "b", "c", "d", "e"] {
            let caller = Caller::User { name, revision: auth.revision() };
            let allowed = reader.authorize(caller, |may| may.read(key.as_bytes(), b"")).is_ok();
            let expected = !auth.enabled() || naive(&auth, name, key.as_bytes());
            assert_eq!(allowed, expected, "{name} reads {key}");
            decisions.push(allowed);
        }
    }
    decisions
}

/// Everything that can be asked about users and roles.
fn listing(mvcc: &Mvcc) -> String {
    let auth = mvcc.reader().auth();
    let users = auth.users().into_iter().map(|name| {
        let (roles, hash) = (auth.user(&name), auth.password_hash(&name).map(<[u8]>::to_vec));
        (name, roles, hash)
    });
    let users = Vec::from_iter(users);
    let roles = auth.roles().into_iter().map(|name| (auth.role(&name), name));
    let roles = Vec::from_iter(roles);
    format!("{} {} {users:?} {roles:?}", auth.enabled(), auth.revision())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn permissions_follow_every_change_and_survive_a_replay(
        batches in vec(vec(change(), 1..4), 1..30),
        checkpointed in 0usize..30,
    ) {
        let temp = scratch();
        let mut mvcc = Mvcc::open(temp.path().join("state"), options()).expect("open");
        let mut kept = None;
        for (index, batch) in batches.iter().enumerate() {
            let commands: Vec<Command> = batch.iter().cloned().map(command).collect();
            let before = mvcc.reader().auth().revision();
            let outcomes = apply(&mut mvcc, &commands);
            decisions(&mvcc);
            let after = mvcc.reader().auth().revision();
            let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
            prop_assert!((before..=before + accepted).contains(&after));
            if index == checkpointed {
                mvcc.reader().checkpoint(&temp.path().join("checkpoint")).expect("checkpoint");
                kept = Some(index + 1);
            }
        }
        let (listed, decided) = (listing(&mvcc), decisions(&mvcc));
        if let Some(from) = kept {
            let mut replayed = Mvcc::open(temp.path().join("replayed"), options()).expect("open");
            replayed.install(&temp.path().join("checkpoint")).expect("install");
            for batch in &batches[from..] {
                let commands: Vec<Command> = batch.iter().cloned().map(command).collect();
                apply(&mut replayed, &commands);
            }
            prop_assert_eq!(listing(&replayed), listed.clone());
            prop_assert_eq!(decisions(&replayed), decided.clone());
        }
        mvcc.reader().flush().expect("flush");
        drop(mvcc);
        let mvcc = Mvcc::open(temp.path().join("state"), options()).expect("reopen");
        prop_assert_eq!(listing(&mvcc), listed);
        prop_assert_eq!(decisions(&mvcc), decided);
    }
}

fn with_root(mvcc: &mut Mvcc) {
    let root = || "root".to_owned();
    let add = pb::AuthUserAddRequest {
        name: root(),
        hashed_password: "hash".to_owned(),
        ..Default::default()
    };
    let grant = pb::AuthUserGrantRoleRequest { user: root(), role: root() };
    let enable = pb::AuthEnableRequest {};
    let changes = [Change::UserAdd(add), Change::UserGrantRole(grant), Change::Enable(enable)];
    for outcome in apply(mvcc, &changes.map(command)) {
        outcome.expect("accepted");
    }
}

#[test]
fn a_snapshot_brings_users_and_roles_along() {
    let temp = scratch();
    let mut leader = Mvcc::open(temp.path().join("leader"), options()).expect("open");
    with_root(&mut leader);
    let checkpoint = temp.path().join("checkpoint");
    leader.reader().checkpoint(&checkpoint).expect("checkpoint");
    let mut follower = Mvcc::open(temp.path().join("follower"), options()).expect("open");
    let reader = follower.reader();
    let check = |may: &pintle_mvcc::Authorizer<'_>| may.read(b"a", b"");
    let permit = reader.authorize(Caller::Anonymous, check).expect("off");
    follower.install(&checkpoint).expect("install");
    assert_eq!(listing(&follower), listing(&leader));
    let overtaken = reader.confirm(permit, Caller::Anonymous, check);
    assert_eq!(overtaken, Err(AuthError::UserEmpty), "a read that the snapshot overtook");
    assert_eq!(reader.authorize(Caller::Anonymous, check), Err(AuthError::UserEmpty));
}

#[test]
fn users_and_roles_are_no_keys() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    let hash = |mvcc: &Mvcc| mvcc.reader().hash_kv(Revision(0)).expect("hash");
    let before = hash(&mvcc);
    with_root(&mut mvcc);
    assert_eq!(hash(&mvcc), before);
    assert_eq!(mvcc.reader().current_revision(), Revision(1));
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    assert_eq!(mvcc.reader().range(&all).expect("readable").count, 0);
}

#[test]
fn a_command_that_is_refused_changes_nothing() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    with_root(&mut mvcc);
    let listed = listing(&mvcc);
    let put = pb::PutRequest { key: "a".into(), ..Default::default() };
    let anonymous = Command { kind: Some(Kind::Put(put)), caller: None };
    let refused = apply(&mut mvcc, &[anonymous, Command { kind: None, caller: server() }]);
    assert_eq!(refused[0], Err(AuthError::UserEmpty.into()));
    assert!(refused[1].is_err());
    assert_eq!(listing(&mvcc), listed);
    assert_eq!(mvcc.reader().current_revision(), Revision(1));
}

#[test]
fn the_keys_of_a_lease_are_asked_of_the_state() {
    let temp = scratch();
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    let grant = Kind::LeaseGrant(raft::LeaseGrant { id: 7, ttl: 60 });
    let put = Kind::Put(pb::PutRequest { key: "a".into(), lease: 7, ..Default::default() });
    let commands = [grant, put].map(|kind| Command { kind: Some(kind), caller: server() });
    apply(&mut mvcc, &commands);
    with_root(&mut mvcc);
    let reader = mvcc.reader();
    let look = |caller| -> Result<_, QueryError> {
        reader.authorize(caller, |may| may.lease_read(pintle_store_api::LeaseId(7), &reader))
    };
    let revision = reader.auth().revision();
    assert!(look(Caller::User { name: "root", revision }).is_ok());
    let refusal = look(Caller::User { name: "alice", revision }).expect_err("no such user");
    assert_eq!(refusal.to_string(), AuthError::PermissionDenied.to_string());
}
