//! The real `etcdctl`, as an administrator and a user would use it.

use super::client::found;
use crate::etcdctl::{Etcdctl, is_installed, lines};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_manages_users_and_roles() {
    if !is_installed() {
        return;
    }
    let cluster = found(3).await;
    cluster.published().await;
    let endpoints: Vec<String> = (0..3).map(|i| cluster.client_url(i)).collect();
    let etcdctl = Etcdctl { endpoints: endpoints.join(","), tls: Vec::new() };
    tokio::task::spawn_blocking(move || {
        roles(&etcdctl);
        users(&etcdctl);
        enabled(&etcdctl);
        disabled(&etcdctl);
    })
    .await
    .expect("etcdctl");
}

fn roles(etcdctl: &Etcdctl) {
    assert_eq!(etcdctl.run(&["role", "add", "writer"]), "Role writer created\n");
    assert!(etcdctl.fails(&["role", "add", "writer"]).contains("role name already exists"));
    let granted = etcdctl.run(&["role", "grant-permission", "writer", "readwrite", "foo"]);
    assert_eq!(granted, "Role writer updated\n");
    etcdctl.run(&["role", "grant-permission", "writer", "read", "shared/", "--prefix"]);
    etcdctl.run(&["role", "grant-permission", "writer", "write", "log/", "log0"]);
    let shown = etcdctl.run(&["role", "get", "writer"]);
    for expected in
        ["Role writer", "KV Read:", "KV Write:", "foo", "[shared/, shared0)", "[log/, log0)"]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    let revoked = etcdctl.run(&["role", "revoke-permission", "writer", "log/", "log0"]);
    assert!(revoked.contains("revoked from role writer"), "{revoked}");
    etcdctl.run(&["role", "add", "gone"]);
    assert_eq!(etcdctl.run(&["role", "delete", "gone"]), "Role gone deleted\n");
    assert_eq!(lines(&etcdctl.run(&["role", "list"])), ["writer"]);
    assert!(etcdctl.fails(&["role", "get", "gone"]).contains("role name not found"));
}

fn users(etcdctl: &Etcdctl) {
    assert_eq!(etcdctl.run(&["user", "add", "root:rootpw"]), "User root created\n");
    etcdctl.run(&["user", "add", "alice", "--new-user-password=alicepw"]);
    etcdctl.run(&["user", "add", "cert", "--no-password"]);
    assert!(etcdctl.fails(&["user", "add", "alice:x"]).contains("user name already exists"));
    let granted = etcdctl.run(&["user", "grant-role", "alice", "writer"]);
    assert_eq!(granted, "Role writer is granted to user alice\n");
    assert!(
        etcdctl.fails(&["user", "grant-role", "alice", "gone"]).contains("role name not found")
    );
    assert_eq!(lines(&etcdctl.run(&["user", "list"])), ["alice", "cert", "root"]);
    let shown = etcdctl.run(&["user", "get", "alice"]);
    assert!(shown.contains("User: alice") && shown.contains("Roles: writer"), "{shown}");
}

fn enabled(etcdctl: &Etcdctl) {
    // Where root has no role yet, etcdctl makes it and asks again.
    assert_eq!(etcdctl.run(&["auth", "enable"]), "Authentication Enabled\n");
    assert!(etcdctl.fails(&["get", "foo"]).contains("user name is empty"));
    assert!(etcdctl.fails(&["--user=alice:guess", "get", "foo"]).contains("authentication failed"));
    let alice = |arguments: &[&str]| etcdctl.run(&[&["--user=alice:alicepw"], arguments].concat());
    let denied = |arguments: &[&str]| {
        let error = etcdctl.fails(&[&["--user=alice:alicepw"], arguments].concat());
        assert!(error.contains("permission denied"), "{arguments:?}: {error}");
    };
    let root = |arguments: &[&str]| etcdctl.run(&[&["--user=root:rootpw"], arguments].concat());
    assert_eq!(alice(&["put", "foo", "bar"]), "OK\n");
    assert_eq!(alice(&["get", "foo"]), "foo\nbar\n");
    root(&["put", "shared/a", "1"]);
    assert_eq!(alice(&["get", "shared/", "--prefix"]), "shared/a\n1\n");
    denied(&["put", "shared/a", "2"]);
    denied(&["get", "", "--prefix"]);
    denied(&["get", "foo", "--from-key"]);
    denied(&["del", "secret"]);
    denied(&["user", "list"]);
    denied(&["auth", "disable"]);
    denied(&["compaction", "2"]);
    denied(&["endpoint", "hashkv"]);
    assert!(alice(&["user", "get", "alice"]).contains("writer"));
    assert_eq!(lines(&alice(&["member", "list"])).len(), 3);
    alice(&["endpoint", "status"]);
    root(&["endpoint", "hashkv"]);
    let input = "newpw\n";
    etcdctl.with_input(
        &["--user=root:rootpw", "user", "passwd", "alice", "--interactive=false"],
        input,
    );
    assert!(
        etcdctl.fails(&["--user=alice:alicepw", "get", "foo"]).contains("authentication failed")
    );
    assert_eq!(etcdctl.run(&["--user=alice:newpw", "get", "foo"]), "foo\nbar\n");
    root(&["user", "revoke-role", "alice", "writer"]);
    assert!(etcdctl.fails(&["--user=alice:newpw", "get", "foo"]).contains("permission denied"));
    assert_eq!(root(&["user", "delete", "alice"]), "User alice deleted\n");
    assert!(
        etcdctl
            .fails(&["--user=root:rootpw", "user", "delete", "root"])
            .contains("invalid auth management")
    );
}

fn disabled(etcdctl: &Etcdctl) {
    assert!(etcdctl.fails(&["auth", "disable"]).contains("user name is empty"));
    assert_eq!(
        etcdctl.run(&["--user=root:rootpw", "auth", "disable"]),
        "Authentication Disabled\n"
    );
    assert_eq!(etcdctl.run(&["get", "foo"]), "foo\nbar\n");
}
