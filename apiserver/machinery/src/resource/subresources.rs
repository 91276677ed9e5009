//! The subresources of built-in kinds.

use super::{GroupVersionKind, Subresource};

const READ_WRITE: &str = "get patch update";
const CONNECT: &str = "create get";
const PROXY: &str = "create delete get patch update";

/// The subresources of a kind, sorted by name. `has_status` comes from the schema.
pub(super) fn subresources(
    group: &str,
    version: &str,
    kind: &str,
    has_status: bool,
) -> Vec<Subresource> {
    let own = (group, version, kind);
    let mut list: Vec<Subresource> = match (group, kind) {
        ("", "Pod") => pod_subresources(),
        ("", "Service") => vec![sub("proxy", ("", "v1", "ServiceProxyOptions"), PROXY)],
        ("", "Node") => vec![sub("proxy", ("", "v1", "NodeProxyOptions"), PROXY)],
        ("", "Namespace") => vec![sub("finalize", own, "update")],
        ("", "ServiceAccount") => {
            vec![sub("token", ("authentication.k8s.io", "v1", "TokenRequest"), "create")]
        }
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") | ("", "ReplicationController") => {
            vec![sub("scale", ("autoscaling", "v1", "Scale"), READ_WRITE)]
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            vec![sub("approval", own, READ_WRITE)]
        }
        _ => Vec::new(),
    };
    if has_status {
        list.push(sub("status", own, READ_WRITE));
    }
    list
}

fn pod_subresources() -> Vec<Subresource> {
    let pod = ("", "v1", "Pod");
    vec![
        sub("attach", ("", "v1", "PodAttachOptions"), CONNECT),
        sub("binding", ("", "v1", "Binding"), "create"),
        sub("ephemeralcontainers", pod, READ_WRITE),
        sub("eviction", ("policy", "v1", "Eviction"), "create"),
        sub("exec", ("", "v1", "PodExecOptions"), CONNECT),
        sub("log", pod, "get"),
        sub("portforward", ("", "v1", "PodPortForwardOptions"), CONNECT),
        sub("proxy", ("", "v1", "PodProxyOptions"), PROXY),
        sub("resize", pod, READ_WRITE),
    ]
}

fn sub(name: &str, (group, version, kind): (&str, &str, &str), verbs: &str) -> Subresource {
    Subresource {
        name: name.to_owned(),
        kind: GroupVersionKind::new(group, version, kind),
        verbs: verbs.split(' ').map(str::to_owned).collect(),
    }
}
