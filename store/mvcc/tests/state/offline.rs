//! A stopped state, whole and damaged: what the check sees.

use std::path::Path;

use bytes::Bytes;
use pintle_mvcc::offline::{Offline, active_folder};
use pintle_mvcc::{Entry, Mvcc};
use pintle_proto::raft::auth_command::Change;
use pintle_proto::raft::{AuthCommand, Caller, Command, LeaseGrant, command::Kind};
use pintle_store_api::{KeyRange, Revision, authpb, pb};
use prost::Message;
use rocksdb::{DB, IteratorMode, Options};

use crate::replay::{options, scratch};

const FAMILIES: [&str; 8] =
    ["current", "history", "log", "lease", "lease_keys", "meta", "census", "auth"];

fn put(key: &str, value: &str, lease: i64) -> Kind {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Kind::Put(pb::PutRequest { key, value, lease, ..Default::default() })
}

fn server() -> Option<Caller> {
    Some(Caller { server: true, ..Default::default() })
}

/// The users root and alice, the roles reader and writer.
fn accounts() -> Vec<Kind> {
    let user = |name: &str| {
        let name = name.to_owned();
        Change::UserAdd(pb::AuthUserAddRequest { name, ..Default::default() })
    };
    let role = |name: &str| Change::RoleAdd(pb::AuthRoleAddRequest { name: name.to_owned() });
    let given = |user: &str, role: &str| {
        let (user, role) = (user.to_owned(), role.to_owned());
        Change::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })
    };
    let granted = |key: &'static str| {
        let perm = authpb::Permission { key: key.into(), perm_type: 0, range_end: "z".into() };
        let (name, perm) = ("reader".to_owned(), Some(perm));
        Change::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
    };
    let changes = vec![
        user("root"),
        user("alice"),
        role("reader"),
        role("writer"),
        given("root", "root"),
        given("alice", "writer"),
        given("alice", "reader"),
        granted("k"),
        granted("a"),
        Change::Enable(pb::AuthEnableRequest {}),
    ];
    let kind = |change| Kind::Auth(AuthCommand { change: Some(change) });
    changes.into_iter().map(kind).collect()
}

/// Every kind of entry, above and below a compact floor; the folder of its database.
fn state(root: &Path) -> std::path::PathBuf {
    let mut mvcc = Mvcc::open(root, options()).expect("open");
    let mut kinds = vec![Kind::LeaseGrant(LeaseGrant { id: 7, ttl: 60 })];
    for i in 0..40 {
        kinds.push(put(
            &format!("k{:02}", i % 20),
            &format!("v{i}"),
            if i % 5 == 0 { 7 } else { 0 },
        ));
    }
    kinds.push(Kind::DeleteRange(pb::DeleteRangeRequest {
        key: "k03".into(),
        ..Default::default()
    }));
    kinds.extend(accounts());
    kinds.push(Kind::Compact(pb::CompactionRequest { revision: 10, physical: false }));
    let commands: Vec<Command> =
        kinds.into_iter().map(|kind| Command { kind: Some(kind), caller: server() }).collect();
    let entry = Entry { term: 1, commands: &commands };
    mvcc.apply(&[entry], Bytes::from_static(b"applied")).expect("apply");
    mvcc.reader().compact_physically().expect("compacted");
    drop(mvcc);
    active_folder(root).expect("found")
}

fn open(folder: &Path) -> DB {
    DB::open_cf(&Options::default(), folder, FAMILIES).expect("opens")
}

/// The entry at a place of a family.
fn entry(db: &DB, family: &str, place: usize) -> (Box<[u8]>, Box<[u8]>) {
    let family = db.cf_handle(family).expect("opened");
    let mut entries = db.iterator_cf(family, IteratorMode::Start).skip(place);
    entries.next().expect("so many").expect("readable")
}

fn remove(family: &'static str, place: usize) -> impl Fn(&DB) {
    move |db| {
        let (key, _) = entry(db, family, place);
        db.delete_cf(db.cf_handle(family).expect("opened"), key).expect("deleted");
    }
}

fn change(family: &'static str, place: usize, edit: impl Fn(&[u8]) -> Vec<u8>) -> impl Fn(&DB) {
    move |db| {
        let (key, value) = entry(db, family, place);
        db.put_cf(db.cf_handle(family).expect("opened"), key, edit(&value)).expect("written");
    }
}

#[test]
fn a_whole_state_agrees_and_tells_its_entries() {
    let temp = scratch();
    let folder = state(temp.path());
    let state = Offline::open(&folder).expect("opens");
    let report = state.check().expect("readable");
    assert!(report.is_clean(), "{:#?}", report.problems);
    assert_eq!(report.entries["current"], 19);
    assert_eq!(state.standing().compact_revision, Revision(10));
    assert_eq!(state.standing().revision, Revision(42));
    assert_eq!(state.applied_meta().as_deref(), Some(&b"applied"[..]));
    let range = KeyRange::prefix("k0".into());
    let mut keys = Vec::new();
    let tell = |kv: pintle_store_api::mvccpb::KeyValue| {
        keys.push(kv.key);
        keys.len() < 3
    };
    state.keys(&range, tell).expect("readable");
    assert_eq!(keys, ["k00", "k01", "k02"]);
    let mut told = Vec::new();
    let tell = |change: pintle_mvcc::offline::Change| {
        let value = change.record.map(|kv| kv.value);
        told.push((change.revision.0, change.deleted, value));
        true
    };
    let key = KeyRange::point("k03".into());
    state.changes(&key, Revision(11), Revision(50), tell).expect("readable");
    assert_eq!(told, [(25, false, Some(Bytes::from("v23"))), (42, true, None)]);
    let leases = state.leases().expect("readable");
    assert_eq!((leases.len(), leases[0].1.len()), (1, 4));
    let accounts = state.accounts().expect("readable");
    assert_eq!((accounts.enabled, accounts.revision), (true, 10));
    let users: Vec<_> = accounts.users.iter().map(|user| (&user.name[..], &user.roles)).collect();
    let roles = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        users,
        [(&b"alice"[..], &roles(&["reader", "writer"])), (b"root", &roles(&["root"]))]
    );
    let keys: Vec<_> = accounts.roles[0].key_permission.iter().map(|one| &one.key[..]).collect();
    assert_eq!((accounts.roles.len(), keys), (2, vec![&b"a"[..], b"k"]));
}

fn user(edit: impl Fn(&mut authpb::User)) -> impl Fn(&[u8]) -> Vec<u8> {
    move |value| {
        let mut user = authpb::User::decode(value).expect("a user");
        edit(&mut user);
        user.encode_to_vec()
    }
}

fn role(edit: impl Fn(&mut authpb::Role)) -> impl Fn(&[u8]) -> Vec<u8> {
    move |value| {
        let mut role = authpb::Role::decode(value).expect("a role");
        edit(&mut role);
        role.encode_to_vec()
    }
}

/// Changes a database as no member would.
type Damage = Box<dyn Fn(&DB)>;

/// In order: settings, the users alice and root, the roles reader and writer.
#[test]
fn damage_to_users_and_roles_is_named() {
    let settings = |text: [u8; 9]| move |_: &[u8]| text.to_vec();
    let cases: Vec<(&str, Damage, &str)> = vec![
        ("a role is gone", Box::new(remove("auth", 3)), "user \"alice\": has the unknown role"),
        ("root is gone", Box::new(remove("auth", 2)), "without a user root"),
        (
            "root may nothing",
            Box::new(change("auth", 2, user(|root| root.roles.clear()))),
            "without a user root",
        ),
        ("the settings are gone", Box::new(remove("auth", 0)), "missing beside users"),
        (
            "the revision is too old",
            Box::new(change("auth", 0, settings([0, 0, 0, 0, 0, 0, 0, 0, 1]))),
            "auth revision 1",
        ),
        ("a user is nonsense", Box::new(change("auth", 1, |_| vec![0xff])), "corrupt auth entry"),
        (
            "a user has another name",
            Box::new(change("auth", 1, user(|user| user.name = "bob".into()))),
            "user \"alice\": holds \"bob\"",
        ),
        (
            "roles are out of order",
            Box::new(change("auth", 1, user(|user| user.roles.reverse()))),
            "the roles are not in order",
        ),
        (
            "permissions are out of order",
            Box::new(change("auth", 3, role(|role| role.key_permission.reverse()))),
            "the permissions are not in order",
        ),
        (
            "a permission is no range",
            Box::new(change("auth", 3, role(|role| role.key_permission[0].range_end = "A".into()))),
            "\"a\" to \"A\" is no range",
        ),
    ];
    name_all(cases);
}

#[test]
fn every_kind_of_damage_is_named() {
    let wrong_head = |value: &[u8]| {
        let mut value = value.to_vec();
        value[24] = value[24].wrapping_add(1);
        value
    };
    let cases: Vec<(&str, Damage, &str)> = vec![
        ("a key is gone", Box::new(remove("current", 4)), "keys, but there are 18"),
        ("a record is cut", Box::new(change("current", 4, |v| v[..2].to_vec())), "corrupt record"),
        ("a version is gone", Box::new(remove("history", 12)), "the version is missing"),
        ("a version is cut", Box::new(change("history", 3, |_| Vec::new())), "history \""),
        ("a change is gone", Box::new(remove("log", 5)), "log 16/0 \""),
        ("the last change is gone", Box::new(remove("log", 32)), "ends at 41"),
        ("a change is nonsense", Box::new(change("log", 5, |_| vec![9])), "corrupt log entry"),
        ("a lease is gone", Box::new(remove("lease", 0)), "unknown lease"),
        ("a lease is cut", Box::new(change("lease", 0, |v| v[..3].to_vec())), "corrupt lease"),
        ("an attachment is gone", Box::new(remove("lease_keys", 1)), "does not know of it"),
        (
            "a bucket is wrong",
            Box::new(change("census", 0, |_| 9_i64.to_be_bytes().to_vec())),
            "9 keys, but there are",
        ),
        ("the head is wrong", Box::new(change("meta", 0, wrong_head)), "meta head"),
    ];
    name_all(cases);
}

fn name_all(cases: Vec<(&str, Damage, &str)>) {
    for (what, damage, expected) in cases {
        let temp = scratch();
        let folder = state(temp.path());
        let db = open(&folder);
        damage(&db);
        let mut flush = rocksdb::FlushOptions::default();
        flush.set_wait(true);
        for family in FAMILIES {
            db.flush_cf_opt(db.cf_handle(family).expect("opened"), &flush).expect("flushed");
        }
        drop(db);
        let report = Offline::open(&folder).expect("opens").check().expect("readable");
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{what}: {expected:?} is not in {problems:#?}"
        );
    }
}

#[test]
fn a_rebased_state_begins_anew_and_goes_on() {
    let temp = scratch();
    state(temp.path());
    let mut mvcc = Mvcc::open(temp.path(), options()).expect("open");
    mvcc.rebase(1_000, true, Bytes::from_static(b"new")).expect("rebased");
    assert_eq!(mvcc.reader().current_revision(), Revision(1_042));
    assert_eq!(mvcc.reader().compact_revision(), Revision(1_042));
    let commands = [Command { kind: Some(put("k00", "next", 0)), caller: server() }];
    let entry = Entry { term: 1, commands: &commands };
    mvcc.apply(&[entry], Bytes::from_static(b"newer")).expect("apply");
    assert_eq!(mvcc.reader().current_revision(), Revision(1_043));
    mvcc.reader().flush().expect("flushed");
    drop(mvcc);
    let state = Offline::open(&active_folder(temp.path()).expect("found")).expect("opens");
    let report = state.check().expect("readable");
    assert!(report.is_clean(), "{:#?}", report.problems);
}
