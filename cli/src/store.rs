//! `pintle store`: the store alone, under etcd's flags, `ETCD_*` variables and config file.
//!
//! A value comes from the command line, else from the variable, else from the file, else it is
//! etcd's default. Flags of etcd that have no meaning here are accepted and named once in the log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::signals;

/// The etcd version whose behaviour the store has.
const ETCD_VERSION: &str = "3.7.1";

/// A flag with etcd's name and default.
struct Flag {
    name: &'static str,
    default: &'static str,
    help: &'static str,
}

const fn flag(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, default, help }
}

/// The flags that are read, in the order of etcd's own help.
const FLAGS: &[Flag] = &[
    flag("name", "default", "Human-readable name for this member"),
    flag("data-dir", "", "Path to the data directory (default ${name}.etcd)"),
    flag("snapshot-count", "10000", "Applied entries between two snapshots"),
    flag("heartbeat-interval", "100", "Milliseconds between two heartbeats"),
    flag("election-timeout", "1000", "Milliseconds without a heartbeat before an election"),
    flag("listen-peer-urls", "http://localhost:2380", "Where to listen for peers"),
    flag("listen-client-urls", "http://localhost:2379", "Where to listen for clients"),
    flag("initial-advertise-peer-urls", "http://localhost:2380", "Peer URLs to tell the cluster"),
    flag("initial-cluster", "", "All members, as name=peer-url"),
    flag("initial-cluster-state", "new", "new or existing"),
    flag("initial-cluster-token", "etcd-cluster", "Tells clusters apart during bootstrap"),
    flag("advertise-client-urls", "http://localhost:2379", "Client URLs to tell the cluster"),
    flag("max-request-bytes", "1572864", "The largest request, in bytes"),
    flag("max-txn-ops", "128", "The most operations in one transaction"),
    flag("cert-file", "", "Certificate for clients"),
    flag("key-file", "", "Key for clients"),
    flag("client-cert-auth", "false", "Ask clients for a certificate"),
    flag("trusted-ca-file", "", "Who signed the clients' certificates"),
    flag("peer-cert-file", "", "Certificate for peers"),
    flag("peer-key-file", "", "Key for peers"),
    flag("peer-client-cert-auth", "false", "Ask peers for a certificate"),
    flag("peer-trusted-ca-file", "", "Who signed the peers' certificates"),
    flag("listen-metrics-urls", "", "Where to serve metrics as plain HTTP"),
];

/// Flags of etcd that have no meaning here, or none yet.
const ACCEPTED: &[&str] = &[
    "wal-dir",
    "snapshot-catchup-entries",
    "max-snapshots",
    "max-wals",
    "quota-backend-bytes",
    "backend-bbolt-freelist-type",
    "backend-batch-interval",
    "backend-batch-limit",
    "pre-vote",
    "strict-reconfig-check",
    "enable-grpc-gateway",
    "log-level",
    "log-format",
    "logger",
    "log-outputs",
    "auto-compaction-retention",
    "auto-compaction-mode",
    "enable-pprof",
    "max-concurrent-streams",
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "warning-apply-duration",
    "warning-unary-request-duration",
];

/// The flags as they were given; the config file is read when the store starts.
#[derive(Debug)]
pub(crate) struct Options {
    given: BTreeMap<&'static str, String>,
    ignored: Vec<&'static str>,
    config_file: Option<PathBuf>,
    version: bool,
}

impl Args for Options {
    fn augment_args(command: clap::Command) -> clap::Command {
        let mut command = command
            .disable_version_flag(true)
            .arg(
                Arg::new("version")
                    .long("version")
                    .action(ArgAction::SetTrue)
                    .help("Print the version and exit"),
            )
            .arg(
                Arg::new("config-file")
                    .long("config-file")
                    .env("ETCD_CONFIG_FILE")
                    .help("YAML file with flags as keys; other flags are ignored then"),
            );
        for flag in FLAGS {
            let mut arg = Arg::new(flag.name)
                .long(flag.name)
                .env(variable(flag.name))
                .help(flag.help)
                .num_args(0..=1)
                .require_equals(false)
                .default_missing_value("true");
            if !flag.default.is_empty() {
                arg = arg.default_value(flag.default);
            }
            command = command.arg(arg);
        }
        for name in ACCEPTED {
            command = command.arg(
                Arg::new(*name)
                    .long(*name)
                    .env(variable(name))
                    .hide(true)
                    .num_args(0..=1)
                    .default_missing_value("true"),
            );
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// `ETCD_LISTEN_PEER_URLS` for `listen-peer-urls`; kept for the life of the process.
fn variable(flag: &str) -> &'static str {
    Box::leak(format!("ETCD_{}", flag.to_uppercase().replace('-', "_")).into_boxed_str())
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |name: &str| matches.get_one::<String>(name).cloned();
        let set = |name: &str| {
            !matches!(matches.value_source(name), None | Some(ValueSource::DefaultValue))
        };
        let given = FLAGS
            .iter()
            .filter(|flag| set(flag.name))
            .filter_map(|flag| Some((flag.name, value(flag.name)?)))
            .collect();
        Ok(Self {
            given,
            ignored: ACCEPTED.iter().copied().filter(|name| set(name)).collect(),
            config_file: value("config-file").map(PathBuf::from),
            version: matches.get_flag("version"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the store until SIGTERM.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if options.version {
        println!("pintle {}", env!("CARGO_PKG_VERSION"));
        println!("etcd Version: {ETCD_VERSION}");
        return Ok(());
    }
    let shutdown = signals::shutdown_token()?;
    if !options.ignored.is_empty() {
        tracing::info!(flags = options.ignored.join(", "), "accepted without effect");
    }
    let values = match &options.config_file {
        Some(path) => from_file(path)?,
        None => options.given,
    };
    let member = pintle_store::start(config(&Values(values))?).await?;
    let serve = async {
        member.ready().await;
        println!("ready to serve client requests");
        std::future::pending::<()>().await;
    };
    let failure = tokio::select! {
        () = serve => None,
        () = shutdown.cancelled() => None,
        reason = member.failed() => Some(reason),
    };
    member.shutdown().await;
    failure.map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
}

/// A config file takes the place of all flags, as in etcd. Sections of etcd's YAML
/// (`client-transport-security`, `peer-transport-security`) are flattened into the flags' names.
fn from_file(path: &PathBuf) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let yaml: BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    let mut values = BTreeMap::new();
    for (key, value) in yaml {
        let prefix = match key.as_str() {
            "client-transport-security" => "",
            "peer-transport-security" => "peer-",
            _ => {
                insert_known(&mut values, &key, &value);
                continue;
            }
        };
        for (key, value) in value.as_object().into_iter().flatten() {
            insert_known(&mut values, &format!("{prefix}{key}"), value);
        }
    }
    Ok(values)
}

fn insert_known(values: &mut BTreeMap<&'static str, String>, key: &str, value: &serde_json::Value) {
    let Some(flag) = FLAGS.iter().find(|flag| flag.name == key) else {
        tracing::info!(key, "accepted without effect");
        return;
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.insert(flag.name, text);
}

/// What was given, over etcd's defaults.
struct Values(BTreeMap<&'static str, String>);

impl Values {
    fn text(&self, name: &str) -> &str {
        let default = FLAGS.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default);
        self.0.get(name).map_or(default, String::as_str)
    }

    fn list(&self, name: &str) -> Vec<String> {
        let parts = self.text(name).split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn number<T>(&self, name: &str) -> anyhow::Result<T>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let text = self.text(name);
        text.parse().with_context(|| format!("invalid value {text:?} for flag --{name}"))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn tls(&self, prefix: &str) -> anyhow::Result<Option<pintle_store::TlsFiles>> {
        let name = |suffix: &str| format!("{prefix}{suffix}");
        let pair = (self.path(&name("cert-file")), self.path(&name("key-file")));
        let verify = self.text(&name("client-cert-auth")) == "true";
        let ca = self.path(&name("trusted-ca-file"));
        match pair {
            (Some(cert), Some(key)) => {
                if verify && ca.is_none() {
                    bail!("--{prefix}client-cert-auth needs --{prefix}trusted-ca-file");
                }
                Ok(Some(pintle_store::TlsFiles { cert, key, ca: ca.filter(|_| verify) }))
            }
            (None, None) => Ok(None),
            _ => bail!("--{prefix}cert-file and --{prefix}key-file go together"),
        }
    }
}

fn config(values: &Values) -> anyhow::Result<pintle_store::Config> {
    let name = values.text("name").to_owned();
    let peers = values.list("initial-advertise-peer-urls");
    let data_dir = values.path("data-dir").unwrap_or_else(|| format!("{name}.etcd").into());
    let mut initial_cluster = Vec::new();
    for entry in values.list("initial-cluster") {
        let (name, url) = entry
            .split_once('=')
            .with_context(|| format!("--initial-cluster: {entry:?} is not name=peer-url"))?;
        initial_cluster.push((name.to_owned(), url.to_owned()));
    }
    if initial_cluster.is_empty() {
        initial_cluster = peers.iter().map(|url| (name.clone(), url.clone())).collect();
    }
    let metrics_listen = match values.list("listen-metrics-urls").first() {
        None => None,
        Some(url) => {
            let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
            let address = address.replace("localhost", "127.0.0.1");
            Some(address.parse().with_context(|| format!("--listen-metrics-urls {url}"))?)
        }
    };
    let initial_cluster_existing = match values.text("initial-cluster-state") {
        "new" => false,
        "existing" => true,
        other => bail!("unexpected value for --initial-cluster-state: {other:?}"),
    };
    Ok(pintle_store::Config {
        data_dir,
        listen_client_urls: values.list("listen-client-urls"),
        advertise_client_urls: values.list("advertise-client-urls"),
        listen_peer_urls: values.list("listen-peer-urls"),
        initial_advertise_peer_urls: peers,
        initial_cluster,
        initial_cluster_token: values.text("initial-cluster-token").to_owned(),
        initial_cluster_existing,
        client_tls: values.tls("")?,
        peer_tls: values.tls("peer-")?,
        heartbeat_ms: values.number("heartbeat-interval")?,
        election_ms: values.number("election-timeout")?,
        snapshot_count: values.number("snapshot-count")?,
        max_request_bytes: values.number("max-request-bytes")?,
        max_txn_ops: values.number("max-txn-ops")?,
        metrics_listen,
        name,
        ..pintle_store::Config::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        let command = Options::augment_args(clap::Command::new("store"));
        let matches = command.get_matches_from([&["store"], arguments].concat());
        Options::from_arg_matches(&matches).expect("parses")
    }

    #[test]
    fn defaults_are_those_of_etcd() {
        let config = config(&Values(parse(&[]).given)).expect("defaults");
        assert_eq!(config.name, "default");
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.listen_client_urls, ["http://localhost:2379"]);
        assert_eq!(config.initial_cluster, [("default".into(), "http://localhost:2380".into())]);
        assert_eq!(config.max_request_bytes, 1_572_864);
    }

    #[test]
    fn a_bare_switch_is_true_and_needs_its_authority() {
        let given = parse(&["--cert-file=a", "--key-file=b", "--client-cert-auth"]).given;
        let error = config(&Values(given)).expect_err("no authority");
        assert!(error.to_string().contains("trusted-ca-file"), "{error}");
    }

    #[test]
    fn flags_without_meaning_are_remembered() {
        assert_eq!(parse(&["--max-wals", "5"]).ignored, ["max-wals"]);
    }
}
