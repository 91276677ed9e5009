//! Simple tokens: known to all members, refreshed by use, revoked with their user.

use std::time::Duration;

use pintle_store_api::AuthError;
use pintle_store_api::authpb::permission::Type;

use super::client::{Client, found, permission, quick, refused};
use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_on_every_member() {
    let cluster = found(3).await;
    let client = Client::connect(cluster.client_url(cluster.follower().await)).await;
    let root = client.enable_with_root().await;
    let (prefix, index) = root.token().split_once('.').expect("PREFIX.INDEX");
    assert!(prefix.len() == 16 && prefix.bytes().all(|letter| letter.is_ascii_alphabetic()));
    assert!(index.parse::<u64>().expect("a number") > 1);
    for i in 0..3 {
        let member = Client::connect(cluster.client_url(i)).await.with_token(root.token());
        member.put("a").await.expect("known here, or waited for");
        member.get("a").await.expect("known here");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_was_given_is_no_token() {
    let cluster = Cluster::found(1, |config| {
        quick(config);
        // A token of an entry that is to come is waited for that long.
        config.election_ms = 200;
    })
    .await;
    let client = Client::connect(cluster.client_url(0)).await;
    client.with_token("off").get("a").await.expect("nobody looks while it is off");
    let root = client.enable_with_root().await;
    let (prefix, _) = root.token().split_once('.').expect("PREFIX.INDEX");
    for token in ["", "x", "x.y", "x.1", "x.1.1", prefix, &format!("{prefix}.1"), "x.99999999"] {
        let bogus = client.with_token(token);
        refused(bogus.get("a").await, AuthError::InvalidToken);
    }
    let bogus = client.with_token("x.1");
    refused(bogus.put("a").await, AuthError::InvalidToken);
    refused(bogus.user_add("eve", "x").await, AuthError::InvalidToken);
    refused(bogus.user_list().await, AuthError::InvalidToken);
    bogus.login("root", "root").await.get("a").await.expect("an old token does not hinder a login");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_may_stand_under_authorization() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    for value in [root.token().to_owned(), format!("Bearer {}", root.token())] {
        let mut request = client.request(crate::support::range_request("a"));
        request.metadata_mut().insert("authorization", value.parse().expect("text"));
        client.kv().range(request).await.expect("the token is found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_token_expires() {
    let cluster = Cluster::found(1, |config| {
        quick(config);
        config.auth_token_ttl = Duration::from_secs(1);
    })
    .await;
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    eventually("the token expires", || async {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        root.get("a").await.is_err().then_some(())
    })
    .await;
    refused(root.get("a").await, AuthError::InvalidToken);
    client.login("root", "root").await.get("a").await.expect("logged in again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_with_the_password_and_the_user() {
    let cluster = found(3).await;
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    let permissions = [permission(Type::Readwrite, "a", "b")];
    root.user_with("alice", &permissions).await;
    let alice = client.login("alice", "alice").await;
    let elsewhere = Client::connect(cluster.client_url(1)).await.with_token(alice.token());
    elsewhere.put("a").await.expect("good");
    root.user_change_password("alice", "other").await.expect("changed");
    refused(alice.put("a").await, AuthError::InvalidToken);
    eventually("the other member has heard of it", || async {
        elsewhere.get("a").await.is_err().then_some(())
    })
    .await;
    refused(elsewhere.put("a").await, AuthError::InvalidToken);
    let alice = client.login("alice", "other").await;
    alice.put("a").await.expect("good");
    root.user_delete("alice").await.expect("deleted");
    refused(alice.put("a").await, AuthError::InvalidToken);
    root.put("a").await.expect("the tokens of others go on");
    // What changes about roles changes what a simple token may do, but not the token.
    root.user_with("bob", &permissions).await;
    let bob = client.login("bob", "bob").await;
    root.role_revoke("bob", "a", "b").await.expect("revoked");
    refused(bob.put("a").await, AuthError::PermissionDenied);
    root.role_grant("bob", Some(permissions[0].clone())).await.expect("granted");
    bob.put("a").await.expect("good again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabling_ends_all_tokens() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    root.disable().await.expect("disabled");
    client.put("a").await.expect("off");
    client.enable().await.expect("enabled");
    refused(root.put("a").await, AuthError::InvalidToken);
    client.login("root", "root").await.put("a").await.expect("logged in again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_nobody_logs_in() {
    let cluster = Cluster::found(1, |config| {
        quick(config);
        config.auth_token = String::new();
    })
    .await;
    let client = Client::connect(cluster.client_url(0)).await;
    client.user_add("root", "root").await.expect("added");
    client.user_grant_role("root", "root").await.expect("granted");
    client.enable().await.expect("enabled");
    refused(client.authenticate("root", "root").await, AuthError::AuthFailed);
    refused(client.with_token("x.1").get("a").await, AuthError::InvalidToken);
}
