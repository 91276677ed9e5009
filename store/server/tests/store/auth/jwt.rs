//! JSON web tokens instead of simple ones.

use pintle_store::{Config, StartError, start};
use pintle_store_api::AuthError;
use pintle_store_api::authpb::permission::Type;

use super::client::{Client, permission, quick, refused};
use crate::support::Cluster;

fn key(name: &str) -> String {
    format!("{}/tests/store/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_token_is_good_everywhere_until_users_change() {
    let cluster = Cluster::found(3, |config| {
        quick(config);
        config.auth_token = format!("jwt,sign-method=ES256,priv-key={},ttl=10m", key("ec.key"));
    })
    .await;
    let client = Client::connect(cluster.client_url(cluster.follower().await)).await;
    let root = client.enable_with_root().await;
    assert_eq!(root.token().split('.').count(), 3);
    for i in 0..3 {
        let member = Client::connect(cluster.client_url(i)).await.with_token(root.token());
        member.put("a").await.expect("verified here");
        member.get("a").await.expect("verified here");
    }
    root.user_with("alice", &[permission(Type::Readwrite, "a", "b")]).await;
    refused(root.put("a").await, AuthError::OldRevision);
    refused(root.get("a").await, AuthError::OldRevision);
    root.user_list().await.expect("what an administrator does looks at the role alone");
    let alice = client.login("alice", "alice").await;
    alice.put("a").await.expect("hers");
    refused(alice.put("b").await, AuthError::PermissionDenied);
    refused(client.with_token("a.b.c").put("a").await, AuthError::InvalidToken);
    refused(client.with_token("x.1").put("a").await, AuthError::InvalidToken);
    let forged = format!("{}x", alice.token());
    refused(client.with_token(&forged).get("a").await, AuthError::InvalidToken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_the_public_key_makes_no_tokens() {
    let cluster = Cluster::found(1, |config| {
        quick(config);
        config.auth_token = format!("jwt,sign-method=EdDSA,pub-key={}", key("ed.pub"));
    })
    .await;
    let client = Client::connect(cluster.client_url(0)).await;
    client.user_add("root", "root").await.expect("added");
    client.user_grant_role("root", "root").await.expect("granted");
    client.enable().await.expect("enabled");
    refused(client.authenticate("root", "guess").await, AuthError::AuthFailed);
    refused(client.authenticate("root", "root").await, AuthError::VerifyOnly);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_keys_does_not_start() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let cases = [
        ("jwt,sign-method=RS256", "auth-token: auth: missing key data"),
        ("jwt,sign-method=RS256,priv-key=/nowhere", "auth-token: auth: invalid auth options"),
        ("jwt", "auth-token: auth: invalid auth options"),
        ("simpel", "auth-token: auth: invalid auth options"),
        ("jwt,x", "auth-token: auth: invalid auth options"),
    ];
    for (i, (auth_token, expected)) in cases.into_iter().enumerate() {
        let config = Config {
            data_dir: dir.path().join(i.to_string()),
            auth_token: auth_token.to_owned(),
            ..Config::default()
        };
        let error: StartError = start(config).await.map(drop).expect_err(auth_token);
        assert!(error.to_string().starts_with(expected), "{auth_token}: {error}");
    }
}
