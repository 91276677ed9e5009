//! etcd's flags: one line each. A value comes from the command line, else from the `ETCD_*` variable,
//! else it is the default; a config file takes the place of all three.

use std::collections::BTreeMap;

/// A flag with etcd's name and default.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// A bare `--flag` means true, and its value needs a `=`.
    pub(super) switch: bool,
    /// What etcd called it while it was an experiment.
    pub(super) experimental: bool,
}

const fn text(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, default, help, switch: false, experimental: false }
}

const fn switch(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, default, help, switch: true, experimental: false }
}

/// One that is also known as `experimental-…`.
const fn once(flag: Flag) -> Flag {
    Flag { experimental: true, ..flag }
}

/// The flags that are read, in the order of etcd's own help.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    text("name", "default", "Human-readable name for this member"),
    text("data-dir", "", "Path to the data directory [default: ${name}.etcd]"),
    text("wal-dir", "", "Path to a directory of its own for the log"),
    text("snapshot-count", "10000", "Applied entries between two snapshots"),
    once(text("snapshot-catchup-entries", "5000", "Entries that stay in the log for slow followers")),
    text("heartbeat-interval", "100", "Milliseconds between two heartbeats"),
    text("election-timeout", "500", "Milliseconds without a heartbeat before an election"),
    text("listen-peer-urls", "http://localhost:2380", "Where to listen for peers"),
    text("listen-client-urls", "http://localhost:2379", "Where to listen for clients"),
    text("listen-metrics-urls", "", "Where to serve metrics as plain HTTP"),
    switch("enable-pprof", "false", "Serve profiles under /debug/pprof/ to clients and at the metrics URLs"),
    text("metrics", "basic", "basic, or extensive: how long the calls of each method take too"),
    switch("enable-grpc-gateway", "true", "Whether gRPC can be called with JSON"),
    text("cors", "*", "Origins of web pages that may call; *: all"),
    text("host-whitelist", "*", "Names to answer to without TLS; *: all"),
    text("quota-backend-bytes", "0", "Bytes of living keys and values that may be stored; 0: no limit"),
    text("disk-reserve-bytes", "", "Free disk below which NOSPACE is raised [default: 5 %, 512 MiB at most]"),
    text("auth-token", "simple", "Tokens of users: simple, or jwt,sign-method=…,priv-key=…,pub-key=…,ttl=…"),
    text("auth-token-ttl", "300", "Seconds that an unused simple token lives"),
    text("bcrypt-cost", "10", "How slow it is to hash a password, from 4 to 31"),
    text("max-txn-ops", "128", "The most operations in one transaction"),
    text("max-request-bytes", "1572864", "The largest request, in bytes"),
    text("max-concurrent-streams", "4294967295", "The most requests of one connection at a time"),
    text("grpc-keepalive-min-time", "5s", "Clients that test their connection more often lose it; 0s: they may"),
    text("grpc-keepalive-interval", "30s", "How often an idle connection is tested; 0s: never"),
    text("grpc-keepalive-timeout", "20s", "How long a tested connection may take to answer"),
    text("initial-advertise-peer-urls", "http://localhost:2380", "Peer URLs to tell the cluster"),
    text("initial-cluster", "", "All members, as name=peer-url"),
    text("initial-cluster-state", "new", "new or existing"),
    text("initial-cluster-token", "etcd-cluster", "Tells clusters apart during bootstrap"),
    text("advertise-client-urls", "http://localhost:2379", "Client URLs to tell the cluster"),
    switch("strict-reconfig-check", "true", "Refuse membership changes that endanger the quorum"),
    switch("pre-vote", "true", "Ask before standing for election"),
    text("auto-compaction-retention", "0", "What automatic compaction keeps: a duration, or revisions; 0: off"),
    text("auto-compaction-mode", "periodic", "periodic or revision"),
    once(text("max-learners", "1", "Learners at the same time")),
    text("cert-file", "", "Certificate for clients"),
    text("key-file", "", "Key for clients"),
    switch("client-cert-auth", "false", "Ask clients for a certificate"),
    text("trusted-ca-file", "", "Who signed the clients' certificates"),
    text("client-crl-file", "", "Client certificates that count no longer"),
    text("client-cert-allowed-hostname", "", "Host names of which a client's certificate must have one"),
    switch("auto-tls", "false", "Serve clients with a certificate that is made at the first start"),
    text("peer-cert-file", "", "Certificate for peers"),
    text("peer-key-file", "", "Key for peers"),
    text("peer-client-cert-file", "", "Certificate to show to peers, if not peer-cert-file"),
    text("peer-client-key-file", "", "Its key"),
    switch("peer-client-cert-auth", "false", "Ask peers for a certificate"),
    text("peer-trusted-ca-file", "", "Who signed the peers' certificates"),
    text("peer-crl-file", "", "Peer certificates that count no longer"),
    text("peer-cert-allowed-cn", "", "Common names of which a peer's certificate must have one"),
    text("peer-cert-allowed-hostname", "", "Host names of which a peer's certificate must have one"),
    switch("peer-auto-tls", "false", "Serve peers with a certificate that is made at the first start"),
    text("self-signed-cert-validity", "1", "Years for which such a certificate is valid"),
    text("cipher-suites", "", "The suites of TLS 1.2, by their IANA names"),
    text("tls-min-version", "TLS1.2", "TLS1.2 or TLS1.3"),
    text("tls-max-version", "", "TLS1.2 or TLS1.3"),
    text("log-level", "", "debug, info, warn, error, panic or fatal [default: info, or PINTLE_LOG]"),
    text("log-format", "", "json or console [default: console on a terminal]"),
    text("log-outputs", "default", "stderr, stdout, default, or files"),
    once(text("warning-unary-request-duration", "300ms", "Name requests that take longer in the log")),
    once(text("corrupt-check-time", "0s", "How often members compare their data; 0s: never")),
    once(text("compact-hash-check-time", "1m", "How often compactions are looked for to compare at")),
    text("feature-gates", "", "CompactHashCheck=true, InitialCorruptCheck=true"),
    switch("experimental-compact-hash-check-enabled", "false", "As CompactHashCheck"),
    switch("experimental-initial-corrupt-check", "false", "As InitialCorruptCheck"),
    once(text("watch-progress-notify-interval", "10m", "How often watchers are told how far they are")),
    switch("unsafe-no-fsync", "false", "Do without fsync; a crash of the machine loses data"),
    switch("force-new-cluster", "false", "Make this member a cluster of its own, the others being lost"),
];

/// Flags of etcd that have no meaning here, or none yet.
#[rustfmt::skip]
pub(super) const ACCEPTED: &[&str] = &[
    "max-snapshots", "max-wals", "backend-bbolt-freelist-type", "backend-batch-interval", "backend-batch-limit",
    "initial-election-tick-advance", "socket-reuse-port", "socket-reuse-address", "raft-read-timeout", "raft-write-timeout",
    "client-cert-file", "client-key-file", "peer-skip-client-san-verification",
    "logger", "enable-log-rotation", "log-rotation-config-json", "warning-apply-duration", "experimental-warning-apply-duration",
    "enable-distributed-tracing", "distributed-tracing-address", "distributed-tracing-service-name",
    "distributed-tracing-instance-id", "distributed-tracing-sampling-rate", "experimental-enable-distributed-tracing",
    "experimental-distributed-tracing-address", "experimental-distributed-tracing-service-name",
    "experimental-distributed-tracing-instance-id", "experimental-distributed-tracing-sampling-rate",
    "compaction-batch-limit", "experimental-compaction-batch-limit", "compaction-sleep-interval",
    "experimental-compaction-sleep-interval", "downgrade-check-time", "experimental-downgrade-check-time",
    "memory-mlock", "experimental-memory-mlock", "bootstrap-defrag-threshold-megabytes",
    "experimental-bootstrap-defrag-threshold-megabytes", "experimental-enable-lease-checkpoint",
    "experimental-enable-lease-checkpoint-persist", "experimental-txn-mode-write-with-shared-buffer",
    "experimental-stop-grpc-service-on-defrag", "v2-deprecation", "enable-v2",
    "listen-client-http-urls",
];

/// Ways to find the other members that are not offered.
pub(super) const REFUSED: &[&str] =
    &["discovery", "discovery-token", "discovery-endpoints", "discovery-srv", "discovery-srv-name"];

/// The switches among [`ACCEPTED`] are many: all of them take a bare name for true.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    let short = name.strip_prefix("experimental-");
    FLAGS.iter().find(|flag| flag.name == name || (flag.experimental && Some(flag.name) == short))
}

/// `ETCD_LISTEN_PEER_URLS` for `listen-peer-urls`.
pub(super) fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_uppercase().replace('-', "_"))
}

/// What was given, over the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values(pub(super) BTreeMap<&'static str, String>);

impl Values {
    /// Whether somebody gave this one.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn text(&self, name: &str) -> &str {
        let default = || find(name).map_or("", |flag| flag.default);
        self.0.get(name).map_or_else(default, String::as_str)
    }

    /// Takes what the variables say where the command line says nothing.
    pub(super) fn or_environment(&mut self, read: impl Fn(&str) -> Option<String>) {
        for flag in FLAGS {
            let names = [Some(flag.name.to_owned()), experimental_name(flag)];
            let found = names.into_iter().flatten().find_map(|name| read(&variable(&name)));
            if let Some(value) = found
                && !self.is_given(flag.name)
            {
                self.0.insert(flag.name, value);
            }
        }
    }
}

pub(super) fn experimental_name(flag: &Flag) -> Option<String> {
    flag.experimental.then(|| format!("experimental-{}", flag.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_listed_twice() {
        let mut names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        names.extend(ACCEPTED.iter().chain(REFUSED));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_variable_counts_less_than_the_flag_and_more_than_the_default() {
        let mut values = Values::default();
        values.0.insert("name", "from-flag".to_owned());
        values.or_environment(|name| match name {
            "ETCD_NAME" => Some("from-variable".to_owned()),
            "ETCD_MAX_TXN_OPS" => Some("7".to_owned()),
            "ETCD_EXPERIMENTAL_MAX_LEARNERS" => Some("3".to_owned()),
            _ => None,
        });
        assert_eq!(values.text("name"), "from-flag");
        assert_eq!(values.text("max-txn-ops"), "7");
        assert_eq!(values.text("max-learners"), "3");
        assert_eq!(values.text("snapshot-count"), "10000");
    }
}
