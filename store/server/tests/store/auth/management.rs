//! The calls of the Auth service, and what each refuses.

use pintle_store_api::AuthError;
use pintle_store_api::authpb::permission::Type;

use super::client::{Client, found, permission, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_needs_root_with_its_role() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    assert_eq!(client.status().await, (false, 1));
    refused(client.enable().await, AuthError::RootUserNotExist);
    refused(client.authenticate("root", "root").await, AuthError::NotEnabled);
    client.disable().await.expect("off already");
    client.user_add("root", "root").await.expect("added");
    refused(client.enable().await, AuthError::RootRoleNotExist);
    client.user_grant_role("root", "root").await.expect("needs no role of that name");
    assert_eq!(client.status().await, (false, 3));
    client.enable().await.expect("enabled");
    assert_eq!(client.status().await, (true, 3), "everybody may ask; enabling is no change");
    let root = client.login("root", "root").await;
    root.enable().await.expect("on already");
    for locked_out in [
        root.user_delete("root").await.map(drop),
        root.user_revoke_role("root", "root").await.map(drop),
        root.role_delete("root").await.map(drop),
    ] {
        refused(locked_out, AuthError::InvalidManagement);
    }
    root.disable().await.expect("disabled");
    assert_eq!(client.status().await, (false, 4));
    client.user_revoke_role("root", "root").await.expect("off");
    refused(client.enable().await, AuthError::RootRoleNotExist);
    client.user_delete("root").await.expect("off");
    refused(client.enable().await, AuthError::RootUserNotExist);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_added_listed_and_deleted() {
    let cluster = found(3).await;
    let client = Client::connect(cluster.client_url(cluster.follower().await)).await;
    refused(client.user_add("", "x").await, AuthError::UserEmpty);
    let added = client.user_add("bob", "x").await.expect("added").into_inner();
    assert_eq!(added.header.expect("header").revision, 1, "users are no keys");
    refused(client.user_add("bob", "y").await, AuthError::UserAlreadyExist);
    client.user_add_without_password("alice").await.expect("added");
    client.user_add("Zoe", "").await.expect("an empty password is one");
    assert_eq!(client.user_list().await.expect("listed"), ["Zoe", "alice", "bob"]);
    let leader = Client::connect(cluster.client_url(cluster.leader().await)).await;
    assert_eq!(leader.user_list().await.expect("listed"), ["Zoe", "alice", "bob"]);
    refused(client.user_add("long", &"x".repeat(73)).await, AuthError::PasswordTooLong);
    refused(client.user_get("nobody").await, AuthError::UserNotFound);
    refused(client.user_delete("nobody").await, AuthError::UserNotFound);
    refused(client.user_change_password("nobody", "x").await, AuthError::UserNotFound);
    client.user_delete("bob").await.expect("deleted");
    refused(client.user_delete("bob").await, AuthError::UserNotFound);
    assert_eq!(client.user_get("alice").await.expect("known"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_granted_and_revoked() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    refused(client.role_add("").await, AuthError::RoleEmpty);
    client.role_add("writer").await.expect("added");
    refused(client.role_add("writer").await, AuthError::RoleAlreadyExist);
    client.role_add("reader").await.expect("added");
    assert_eq!(client.role_list().await.expect("listed"), ["reader", "writer"]);
    refused(client.user_grant_role("alice", "reader").await, AuthError::UserNotFound);
    client.user_add("alice", "x").await.expect("added");
    refused(client.user_grant_role("alice", "admin").await, AuthError::RoleNotFound);
    client.user_grant_role("alice", "writer").await.expect("granted");
    client.user_grant_role("alice", "reader").await.expect("granted");
    let (_, revision) = client.status().await;
    client.user_grant_role("alice", "reader").await.expect("granted already");
    assert_eq!(client.status().await, (false, revision));
    assert_eq!(client.user_get("alice").await.expect("known"), ["reader", "writer"]);
    refused(client.user_revoke_role("bob", "reader").await, AuthError::UserNotFound);
    refused(client.user_revoke_role("alice", "admin").await, AuthError::RoleNotGranted);
    client.user_revoke_role("alice", "reader").await.expect("revoked");
    refused(client.user_revoke_role("alice", "reader").await, AuthError::RoleNotGranted);
    refused(client.role_delete("admin").await, AuthError::RoleNotFound);
    client.role_delete("writer").await.expect("deleted");
    assert_eq!(client.user_get("alice").await.expect("known"), Vec::<String>::new());
    refused(client.role_get("writer").await, AuthError::RoleNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_are_given_on_keys_and_ranges() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    let read = |key, range_end| Some(permission(Type::Read, key, range_end));
    refused(client.role_grant("r", None).await, AuthError::PermissionNotGiven);
    refused(client.role_grant("r", read("a", "")).await, AuthError::RoleNotFound);
    client.role_add("r").await.expect("added");
    for (key, range_end) in [("", ""), ("", "\0"), ("b", "a"), ("a", "a")] {
        let granted = client.role_grant("r", read(key, range_end)).await;
        refused(granted, AuthError::InvalidManagement);
    }
    client.role_grant("r", read("b", "c")).await.expect("granted");
    client.role_grant("r", read("a", "")).await.expect("granted");
    client.role_grant("r", read("c", "\0")).await.expect("granted");
    let both = Some(permission(Type::Readwrite, "b", "c"));
    client.role_grant("r", both).await.expect("granted instead");
    let expected = [
        permission(Type::Read, "a", ""),
        permission(Type::Readwrite, "b", "c"),
        permission(Type::Read, "c", "\0"),
    ];
    assert_eq!(client.role_get("r").await.expect("known"), expected);
    refused(client.role_revoke("q", "a", "").await, AuthError::RoleNotFound);
    refused(client.role_revoke("r", "a", "b").await, AuthError::PermissionNotGranted);
    client.role_revoke("r", "a", "").await.expect("revoked");
    assert_eq!(client.role_get("r").await.expect("known"), expected[1..]);
    client.role_add("root").await.expect("added");
    let all = [permission(Type::Readwrite, "", "\0")];
    assert_eq!(client.role_get("root").await.expect("known"), all, "whatever it was granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_in_needs_the_password() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    client.user_add("alice", "secret").await.expect("added");
    client.user_add_without_password("cert").await.expect("added");
    let root = client.enable_with_root().await;
    refused(client.authenticate("alice", "guess").await, AuthError::AuthFailed);
    refused(client.authenticate("alice", "").await, AuthError::AuthFailed);
    refused(client.authenticate("nobody", "secret").await, AuthError::AuthFailed);
    refused(client.authenticate("", "").await, AuthError::AuthFailed);
    refused(client.authenticate("cert", "").await, AuthError::NoPasswordUser);
    client.login("alice", "secret").await;
    root.user_change_password("alice", "other").await.expect("changed");
    refused(client.authenticate("alice", "secret").await, AuthError::AuthFailed);
    client.login("alice", "other").await;
    root.user_change_password("alice", "").await.expect("changed");
    refused(client.authenticate("alice", "").await, AuthError::AuthFailed);
    root.user_change_password("cert", "given").await.expect("has no effect");
    refused(client.authenticate("cert", "given").await, AuthError::NoPasswordUser);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_administrator_changes_and_lists_users() {
    let cluster = found(1).await;
    let client = Client::connect(cluster.client_url(0)).await;
    let root = client.enable_with_root().await;
    root.user_with("alice", &[]).await;
    let alice = client.login("alice", "alice").await;
    let nobody = client.clone();
    for (client, error) in [(alice, AuthError::PermissionDenied), (nobody, AuthError::UserEmpty)] {
        refused(client.enable().await, error);
        refused(client.disable().await, error);
        refused(client.user_add("eve", "x").await, error);
        refused(client.user_delete("root").await, error);
        refused(client.user_change_password("root", "x").await, error);
        refused(client.user_grant_role("alice", "root").await, error);
        refused(client.user_revoke_role("root", "root").await, error);
        refused(client.user_list().await, error);
        refused(client.user_get("root").await, error);
        refused(client.role_add("r").await, error);
        refused(client.role_delete("alice").await, error);
        refused(client.role_list().await, error);
        refused(client.role_get("root").await, error);
        let all = Some(permission(Type::Readwrite, "\0", "\0"));
        refused(client.role_grant("alice", all).await, error);
        refused(client.role_revoke("alice", "a", "").await, error);
    }
    let alice = client.login("alice", "alice").await;
    assert_eq!(alice.user_get("alice").await.expect("herself"), ["alice"]);
    assert_eq!(alice.role_get("alice").await.expect("her own"), []);
    assert_eq!(root.user_list().await.expect("listed"), ["alice", "root"]);
    let (_, revision) = root.status().await;
    assert_eq!(client.status().await, (true, revision), "nothing was changed");
}
