//! Users and roles, from a source whose authentication is on and from one where it is off.

use pintle_proto::authpb::{Permission, UserAddOptions, permission};

use super::*;

fn as_user(url: &str, user: &str) -> endpoint::Options {
    endpoint::Options { user: Some(user.to_owned()), ..endpoint_options(url) }
}

async fn add(side: &mut Side, name: &str, password: Option<&str>, roles: &[&str]) {
    let request = pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: password.unwrap_or_default().to_owned(),
        options: Some(UserAddOptions { no_password: password.is_none() }),
        ..Default::default()
    };
    side.auth.user_add(request).await.expect("added");
    for role in roles {
        let (user, role) = (name.to_owned(), (*role).to_owned());
        let request = pb::AuthUserGrantRoleRequest { user, role };
        side.auth.user_grant_role(request).await.expect("granted");
    }
}

/// root, alice with a password, bob without one; a role that may read and write `app/`.
async fn fill(side: &mut Side) {
    for role in ["root", "app"] {
        let request = pb::AuthRoleAddRequest { name: role.to_owned() };
        side.auth.role_add(request).await.expect("added");
    }
    let perm = Permission {
        perm_type: permission::Type::Readwrite as i32,
        key: "app/".into(),
        range_end: "app0".into(),
    };
    let request = pb::AuthRoleGrantPermissionRequest { name: "app".to_owned(), perm: Some(perm) };
    side.auth.role_grant_permission(request).await.expect("granted");
    add(side, "root", Some("secret"), &["root"]).await;
    add(side, "alice", Some("wonderland"), &["app"]).await;
    add(side, "bob", None, &["app"]).await;
    put(side, "app/a".to_owned(), "1", 0).await;
    put(side, "other".to_owned(), "1", 0).await;
}

async fn set_password(side: &mut Side, name: &str, password: &str) {
    let (name, password) = (name.to_owned(), password.to_owned());
    let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
    side.auth.user_change_password(request).await.expect("set");
}

async fn enable(side: &mut Side) {
    side.auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enabled");
}

/// Why somebody cannot log in.
async fn refusal(url: &str, user: &str) -> String {
    match Side::connect(&as_user(url, user)).await {
        Ok(_) => panic!("{user} is let in"),
        Err(error) => format!("{error:#}"),
    }
}

/// What is left to do after a copy, and what then holds.
async fn is_usable(target: &mut Side, to: &str) {
    for (user, password) in [("root", "new secret"), ("alice", "new wonderland")] {
        set_password(target, user, password).await;
    }
    enable(target).await;
    Side::connect(&as_user(to, "root:new secret")).await.expect("logs in");
    // A side looks at all keys as soon as it has logged in, which alice may not.
    let refused = refusal(to, "alice:new wonderland").await;
    assert!(refused.contains("permission denied"), "{refused}");
    for old in ["root:secret", "alice:wonderland"] {
        let refused = refusal(to, old).await;
        assert!(refused.contains("invalid user ID or password"), "{refused}");
    }
}

fn commands(summary: &str) -> Vec<&str> {
    summary.lines().filter(|line| line.contains("etcdctl")).map(str::trim).collect()
}

/// From a source whose authentication is on, and which therefore says who has no password.
async fn users_are_copied(from: &str, to: &str, dir: &Path) {
    let mut source = Side::connect(&endpoint_options(from)).await.expect("connects");
    let mut target = Side::connect(&endpoint_options(to)).await.expect("connects");
    fill(&mut source).await;
    enable(&mut source).await;
    let options = Options { from_user: Some("root:secret".to_owned()), ..options(from, to, dir) };
    let summary = migrate(&options).await.expect("copied");
    assert!(summary.contains("2 roles and 3 users were copied"), "{summary}");
    assert_eq!(commands(&summary), ["etcdctl user passwd alice", "etcdctl user passwd root"]);
    assert!(summary.contains("authentication is on in the source"), "{summary}");

    let request = pb::AuthRoleGetRequest { role: "app".to_owned() };
    let perm = target.auth.role_get(request).await.expect("there").into_inner().perm;
    assert_eq!((&*perm[0].key, &*perm[0].range_end), (&b"app/"[..], &b"app0"[..]));
    for (name, role) in [("root", "root"), ("alice", "app"), ("bob", "app")] {
        let request = pb::AuthUserGetRequest { name: name.to_owned() };
        let roles = target.auth.user_get(request).await.expect("there").into_inner().roles;
        assert_eq!(roles, [role], "{name}");
    }
    is_usable(&mut target, to).await;
    let refused = refusal(to, "bob:guessed").await;
    assert!(refused.contains("password was given for no password user"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_copied_without_their_passwords() {
    from_a_member(users_are_copied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_real_etcd_are_copied_without_their_passwords() {
    from_etcd(users_are_copied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_authentication_does_not_say_who_has_no_password() {
    from_a_member(async |from: &str, to: &str, dir: &Path| {
        let mut theirs = Side::connect(&endpoint_options(from)).await.expect("connects");
        let mut ours = Side::connect(&endpoint_options(to)).await.expect("connects");
        fill(&mut theirs).await;
        let summary = migrate(&options(from, to, dir)).await.expect("copied");
        let named = ["alice", "bob", "root"].map(|user| format!("etcdctl user passwd {user}"));
        assert_eq!(commands(&summary), named);
        assert!(!summary.contains("authentication is on"), "{summary}");
        is_usable(&mut ours, to).await;
        let refused = refusal(to, "bob:guessed").await;
        assert!(refused.contains("invalid user ID or password"), "{refused}");
    })
    .await;
}
