//! The pod security standards, check by check, in upstream's words. Pure.

use pintle_machinery::object;
use serde_json::Value;

use super::Level;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const VOLUME_TYPES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What a pod (or a template) does that `level` forbids.
pub(super) fn violations(pod: &Value, level: Level) -> Vec<String> {
    let Some(spec) = pod.get("spec") else { return Vec::new() };
    let mut found = Vec::new();
    if level >= Level::Baseline {
        let baseline =
            [host_namespaces, host_ports, host_path, privileged, proc_mount, selinux, sysctls];
        found.extend(baseline.iter().filter_map(|check| check(spec)));
        if level == Level::Baseline {
            found.extend(added_capabilities(spec));
            found.extend(unconfined_seccomp(spec));
        }
    }
    if level == Level::Restricted {
        let restricted = [
            privilege_escalation,
            unrestricted_capabilities,
            volume_types,
            runs_as_root,
            root_user,
            seccomp,
        ];
        found.extend(restricted.iter().filter_map(|check| check(spec)));
    }
    found
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| object::get_list(spec, &[list]))
}

fn name(named: &Value) -> String {
    format!("{:?}", object::get_str(named, &["name"]))
}

/// `container "a" must …`, `containers "a", "b" must …`; nothing when there are none.
fn of_containers<'a>(
    title: &str,
    offenders: impl Iterator<Item = &'a Value>,
    rule: &str,
) -> Option<String> {
    let names: Vec<String> = offenders.map(name).collect();
    let subject = match names.as_slice() {
        [] => return None,
        [one] => format!("container {one}"),
        many => format!("containers {}", many.join(", ")),
    };
    Some(format!("{title} ({subject} {rule})"))
}

fn of_volumes<'a>(title: &str, offenders: impl Iterator<Item = &'a Value>) -> Option<String> {
    let names: Vec<String> = offenders.map(name).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("{title} (volume {one})")),
        many => Some(format!("{title} (volumes {})", many.join(", "))),
    }
}

fn context<'a>(container: &'a Value, path: &[&str]) -> Option<&'a Value> {
    object::get(container.get("securityContext")?, path)
}

fn host_namespaces(spec: &Value) -> Option<String> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| format!("host namespaces ({})", set.join(", ")))
}

fn host_ports(spec: &Value) -> Option<String> {
    let mut offenders = Vec::new();
    let mut ports = Vec::new();
    for container in containers(spec) {
        let of_host = object::get_list(container, &["ports"])
            .iter()
            .filter_map(|port| object::get_i64(port, &["hostPort"]))
            .filter(|port| *port != 0);
        let before = ports.len();
        ports.extend(of_host.map(|port| port.to_string()));
        if ports.len() > before {
            offenders.push(container);
        }
    }
    let rule = match (offenders.len(), ports.len()) {
        (1, 1) => format!("uses hostPort {}", ports.join(", ")),
        (1, _) => format!("uses hostPorts {}", ports.join(", ")),
        _ => format!("use hostPorts {}", ports.join(", ")),
    };
    of_containers("hostPort", offenders.into_iter(), &rule)
}

fn host_path(spec: &Value) -> Option<String> {
    let volumes = object::get_list(spec, &["volumes"]).iter();
    of_volumes("hostPath volumes", volumes.filter(|volume| volume.get("hostPath").is_some()))
}

fn privileged(spec: &Value) -> Option<String> {
    let is_privileged = |c: &&Value| context(c, &["privileged"]) == Some(&Value::Bool(true));
    of_containers(
        "privileged",
        containers(spec).filter(is_privileged),
        "must not set securityContext.privileged=true",
    )
}

fn proc_mount(spec: &Value) -> Option<String> {
    let user_namespace = spec["hostUsers"] == false;
    let is_unmasked = |c: &&Value| {
        let mount = context(c, &["procMount"]).and_then(Value::as_str);
        mount.is_some_and(|mount| mount != "Default") && !user_namespace
    };
    of_containers(
        "procMount",
        containers(spec).filter(is_unmasked),
        "must not set securityContext.procMount to \"Unmasked\"",
    )
}

fn selinux(spec: &Value) -> Option<String> {
    let is_foreign = |holder: &Value| {
        let text = |field: &str| {
            context(holder, &["seLinuxOptions", field]).and_then(Value::as_str).unwrap_or_default()
        };
        !SELINUX_TYPES.contains(&text("type"))
            || !text("user").is_empty()
            || !text("role").is_empty()
    };
    let title = "seLinuxOptions";
    if is_foreign(spec) {
        return Some(format!("{title} (pod set forbidden securityContext.seLinuxOptions)"));
    }
    of_containers(
        title,
        containers(spec).filter(|container| is_foreign(container)),
        "set forbidden securityContext.seLinuxOptions",
    )
}

fn sysctls(spec: &Value) -> Option<String> {
    let listed = context(spec, &["sysctls"]).and_then(Value::as_array);
    let forbidden: Vec<&str> = listed
        .into_iter()
        .flatten()
        .map(|sysctl| object::get_str(sysctl, &["name"]))
        .filter(|name| !SYSCTLS.contains(name))
        .collect();
    (!forbidden.is_empty()).then(|| format!("forbidden sysctls ({})", forbidden.join(", ")))
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    let list = context(container, &["capabilities", "add"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn added_capabilities(spec: &Value) -> Option<String> {
    let forbidden = |capability: &&str| !CAPABILITIES.contains(capability);
    let offenders = containers(spec).filter(|c| added(c).any(|capability| forbidden(&capability)));
    let mut names: Vec<String> = containers(spec)
        .flat_map(added)
        .filter(forbidden)
        .map(|name| format!("{name:?}"))
        .collect();
    names.sort();
    names.dedup();
    let rule = format!("must not include {} in securityContext.capabilities.add", names.join(", "));
    of_containers("non-default capabilities", offenders, &rule)
}

fn seccomp_type(holder: &Value) -> Option<&str> {
    context(holder, &["seccompProfile", "type"]).and_then(Value::as_str)
}

fn unconfined_seccomp(spec: &Value) -> Option<String> {
    let rule = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
    if seccomp_type(spec) == Some("Unconfined") {
        return Some(format!("seccompProfile (pod {rule})"));
    }
    let offenders = containers(spec).filter(|c| seccomp_type(c) == Some("Unconfined"));
    of_containers("seccompProfile", offenders, rule)
}

fn seccomp(spec: &Value) -> Option<String> {
    if let unconfined @ Some(_) = unconfined_seccomp(spec) {
        return unconfined;
    }
    let confined = |kind: Option<&str>| matches!(kind, Some("RuntimeDefault" | "Localhost"));
    if confined(seccomp_type(spec)) {
        return None;
    }
    or_containers(
        "seccompProfile",
        containers(spec).filter(|c| !confined(seccomp_type(c))),
        "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
    )
}

/// A rule that the pod can follow for all its containers.
fn or_containers<'a>(
    title: &str,
    offenders: impl Iterator<Item = &'a Value>,
    rule: &str,
) -> Option<String> {
    let text = of_containers(title, offenders, rule)?;
    Some(text.replacen(" (container", " (pod or container", 1))
}

fn privilege_escalation(spec: &Value) -> Option<String> {
    let may = |c: &&Value| context(c, &["allowPrivilegeEscalation"]) != Some(&Value::Bool(false));
    of_containers(
        "allowPrivilegeEscalation != false",
        containers(spec).filter(may),
        "must set securityContext.allowPrivilegeEscalation=false",
    )
}

fn unrestricted_capabilities(spec: &Value) -> Option<String> {
    let keeps = |c: &&Value| {
        let list = context(c, &["capabilities", "drop"]).and_then(Value::as_array);
        !list.is_some_and(|list| list.iter().any(|capability| capability == "ALL"))
    };
    let title = "unrestricted capabilities";
    let dropped = of_containers(
        title,
        containers(spec).filter(keeps),
        "must set securityContext.capabilities.drop=[\"ALL\"]",
    );
    let forbidden = |capability: &str| capability != "NET_BIND_SERVICE";
    let offenders = containers(spec).filter(|c| added(c).any(forbidden));
    let mut names: Vec<String> = containers(spec)
        .flat_map(added)
        .filter(|capability| forbidden(capability))
        .map(|name| format!("{name:?}"))
        .collect();
    names.sort();
    names.dedup();
    let rule = format!("must not include {} in securityContext.capabilities.add", names.join(", "));
    match (dropped, of_containers(title, offenders, &rule)) {
        (Some(dropped), Some(included)) => {
            let inner = |text: &str| text[title.len() + 2..text.len() - 1].to_owned();
            Some(format!("{title} ({}; {})", inner(&dropped), inner(&included)))
        }
        (dropped, included) => dropped.or(included),
    }
}

fn volume_types(spec: &Value) -> Option<String> {
    let kind = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten().map(|(field, _)| field.clone());
        fields.into_iter().find(|field| field != "name" && !VOLUME_TYPES.contains(&field.as_str()))
    };
    let offenders: Vec<(String, String)> = object::get_list(spec, &["volumes"])
        .iter()
        .filter_map(|volume| Some((name(volume), kind(volume)?)))
        .collect();
    let title = "restricted volume types";
    match offenders.as_slice() {
        [] => None,
        [(name, kind)] => {
            Some(format!("{title} (volume {name} uses restricted volume type {kind:?})"))
        }
        many => {
            let names: Vec<&str> = many.iter().map(|(name, _)| name.as_str()).collect();
            let mut kinds: Vec<String> = many.iter().map(|(_, kind)| format!("{kind:?}")).collect();
            kinds.sort();
            kinds.dedup();
            let kinds = kinds.join(", ");
            Some(format!(
                "{title} (volumes {} use restricted volume types {kinds})",
                names.join(", ")
            ))
        }
    }
}

fn runs_as_root(spec: &Value) -> Option<String> {
    let title = "runAsNonRoot != true";
    let set = |holder: &Value| context(holder, &["runAsNonRoot"]).and_then(Value::as_bool);
    let explicit = containers(spec).filter(|c| set(c) == Some(false));
    let rule = "must not set securityContext.runAsNonRoot=false";
    if let refused @ Some(_) = of_containers(title, explicit, rule) {
        return refused;
    }
    if set(spec) == Some(true) {
        return None;
    }
    or_containers(
        title,
        containers(spec).filter(|c| set(c) != Some(true)),
        "must set securityContext.runAsNonRoot=true",
    )
}

fn root_user(spec: &Value) -> Option<String> {
    let is_root =
        |holder: &Value| context(holder, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    let rule = "must not set runAsUser=0";
    if is_root(spec) {
        return Some(format!("runAsUser=0 (pod {rule})"));
    }
    of_containers("runAsUser=0", containers(spec).filter(|c| is_root(c)), rule)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn a_plain_pod_is_fine_for_baseline_and_misses_restricted() {
        let plain = pod(json!({"containers": [{"name": "c"}]}));
        assert!(violations(&plain, Level::Baseline).is_empty());
        assert_eq!(
            violations(&plain, Level::Restricted),
            [
                "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
                "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])",
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
                "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ]
        );
    }

    #[test]
    fn a_careful_pod_passes_everything() {
        let careful = pod(json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
        }));
        assert!(violations(&careful, Level::Restricted).is_empty());
    }

    #[test]
    fn baseline_refuses_what_reaches_the_node() {
        let cases = [
            (
                json!({"hostNetwork": true, "hostPID": true}),
                "host namespaces (hostNetwork=true, hostPID=true)",
            ),
            (
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                "hostPath volumes (volume \"v\")",
            ),
            (
                json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}),
                "hostPort (container \"c\" uses hostPort 80)",
            ),
            (
                json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
                "privileged (container \"c\" must not set securityContext.privileged=true)",
            ),
            (
                json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}]}),
                "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(violations(&pod(spec.clone()), Level::Baseline), [expected], "{spec}");
            assert!(violations(&pod(spec), Level::Privileged).is_empty());
        }
    }

    #[test]
    fn restricted_refuses_foreign_volumes_and_root() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "n", "nfs": {}}],
            "containers": [{"name": "c", "securityContext": {
                "runAsUser": 0, "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["CHOWN"]},
            }}],
        });
        assert_eq!(
            violations(&pod(spec), Level::Restricted),
            [
                "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
                "restricted volume types (volume \"n\" uses restricted volume type \"nfs\")",
                "runAsUser=0 (container \"c\" must not set runAsUser=0)",
            ]
        );
    }
}
