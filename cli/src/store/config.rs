//! From flags to the store's configuration, with etcd's refusals.

mod security;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use pintle_store::{AutoCompaction, Config, DiskConfig, HttpLimits, Pprof, WebConfig};

use super::flags::Values;
use super::{duration, heap};

impl Values {
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let parts = self.text(name).split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn number<T>(&self, name: &str) -> anyhow::Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let text = self.text(name);
        text.parse().with_context(|| format!("invalid value {text:?} for flag --{name}"))
    }

    pub(super) fn switch(&self, name: &str) -> anyhow::Result<bool> {
        match self.text(name) {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            text => bail!("invalid boolean value {text:?} for flag --{name}"),
        }
    }

    pub(super) fn duration(&self, name: &str) -> anyhow::Result<Duration> {
        let text = self.text(name);
        duration::parse(text).with_context(|| format!("invalid value {text:?} for flag --{name}"))
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }
}

/// The configuration of a member.
pub(super) fn build(values: &Values) -> anyhow::Result<Config> {
    let name = values.text("name").to_owned();
    let data_dir = values.path("data-dir").unwrap_or_else(|| format!("{name}.etcd").into());
    if values.is_given("listen-client-urls") && !values.is_given("advertise-client-urls") {
        bail!("--advertise-client-urls is required when --listen-client-urls is set explicitly");
    }
    let (heartbeat_ms, election_ms) = timing(values)?;
    let security = security::read(values, &data_dir)?;
    let gates = gates(values)?;
    let existing = match values.text("initial-cluster-state") {
        "new" => false,
        "existing" => true,
        other => bail!("unexpected value for --initial-cluster-state: {other:?}"),
    };
    Ok(Config {
        wal_dir: values.path("wal-dir"),
        memory: pintle_store::MemoryLimit::of_this_process(),
        listen_client_urls: values.list("listen-client-urls"),
        advertise_client_urls: values.list("advertise-client-urls"),
        listen_peer_urls: values.list("listen-peer-urls"),
        initial_advertise_peer_urls: values.list("initial-advertise-peer-urls"),
        initial_cluster: initial_cluster(values)?,
        initial_cluster_token: values.text("initial-cluster-token").to_owned(),
        initial_cluster_existing: existing,
        client_tls: security.client,
        peer_tls: security.peer,
        client_tls_policy: security.client_policy,
        peer_tls_policy: security.peer_policy,
        http: HttpLimits {
            concurrent_streams_max: values.number("max-concurrent-streams")?,
            keepalive_interval: values.duration("grpc-keepalive-interval")?,
            keepalive_timeout: values.duration("grpc-keepalive-timeout")?,
            keepalive_min_time: values.duration("grpc-keepalive-min-time")?,
        },
        heartbeat_ms,
        election_ms,
        snapshot_count: values.number("snapshot-count")?,
        snapshot_catchup_entries: values.number("snapshot-catchup-entries")?,
        max_request_bytes: values.number("max-request-bytes")?,
        max_txn_ops: values.number("max-txn-ops")?,
        auth_token: values.text("auth-token").to_owned(),
        auth_token_ttl: auth_token_ttl(values)?,
        bcrypt_cost: values.number("bcrypt-cost")?,
        metrics_listen: metrics(values)?,
        web: web(values)?,
        max_learners: values.number("max-learners")?,
        watch_progress_interval: values.duration("watch-progress-notify-interval")?,
        auto_compaction: auto_compaction(values)?,
        warning_unary_request_duration: values.duration("warning-unary-request-duration")?,
        pre_vote: values.switch("pre-vote")?,
        strict_reconfig_check: values.switch("strict-reconfig-check")?,
        unsafe_no_fsync: values.switch("unsafe-no-fsync")?,
        force_new_cluster: values.switch("force-new-cluster")?,
        quota_backend_bytes: values.number("quota-backend-bytes")?,
        disk: disk(values)?,
        corrupt_check_time: values.duration("corrupt-check-time")?,
        compact_hash_check_time: match gates.compact_hash_check {
            true => Some(values.duration("compact-hash-check-time")?),
            false => None,
        },
        initial_corrupt_check: gates.initial_corrupt_check,
        name,
        data_dir,
        ..Config::default()
    })
}

fn web(values: &Values) -> anyhow::Result<WebConfig> {
    let extensive_metrics = match values.text("metrics") {
        "basic" => false,
        "extensive" => true,
        other => bail!("unexpected value for --metrics: {other:?}"),
    };
    Ok(WebConfig {
        extensive_metrics,
        grpc_gateway: values.switch("enable-grpc-gateway")?,
        cors: values.list("cors"),
        host_whitelist: values.list("host-whitelist"),
        pprof: values.switch("enable-pprof")?.then_some(Pprof { heap: Some(heap::held) }),
    })
}

/// As in etcd, no time to live is the default one.
fn auth_token_ttl(values: &Values) -> anyhow::Result<Duration> {
    let seconds: u64 = values.number("auth-token-ttl")?;
    Ok(Duration::from_secs(if seconds == 0 { 300 } else { seconds }))
}

fn timing(values: &Values) -> anyhow::Result<(u64, u64)> {
    let (heartbeat, election): (u64, u64) =
        (values.number("heartbeat-interval")?, values.number("election-timeout")?);
    if heartbeat == 0 || election == 0 {
        bail!("--heartbeat-interval and --election-timeout must be >0");
    }
    if heartbeat * 5 > election {
        bail!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        );
    }
    if election > 50_000 {
        bail!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms");
    }
    Ok((heartbeat, election))
}

/// The list, or this member alone.
pub(super) fn initial_cluster(values: &Values) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in values.list("initial-cluster") {
        let (name, url) = entry
            .split_once('=')
            .with_context(|| format!("--initial-cluster: {entry:?} is not name=peer-url"))?;
        found.push((name.to_owned(), url.to_owned()));
    }
    if found.is_empty() {
        let urls = values.list("initial-advertise-peer-urls").into_iter();
        found.extend(urls.map(|url| (values.text("name").to_owned(), url)));
    }
    Ok(found)
}

fn metrics(values: &Values) -> anyhow::Result<Option<std::net::SocketAddr>> {
    let urls = values.list("listen-metrics-urls");
    let Some(url) = urls.first() else { return Ok(None) };
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let address = address.replace("localhost", "127.0.0.1");
    Ok(Some(address.parse().with_context(|| format!("--listen-metrics-urls {url}"))?))
}

/// A bare number is hours, or revisions, by the mode.
fn auto_compaction(values: &Values) -> anyhow::Result<Option<AutoCompaction>> {
    let text = values.text("auto-compaction-retention");
    let invalid = || format!("error parsing auto-compaction-retention {text:?}");
    match values.text("auto-compaction-mode") {
        "revision" => {
            let keep: i64 = text.parse().with_context(invalid)?;
            Ok((keep > 0).then_some(AutoCompaction::Revision(keep)))
        }
        "periodic" => {
            let period = match text.parse::<u64>() {
                Ok(hours) => Duration::from_secs(hours * 3_600),
                Err(_) => duration::parse(text).with_context(invalid)?,
            };
            Ok((!period.is_zero()).then_some(AutoCompaction::Periodic(period)))
        }
        other => bail!("unknown auto-compaction-mode {other:?}"),
    }
}

fn disk(values: &Values) -> anyhow::Result<DiskConfig> {
    let reserve_bytes = match values.text("disk-reserve-bytes") {
        "" => None,
        _ => Some(values.number("disk-reserve-bytes")?),
    };
    Ok(DiskConfig { reserve_bytes, ..DiskConfig::default() })
}

struct Gates {
    compact_hash_check: bool,
    initial_corrupt_check: bool,
}

/// etcd's gates. Those that only change how etcd works inside are accepted.
fn gates(values: &Values) -> anyhow::Result<Gates> {
    let mut gates = Gates {
        compact_hash_check: values.switch("experimental-compact-hash-check-enabled")?,
        initial_corrupt_check: values.switch("experimental-initial-corrupt-check")?,
    };
    for gate in values.list("feature-gates") {
        let (name, on) = gate
            .split_once('=')
            .with_context(|| format!("--feature-gates: missing bool value for {gate:?}"))?;
        let on: bool = on.parse().with_context(|| format!("--feature-gates: {gate:?}"))?;
        match name {
            "CompactHashCheck" => gates.compact_hash_check = on,
            "InitialCorruptCheck" => gates.initial_corrupt_check = on,
            "AllAlpha"
            | "AllBeta"
            | "StopGRPCServiceOnDefrag"
            | "TxnModeWriteWithSharedBuffer"
            | "LeaseCheckpoint"
            | "LeaseCheckpointPersist"
            | "SetMemberLocalAddr"
            | "FastLeaseKeepAlive"
            | "PriorityRequest" => {}
            _ => bail!("unrecognized feature gate: {name}"),
        }
    }
    Ok(gates)
}

#[cfg(test)]
mod tests;
