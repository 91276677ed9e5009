//! `pintle store`: the store alone, under etcd's flags, `ETCD_*` variables and config file; and what
//! else there is to do with a store's data.

mod check;
mod config;
mod dump;
mod duration;
mod endpoint;
mod file;
mod flags;
mod heap;
mod logging;
mod migrate;
mod output;
mod snapshot;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};

use self::flags::{ACCEPTED, FLAGS, REFUSED, Values};
use crate::signals;

/// What to do with a store's data, instead of serving it.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Save, look at and restore snapshots.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Walk the data of a stopped member, or a snapshot, against all that must hold.
    Check(check::Options),
    /// Copy a live etcd (or pintle store) into this one: keys, leases, users and roles.
    Migrate(migrate::Options),
    /// Tell what a stopped member, or a snapshot, holds.
    Dump(dump::Options),
}

/// The flags as they were given; the config file is read when the store starts.
#[derive(Debug)]
pub(crate) struct Options {
    values: Values,
    accepted: Vec<&'static str>,
    refused: Vec<&'static str>,
    config_file: Option<PathBuf>,
    version: bool,
    command: Option<Command>,
}

impl Args for Options {
    fn augment_args(command: clap::Command) -> clap::Command {
        let version = Arg::new("version").long("version").action(ArgAction::SetTrue);
        let config = Arg::new("config-file").long("config-file");
        let mut command = command
            .disable_version_flag(true)
            .after_help("Each flag may also be given as a variable: ETCD_DATA_DIR for --data-dir.")
            .arg(version.help("Print the version and exit"))
            .arg(config.help("YAML file with flags as keys; takes the place of all other flags"));
        for flag in FLAGS {
            let mut arg = Arg::new(flag.name).long(flag.name).help(help(flag));
            arg = match flag.switch {
                true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                false => arg.num_args(1).allow_hyphen_values(true),
            };
            if let Some(name) = flags::experimental_name(flag) {
                // Kept for the life of the process, like the table itself.
                arg = arg.alias(&*Box::leak(name.into_boxed_str()));
            }
            command = command.arg(arg);
        }
        for name in ACCEPTED.iter().chain(REFUSED) {
            let arg = Arg::new(*name).long(*name).hide(true);
            command = command.arg(arg.num_args(0..=1).default_missing_value("true"));
        }
        Command::augment_subcommands(command).subcommand_required(false)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn help(flag: &flags::Flag) -> String {
    if flag.default.is_empty() {
        return flag.help.to_owned();
    }
    format!("{} [default: {}]", flag.help, flag.default)
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |name: &str| matches.get_one::<String>(name).cloned();
        let given = FLAGS.iter().filter_map(|flag| Some((flag.name, value(flag.name)?)));
        let set = |names: &[&'static str]| {
            let set = names.iter().copied().filter(|name| value(name).is_some());
            set.collect::<Vec<_>>()
        };
        Ok(Self {
            values: Values(given.collect()),
            accepted: set(ACCEPTED),
            refused: set(REFUSED),
            config_file: value("config-file").map(PathBuf::from),
            version: matches.get_flag("version"),
            command: match matches.subcommand() {
                Some(_) => Some(Command::from_arg_matches(matches)?),
                None => None,
            },
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Serves until SIGTERM, or does what the subcommand says.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Some(Command::Snapshot(command)) => snapshot::run(command).await,
        Some(Command::Check(options)) => check::run(&options),
        Some(Command::Migrate(options)) => migrate::run(options).await,
        Some(Command::Dump(options)) => dump::run(&options),
        None if options.version => {
            println!("pintle {}", env!("CARGO_PKG_VERSION"));
            println!("etcd Version: {}", pintle_store::VERSION);
            Ok(())
        }
        None => serve(options).await,
    }
}

/// Whether this starts a member, whose flags say where its log goes.
pub(crate) fn logs_itself(options: &Options) -> bool {
    options.command.is_none() && !options.version
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let file = options.config_file.or_else(|| variable("ETCD_CONFIG_FILE").map(PathBuf::from));
    let mut values = options.values;
    match &file {
        Some(path) => values = file::read(path)?,
        None => values.or_environment(variable),
    }
    logging::start(&values)?;
    if !options.accepted.is_empty() {
        tracing::info!(flags = options.accepted.join(", "), "accepted without effect");
    }
    if let Some(flag) = options.refused.first() {
        bail!("--{flag} is not supported: name the members with --initial-cluster");
    }
    let shutdown = signals::shutdown_token()?;
    let config = config::build(&values)?;
    if config.web.pprof.is_some() {
        heap::start_sampling().await;
    }
    let member = pintle_store::start(config).await.context("starting the member")?;
    let serve = async {
        member.ready().await;
        tracing::info!("ready to serve client requests");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(clap::Command::new("store"));
        let matches = command.try_get_matches_from([&["store"], arguments].concat())?;
        Options::from_arg_matches(&matches)
    }

    #[test]
    fn flags_are_read_as_etcd_reads_them() {
        let arguments = ["--name", "m1", "--pre-vote=false", "--force-new-cluster"];
        let options = parse(&arguments).expect("parses");
        assert_eq!(options.values.text("name"), "m1");
        assert_eq!(options.values.text("pre-vote"), "false");
        assert_eq!(options.values.text("force-new-cluster"), "true");
        let negative = parse(&["--quota-backend-bytes", "-1"]).expect("parses");
        assert_eq!(negative.values.text("quota-backend-bytes"), "-1");
        let old = parse(&["--experimental-watch-progress-notify-interval=5s"]).expect("parses");
        assert_eq!(old.values.text("watch-progress-notify-interval"), "5s");
    }

    #[test]
    fn flags_without_meaning_are_remembered() {
        assert_eq!(parse(&["--max-wals", "5"]).expect("parses").accepted, ["max-wals"]);
        assert_eq!(parse(&["--enable-v2"]).expect("parses").accepted, ["enable-v2"]);
        assert_eq!(parse(&["--discovery-srv=x"]).expect("parses").refused, ["discovery-srv"]);
    }

    #[test]
    fn an_unknown_flag_ends_with_2() {
        let error = parse(&["--no-such-flag"]).expect_err("unknown");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_subcommand_is_no_member() {
        let options = parse(&["snapshot", "status", "file"]).expect("parses");
        assert!(matches!(options.command, Some(Command::Snapshot(_))));
        assert!(!logs_itself(&options));
        assert!(logs_itself(&parse(&[]).expect("parses")));
    }
}
