use super::*;
use crate::store::flags::FLAGS;

fn values(given: &[(&'static str, &str)]) -> Values {
    Values(given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

fn built(given: &[(&'static str, &str)]) -> Config {
    build(&values(given)).expect("valid")
}

fn refusal(given: &[(&'static str, &str)]) -> String {
    format!("{:#}", build(&values(given)).expect_err("refused"))
}

#[test]
fn defaults_are_those_of_etcd() {
    let config = built(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.listen_client_urls, ["http://localhost:2379"]);
    assert_eq!(config.initial_cluster, [("default".into(), "http://localhost:2380".into())]);
    assert_eq!(config.max_request_bytes, 1_572_864);
    assert_eq!(config.max_txn_ops, 128);
    assert_eq!((config.auth_token.as_str(), config.bcrypt_cost), ("simple", 10));
    assert_eq!(config.auth_token_ttl, Duration::from_secs(300));
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.max_learners, 1);
    assert!(config.pre_vote && config.strict_reconfig_check);
    assert!(!config.unsafe_no_fsync && !config.force_new_cluster);
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.watch_progress_interval, Duration::from_secs(600));
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.corrupt_check_time, Duration::ZERO);
    assert_eq!(config.compact_hash_check_time, None);
    assert!(config.web.pprof.is_none());
}

#[test]
fn tokens_and_passwords_are_made_as_the_flags_say() {
    let jwt = "jwt,sign-method=ES256,priv-key=k";
    let given = [("auth-token", jwt), ("auth-token-ttl", "60"), ("bcrypt-cost", "4")];
    let config = built(&given);
    assert_eq!((config.auth_token.as_str(), config.bcrypt_cost), (jwt, 4));
    assert_eq!(config.auth_token_ttl, Duration::from_secs(60));
    let default = built(&[("auth-token-ttl", "0")]).auth_token_ttl;
    assert_eq!(default, Duration::from_secs(300));
    assert!(refusal(&[("bcrypt-cost", "hard")]).contains("--bcrypt-cost"));
}

/// A flag whose value is not read would pass here with the default's configuration.
#[test]
fn every_flag_has_a_reader() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().to_str().expect("text").to_owned();
    let other = |name: &str| match name {
        "initial-cluster-state" => "existing",
        "initial-cluster" => "a=http://a:1",
        "listen-metrics-urls" => "http://127.0.0.1:1",
        "auto-compaction-mode" => "revision",
        "tls-min-version" => "TLS1.3",
        "tls-max-version" => "TLS1.2",
        "cipher-suites" => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "feature-gates" => "InitialCorruptCheck=true",
        "strict-reconfig-check" | "pre-vote" | "enable-grpc-gateway" => "false",
        "metrics" => "extensive",
        "grpc-keepalive-interval"
        | "grpc-keepalive-timeout"
        | "grpc-keepalive-min-time"
        | "warning-unary-request-duration"
        | "corrupt-check-time"
        | "compact-hash-check-time"
        | "watch-progress-notify-interval" => "7s",
        "election-timeout" => "700",
        "auto-compaction-retention" | "self-signed-cert-validity" => "7",
        _ => "77",
    };
    // These change something only together with others.
    let with = |name: &str| -> Vec<(&'static str, &'static str)> {
        match name {
            "cert-file" => vec![("key-file", "k")],
            "key-file" => vec![("cert-file", "c")],
            "client-cert-auth" | "trusted-ca-file" => {
                vec![("cert-file", "c"), ("key-file", "k"), ("trusted-ca-file", "t")]
            }
            "peer-cert-file" => vec![("peer-key-file", "k")],
            "peer-key-file" => vec![("peer-cert-file", "c")],
            "peer-client-cert-auth" | "peer-trusted-ca-file" => {
                vec![("peer-cert-file", "c"), ("peer-key-file", "k"), ("peer-trusted-ca-file", "t")]
            }
            "peer-client-cert-file" => vec![("peer-client-key-file", "k")],
            "peer-client-key-file" => vec![("peer-client-cert-file", "c")],
            "auto-compaction-mode" => vec![("auto-compaction-retention", "5")],
            "listen-client-urls" => vec![("advertise-client-urls", "http://a:1")],
            "compact-hash-check-time" => vec![("feature-gates", "CompactHashCheck=true")],
            _ => Vec::new(),
        }
    };
    let logging = ["log-level", "log-format", "log-outputs"];
    // Told by their own tests: a bare switch, a version that contradicts, a made certificate.
    let elsewhere = [
        "client-cert-auth",
        "peer-client-cert-auth",
        "tls-max-version",
        "self-signed-cert-validity",
    ];
    for flag in FLAGS {
        if logging.contains(&flag.name) || elsewhere.contains(&flag.name) {
            continue;
        }
        let mut base = vec![("data-dir", data.as_str())];
        base.extend(with(flag.name).into_iter().filter(|(name, _)| *name != flag.name));
        let before = format!("{:?}", build(&values(&base)).ok());
        let value = if flag.switch && flag.default == "false" { "true" } else { other(flag.name) };
        base.retain(|(name, _)| *name != flag.name);
        base.push((flag.name, value));
        let after = format!("{:?}", build(&values(&base)).ok());
        assert_ne!(before, after, "--{} changes nothing", flag.name);
    }
}

#[test]
fn contradictions_are_refused_in_etcds_words() {
    for (given, expected) in [
        (&[("listen-client-urls", "http://a:1")][..], "--advertise-client-urls is required"),
        (&[("heartbeat-interval", "200")][..], "should be at least as 5 times"),
        (&[("election-timeout", "60000")][..], "is too long"),
        (&[("initial-cluster-state", "old")][..], "unexpected value for --initial-cluster-state"),
        (&[("snapshot-count", "many")][..], "invalid value \"many\" for flag --snapshot-count"),
        (&[("pre-vote", "perhaps")][..], "invalid boolean value"),
        (&[("auto-compaction-mode", "often")][..], "unknown auto-compaction-mode"),
        (&[("feature-gates", "Magic=true")][..], "unrecognized feature gate"),
        (&[("cert-file", "c")][..], "must both be present"),
        (
            &[("cert-file", "c"), ("key-file", "k"), ("client-cert-auth", "true")][..],
            "needs --trusted-ca-file",
        ),
        (&[("tls-min-version", "TLS1.1")][..], "unexpected TLS version"),
        (&[("tls-min-version", "TLS1.3"), ("tls-max-version", "TLS1.2")][..], "min version"),
        (&[("cipher-suites", "TLS_RSA_WITH_RC4_128_SHA")][..], "unexpected TLS cipher suite"),
        (
            &[("peer-cert-allowed-cn", "a"), ("peer-cert-allowed-hostname", "b")][..],
            "mutually exclusive",
        ),
        (&[("initial-cluster", "nonsense")][..], "is not name=peer-url"),
    ] {
        let text = refusal(given);
        assert!(text.contains(expected), "{given:?}: {text}");
    }
}

#[test]
fn retention_is_hours_or_a_duration_or_revisions() {
    let mode = |mode, retention| {
        built(&[("auto-compaction-mode", mode), ("auto-compaction-retention", retention)])
            .auto_compaction
    };
    let periodic = |seconds| Some(AutoCompaction::Periodic(Duration::from_secs(seconds)));
    assert_eq!(mode("periodic", "2"), periodic(7_200));
    assert_eq!(mode("periodic", "5m"), periodic(300));
    assert_eq!(mode("periodic", "0"), None);
    assert_eq!(mode("revision", "1000"), Some(AutoCompaction::Revision(1_000)));
    assert_eq!(mode("revision", "0"), None);
}

#[test]
fn a_certificate_is_made_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().to_str().expect("text");
    let config = built(&[
        ("data-dir", data),
        ("auto-tls", "true"),
        ("peer-auto-tls", "true"),
        ("self-signed-cert-validity", "3"),
    ]);
    assert!(dir.path().join("fixtures/client/cert.pem").exists());
    assert!(dir.path().join("fixtures/peer/key.pem").exists());
    assert!(config.client_tls.is_some() && config.peer_tls.is_some());
    assert!(config.peer_tls_policy.trust_any_server);
    let zero = [("data-dir", data), ("auto-tls", "true"), ("self-signed-cert-validity", "0")];
    assert!(refusal(&zero).contains("selfSignedCertValidity"));
}

#[test]
fn gates_may_also_be_given_under_their_old_names() {
    let old = built(&[
        ("experimental-compact-hash-check-enabled", "true"),
        ("experimental-initial-corrupt-check", "true"),
    ]);
    let new = built(&[("feature-gates", "CompactHashCheck=true,InitialCorruptCheck=true")]);
    for config in [old, new] {
        assert_eq!(config.compact_hash_check_time, Some(Duration::from_secs(60)));
        assert!(config.initial_corrupt_check);
    }
}
