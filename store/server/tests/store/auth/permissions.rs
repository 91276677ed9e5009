//! What is refused to whom: reads, writes, watches, leases, and what is the administrator's.

use futures::StreamExt;
use pintle_proto::v3lockpb::{LockRequest, UnlockRequest};
use pintle_store_api::authpb::permission::Type;
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::pb::watch_request::RequestUnion;
use pintle_store_api::{AuthError, Store, pb};
use tonic::{Code, Status};

use super::client::{Client, found, permission, refused};
use crate::support::{Cluster, eventually, put_request, range_request};

/// Alice reads and writes `a…`, reads `r…`, writes `w…`, and reads and writes everything from `x` on.
async fn with_alice(cluster: &Cluster) -> (Client, Client) {
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    let permissions = [
        permission(Type::Readwrite, "a", "b"),
        permission(Type::Read, "r", "s"),
        permission(Type::Write, "w", "x"),
        permission(Type::Readwrite, "x", "\0"),
    ];
    root.user_with("alice", &permissions).await;
    let alice = client.login("alice", "alice").await;
    (root, alice)
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { range_end: range_end.to_owned().into(), ..range_request(key) }
}

async fn read(client: &Client, key: &str, range_end: &str) -> Result<(), Status> {
    let one_shot = client.kv().range(client.request(range(key, range_end))).await.map(drop);
    let streamed = client.kv().range_stream(client.request(range(key, range_end))).await.map(drop);
    assert_eq!(
        one_shot.as_ref().err().map(Status::message),
        streamed.err().as_ref().map(Status::message)
    );
    let serializable = pb::RangeRequest { serializable: true, ..range(key, range_end) };
    let stale = client.kv().range(client.request(serializable)).await;
    assert_eq!(
        one_shot.as_ref().err().map(Status::message),
        stale.err().as_ref().map(Status::message)
    );
    one_shot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_read_and_written_within_permissions() {
    let cluster = found(1).await;
    let (root, alice) = with_alice(&cluster).await;
    root.put("secret").await.expect("root");
    let nobody = Client::connect(cluster.client_url(0)).await;
    refused(nobody.put("a1").await, AuthError::UserEmpty);
    refused(read(&nobody, "a1", "").await, AuthError::UserEmpty);
    alice.put("a1").await.expect("hers");
    for key in ["b", "r1", "secret"] {
        refused(alice.put(key).await, AuthError::PermissionDenied);
    }
    for (key, range_end, allowed) in [
        ("a1", "", true),
        ("a", "b", true),
        ("r", "s", true),
        ("w", "", false),
        ("a", "c", false),
        ("secret", "", false),
        ("x", "\0", true),
        ("w", "\0", false),
        ("\0", "\0", false),
    ] {
        match read(&alice, key, range_end).await {
            Ok(()) => assert!(allowed, "{key} {range_end}"),
            denied => {
                assert!(!allowed, "{key} {range_end}: {denied:?}");
                refused(denied, AuthError::PermissionDenied);
            }
        }
    }
    // The previous value is read too.
    let put = |key| pb::PutRequest { prev_kv: true, ..put_request(key, "2") };
    alice.kv().put(alice.request(put("a1"))).await.expect("readable");
    refused(alice.kv().put(alice.request(put("w1"))).await, AuthError::PermissionDenied);
    let delete = |key: &str, range_end: &str, prev_kv| pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv,
    };
    for (request, allowed) in [
        (delete("w", "x", false), true),
        (delete("w", "x", true), false),
        (delete("w", "\0", false), true),
        (delete("a", "b", true), true),
        (delete("r1", "", false), false),
        (delete("\0", "\0", false), false),
    ] {
        let shown = format!("{request:?}");
        let deleted = alice.kv().delete_range(alice.request(request)).await;
        assert_eq!(deleted.is_ok(), allowed, "{shown}");
    }
    assert_eq!(root.get("secret").await.expect("root").into_inner().count, 1);
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_looked_through_to_its_leaves() {
    let cluster = found(1).await;
    let (_, alice) = with_alice(&cluster).await;
    let compare = |key: &str| pb::Compare { key: key.to_owned().into(), ..Default::default() };
    let get = |key| op(Request::RequestRange(range_request(key)));
    let put = |key| op(Request::RequestPut(put_request(key, "1")));
    let txn = |compare, success, failure| pb::TxnRequest { compare, success, failure };
    let nested = |txn| op(Request::RequestTxn(txn));
    for (request, allowed) in [
        (txn(vec![compare("r1")], vec![put("a1")], vec![get("r1")]), true),
        (txn(vec![compare("w1")], vec![put("a1")], vec![]), false),
        (txn(vec![compare("w1")], vec![get("a1")], vec![]), false),
        (txn(vec![], vec![put("a1")], vec![put("r1")]), false),
        (txn(vec![], vec![get("w1")], vec![]), false),
        (txn(vec![], vec![nested(txn(vec![], vec![get("a1")], vec![]))], vec![]), true),
        (txn(vec![], vec![nested(txn(vec![], vec![get("w1")], vec![]))], vec![]), false),
        (txn(vec![], vec![nested(txn(vec![], vec![], vec![put("r1")]))], vec![put("a1")]), false),
        (
            txn(vec![], vec![nested(txn(vec![compare("w1")], vec![], vec![]))], vec![put("a1")]),
            false,
        ),
        (
            txn(
                vec![],
                vec![nested(txn(
                    vec![],
                    vec![nested(txn(vec![], vec![get("w1")], vec![]))],
                    vec![],
                ))],
                vec![],
            ),
            false,
        ),
    ] {
        let shown = format!("{request:?}");
        let nobody = Client::connect(cluster.client_url(0)).await;
        refused(nobody.kv().txn(request.clone()).await, AuthError::UserEmpty);
        let answer = alice.kv().txn(alice.request(request)).await;
        assert_eq!(answer.is_ok(), allowed, "{shown}");
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::PermissionDenied, "{shown}");
        }
    }
}

/// The first answer to a watch.
async fn watch(client: &Client, key: &str, range_end: &str) -> pb::WatchResponse {
    let create = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    };
    let union = RequestUnion::CreateRequest(create);
    let requests = futures::stream::iter([pb::WatchRequest { request_union: Some(union) }])
        .chain(futures::stream::pending());
    let answers = client.watch().watch(client.request(requests)).await.expect("opens");
    answers.into_inner().message().await.expect("no error").expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_reads_its_range() {
    let cluster = found(1).await;
    let (_, alice) = with_alice(&cluster).await;
    let bogus = alice.with_token("bogus.1");
    let nobody = Client::connect(cluster.client_url(0)).await;
    let denied = ("PermissionDenied", AuthError::PermissionDenied);
    for (client, key, range_end, refusal) in [
        (&alice, "a1", "", None),
        (&alice, "r", "s", None),
        (&alice, "x", "\0", None),
        (&alice, "w1", "", Some(denied)),
        (&alice, "r", "t", Some(denied)),
        (&alice, "a", "\0", Some(denied)),
        (&alice, "\0", "\0", Some(denied)),
        (&alice, "", "\0", Some(denied)),
        (&bogus, "a1", "", Some(("Unauthenticated", AuthError::InvalidToken))),
        (&nobody, "a1", "", Some(("InvalidArgument", AuthError::UserEmpty))),
    ] {
        let answer = watch(client, key, range_end).await;
        assert!(answer.created);
        // The whole text is what Go clients compare.
        let reason =
            refusal.map(|(code, error)| format!("rpc error: code = {code} desc = {error}"));
        let reason = reason.unwrap_or_default();
        assert_eq!((answer.canceled, answer.cancel_reason), (refusal.is_some(), reason));
        assert_eq!(answer.watch_id, if refusal.is_some() { -1 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_stands_for_its_keys() {
    let cluster = found(1).await;
    let (root, alice) = with_alice(&cluster).await;
    let nobody = Client::connect(cluster.client_url(0)).await;
    let grant = pb::LeaseGrantRequest { ttl: 600, id: 0 };
    refused(nobody.lease().lease_grant(grant).await, AuthError::UserEmpty);
    let lease = alice.lease().lease_grant(alice.request(grant)).await.expect("granted");
    let id = lease.into_inner().id;
    let put = |key| pb::PutRequest { lease: id, ..put_request(key, "1") };
    alice.kv().put(alice.request(put("w1"))).await.expect("hers");
    let revoke = pb::LeaseRevokeRequest { id };
    let live = |keys| pb::LeaseTimeToLiveRequest { id, keys };
    let keep_alive = async |client: &Client| {
        let requests = client.request(futures::stream::iter([pb::LeaseKeepAliveRequest { id }]));
        let mut answers = client.lease().lease_keep_alive(requests).await?.into_inner();
        answers.message().await
    };
    refused(nobody.lease().lease_revoke(revoke).await, AuthError::UserEmpty);
    refused(nobody.lease().lease_time_to_live(live(false)).await, AuthError::UserEmpty);
    refused(nobody.lease().lease_leases(pb::LeaseLeasesRequest {}).await, AuthError::UserEmpty);
    refused(keep_alive(&nobody).await, AuthError::UserEmpty);
    keep_alive(&alice).await.expect("she may write its keys");
    alice.lease().lease_time_to_live(alice.request(live(false))).await.expect("no keys asked");
    let named = alice.lease().lease_time_to_live(alice.request(live(true))).await;
    refused(named, AuthError::PermissionDenied);
    let listed = alice.lease().lease_leases(alice.request(pb::LeaseLeasesRequest {})).await;
    refused(listed, AuthError::PermissionDenied);
    // Once a key of others hangs on it, it is no longer hers.
    root.kv().put(root.request(put("secret"))).await.expect("root");
    refused(alice.kv().put(alice.request(put("a1"))).await, AuthError::PermissionDenied);
    let attach =
        pb::TxnRequest { success: vec![op(Request::RequestPut(put("a1")))], ..Default::default() };
    refused(alice.kv().txn(alice.request(attach)).await, AuthError::PermissionDenied);
    refused(keep_alive(&alice).await, AuthError::PermissionDenied);
    refused(alice.lease().lease_revoke(alice.request(revoke)).await, AuthError::PermissionDenied);
    let named = root.lease().lease_time_to_live(root.request(live(true))).await.expect("root");
    assert_eq!(named.into_inner().keys, ["secret", "w1"]);
    root.lease().lease_leases(root.request(pb::LeaseLeasesRequest {})).await.expect("root");
    keep_alive(&root).await.expect("root");
    root.lease().lease_revoke(root.request(revoke)).await.expect("root");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_expire_whoever_is_logged_in() {
    let cluster = found(3).await;
    let (root, _) = with_alice(&cluster).await;
    let grant = pb::LeaseGrantRequest { ttl: 1, id: 0 };
    let id = root.lease().lease_grant(root.request(grant)).await.expect("granted").into_inner().id;
    let put = pb::PutRequest { lease: id, ..put_request("a1", "1") };
    root.kv().put(root.request(put)).await.expect("written");
    eventually("the key goes", || async {
        (root.get("a1").await.expect("root").into_inner().count == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_the_administrators() {
    let cluster = found(1).await;
    let (root, alice) = with_alice(&cluster).await;
    let nobody = Client::connect(cluster.client_url(0)).await;
    let list = pb::MemberListRequest { linearizable: true };
    let members = root.cluster().member_list(root.request(list)).await.expect("root");
    let id = members.into_inner().members[0].id;
    for (client, error) in [(&alice, AuthError::PermissionDenied), (&nobody, AuthError::UserEmpty)]
    {
        let (mut members, mut kv) = (client.cluster(), client.kv());
        let peer_ur_ls = vec!["http://127.0.0.1:1".to_owned()];
        let add = pb::MemberAddRequest { peer_ur_ls: peer_ur_ls.clone(), is_learner: true };
        refused(members.member_add(client.request(add)).await, error);
        let remove = pb::MemberRemoveRequest { id };
        refused(members.member_remove(client.request(remove)).await, error);
        let update = pb::MemberUpdateRequest { id, peer_ur_ls };
        refused(members.member_update(client.request(update)).await, error);
        let promote = pb::MemberPromoteRequest { id };
        refused(members.member_promote(client.request(promote)).await, error);
        let compact = pb::CompactionRequest { revision: 1, physical: false };
        refused(kv.compact(client.request(compact)).await, error);
        let mut maintenance = client.maintenance();
        refused(maintenance.defragment(client.request(pb::DefragmentRequest {})).await, error);
        refused(maintenance.hash(client.request(pb::HashRequest {})).await, error);
        refused(
            maintenance.hash_kv(client.request(pb::HashKvRequest { revision: 0 })).await,
            error,
        );
        refused(maintenance.snapshot(client.request(pb::SnapshotRequest {})).await, error);
        let transfer = pb::MoveLeaderRequest { target_id: id };
        refused(maintenance.move_leader(client.request(transfer)).await, error);
        refused(
            maintenance.downgrade(client.request(pb::DowngradeRequest::default())).await,
            error,
        );
        let raise = pb::AlarmRequest { action: 1, member_id: id, alarm: 1 };
        refused(maintenance.alarm(client.request(raise)).await, error);
    }
    for linearizable in [true, false] {
        let list = pb::MemberListRequest { linearizable };
        refused(nobody.cluster().member_list(list).await, AuthError::UserEmpty);
        alice.cluster().member_list(alice.request(list)).await.expect("any user");
    }
    let (status, alarms) = (pb::StatusRequest {}, pb::AlarmRequest::default());
    refused(nobody.maintenance().status(status).await, AuthError::UserEmpty);
    refused(nobody.maintenance().alarm(alarms).await, AuthError::UserEmpty);
    alice.maintenance().status(alice.request(status)).await.expect("any user");
    alice.maintenance().alarm(alice.request(alarms)).await.expect("any user");
    root.maintenance()
        .hash_kv(root.request(pb::HashKvRequest { revision: 0 }))
        .await
        .expect("root");
    root.maintenance().defragment(root.request(pb::DefragmentRequest {})).await.expect("root");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_of_the_same_process_needs_no_user() {
    let cluster = found(3).await;
    let (root, _) = with_alice(&cluster).await;
    for i in 0..3 {
        let handle = cluster.handle(i);
        crate::support::put(&*handle, "in-process", "1").await.expect("written");
        assert_eq!(crate::support::get(&*handle, "in-process").await.as_deref(), Some("1"));
        let lease = pb::LeaseGrantRequest { ttl: 60, id: 0 };
        let id = handle.lease_grant(lease).await.expect("granted").id;
        handle.lease_keep_alive(pintle_store_api::LeaseId(id)).await.expect("renewed");
        handle.lease_revoke(pintle_store_api::LeaseId(id)).await.expect("revoked");
        handle.member_list().await.expect("listed");
        handle.status().await.expect("answered");
        let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        drop(handle.watch(create).await.expect("watches"));
    }
    assert_eq!(root.get("in-process").await.expect("root").into_inner().kvs[0].version, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_keys() {
    let cluster = found(1).await;
    let (_, alice) = with_alice(&cluster).await;
    let nobody = Client::connect(cluster.client_url(0)).await;
    let lock = async |client: &Client, name: &str| {
        let name = name.to_owned().into();
        client.lock().lock(client.request(LockRequest { name, lease: 0 })).await
    };
    let taken = lock(&alice, "a").await.expect("hers").into_inner();
    for (client, name, error) in
        [(&alice, "secret", AuthError::PermissionDenied), (&nobody, "a", AuthError::UserEmpty)]
    {
        let refused = lock(client, name).await.expect_err("refused");
        assert_eq!(refused.message(), error.to_string());
    }
    let unlock = UnlockRequest { key: taken.key };
    let refused = nobody.lock().unlock(unlock.clone()).await.expect_err("refused");
    assert_eq!(refused.message(), AuthError::UserEmpty.to_string());
    alice.lock().unlock(alice.request(unlock)).await.expect("hers");
}
