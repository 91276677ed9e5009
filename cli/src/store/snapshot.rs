//! `pintle store snapshot`: saves the state of a running member to a file, tells what such a file
//! holds, and makes it the data of a new cluster.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pintle_proto::etcdserverpb::SnapshotRequest;
use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use pintle_store::archive::Archive;
use pintle_store::{Config, Restore};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::config::initial_cluster;
use super::endpoint;
use super::flags::Values;
use super::output::{self, Format};

/// What to do with snapshots.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Save the state of a running member.
    Save {
        /// The new file.
        file: PathBuf,
        #[command(flatten)]
        endpoint: endpoint::Options,
    },
    /// Tell what a snapshot holds.
    Status {
        /// The snapshot.
        file: PathBuf,
        /// How to tell it.
        #[arg(
            short = 'o',
            long,
            alias = "write-out",
            short_alias = 'w',
            value_enum,
            default_value = "table"
        )]
        output: Format,
    },
    /// Make the data folder of one founding member of a new cluster. All founders are restored from
    /// the same snapshot, each with its own name.
    Restore(RestoreOptions),
}

/// etcdutl's options.
#[derive(Args, Debug)]
pub(crate) struct RestoreOptions {
    /// The snapshot.
    file: PathBuf,
    /// Human-readable name for this member.
    #[arg(long, default_value = "default")]
    name: String,
    /// All founding members, as name=peer-url.
    #[arg(long, default_value = "default=http://localhost:2380")]
    initial_cluster: String,
    /// Tells clusters apart during bootstrap.
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// The peer URLs of this member.
    #[arg(long, default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: String,
    /// The new data folder [default: NAME.etcd].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// A directory of its own for the log.
    #[arg(long)]
    wal_dir: Option<PathBuf>,
    /// How far to raise the revision, so that no client sees time go back.
    #[arg(long, default_value_t = 0)]
    bump_revision: u64,
    /// Count everything before the raised revision as compacted, so that watchers start afresh.
    #[arg(long)]
    mark_compacted: bool,
    /// Take a snapshot without looking at its checksum.
    #[arg(long)]
    skip_hash_check: bool,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Save { file, endpoint } => save(&file, &endpoint).await,
        Command::Status { file, output } => {
            print!("{}", status(&file, output)?);
            Ok(())
        }
        Command::Restore(options) => tokio::task::spawn_blocking(move || restore(&options)).await?,
    }
}

/// The file appears only when it is complete and its checksum is right.
pub(super) async fn save(file: &Path, endpoint: &endpoint::Options) -> anyhow::Result<()> {
    let channel = endpoint::connect(endpoint).await?;
    let mut client =
        MaintenanceClient::new(channel).max_decoding_message_size(endpoint::MESSAGE_BYTES_MAX);
    let part = file.with_extension("part");
    let mut out = File::create(&part).with_context(|| part.display().to_string())?;
    let mut chunks = client.snapshot(SnapshotRequest {}).await?.into_inner();
    let mut hash = Sha256::new();
    let (mut bytes, mut held) = (0, Vec::new());
    let mut bar = None;
    while let Some(chunk) = chunks.message().await? {
        // The last chunk is the checksum of those before it.
        hash.update(&held);
        held = chunk.blob.to_vec();
        out.write_all(&held)?;
        bytes += held.len() as u64;
        let bar = bar
            .get_or_insert_with(|| output::progress("saving", bytes + chunk.remaining_bytes, true));
        bar.set_position(bytes);
    }
    let checksum: [u8; 32] = hash.finalize().into();
    if held != checksum {
        std::fs::remove_file(&part)?;
        bail!("the snapshot broke off: its checksum is missing or wrong");
    }
    out.sync_all()?;
    std::fs::rename(&part, file).with_context(|| file.display().to_string())?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    println!("Snapshot saved at {} ({})", file.display(), output::size(bytes));
    Ok(())
}

pub(super) fn status(file: &Path, format: Format) -> anyhow::Result<String> {
    let archive = Archive::open(file)?;
    let checksum = archive.verify()?;
    let hash = u32::from_be_bytes([checksum[0], checksum[1], checksum[2], checksum[3]]);
    let manifest = archive.manifest();
    if format == Format::Json {
        let status = json!({
            "hash": hash,
            "revision": manifest.revision,
            "totalKey": manifest.keys,
            "totalSize": archive.bytes(),
            "version": manifest.storage_version,
        });
        return Ok(format!("{status}\n"));
    }
    let row = vec![
        format!("{hash:x}"),
        manifest.revision.to_string(),
        manifest.keys.to_string(),
        output::size(archive.bytes()),
        manifest.storage_version.clone(),
    ];
    Ok(output::table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &[row]))
}

fn restore(options: &RestoreOptions) -> anyhow::Result<()> {
    if options.bump_revision > 0 && !options.mark_compacted {
        bail!("--mark-compacted required if --revision-bump");
    }
    if options.mark_compacted && options.bump_revision == 0 {
        bail!("--mark-compacted required if --bump-revision");
    }
    let given = [
        ("name", &options.name),
        ("initial-cluster", &options.initial_cluster),
        ("initial-advertise-peer-urls", &options.initial_advertise_peer_urls),
    ];
    let values = Values(given.map(|(name, value)| (name, value.clone())).into());
    let data_dir = options.data_dir.clone();
    let data_dir = data_dir.unwrap_or_else(|| format!("{}.etcd", options.name).into());
    let config = Config {
        name: options.name.clone(),
        wal_dir: options.wal_dir.clone(),
        initial_cluster: initial_cluster(&values)?,
        initial_cluster_token: options.initial_cluster_token.clone(),
        initial_advertise_peer_urls: values.list("initial-advertise-peer-urls"),
        data_dir: data_dir.clone(),
        ..Config::default()
    };
    let restore = Restore {
        config,
        bump_revision: i64::try_from(options.bump_revision).context("--bump-revision")?,
        mark_compacted: options.mark_compacted,
        skip_hash_check: options.skip_hash_check,
    };
    pintle_store::restore(&options.file, &restore)?;
    println!("Restored {} into {}", options.file.display(), data_dir.display());
    Ok(())
}
