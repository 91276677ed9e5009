//! `pintle store migrate`: copies a live etcd into another store through their APIs: leases, keys,
//! what changes meanwhile, roles and users; then compares.
//!
//! Keys are copied as of one revision, then the changes since are replayed up to the revision that
//! the source has by then, and both sides are compared at that revision. Where it stands is kept in
//! a journal, so that an interrupted copy goes on. Revisions and versions of the copies are the
//! target's own, and passwords cannot be read from any store: both are said at the end.

mod auth;
mod compare;
mod copy;
mod follow;
mod journal;
mod side;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use self::journal::Journal;
use self::side::Side;
use super::endpoint;

/// From where, to where.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The endpoints of the store to copy.
    #[arg(long, value_delimiter = ',', required = true)]
    from: Vec<String>,
    /// Who signed its certificate.
    #[arg(long)]
    from_cacert: Option<PathBuf>,
    /// The certificate to show to it.
    #[arg(long, requires = "from_key")]
    from_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "from_cert")]
    from_key: Option<PathBuf>,
    /// NAME:PASSWORD there, where authentication is on.
    #[arg(long)]
    from_user: Option<String>,
    /// The store to copy into.
    #[command(flatten)]
    to: endpoint::Options,
    /// Where to note how far the copy is.
    #[arg(long, default_value = "pintle-migrate.json")]
    journal: PathBuf,
}

impl Options {
    fn source(&self) -> endpoint::Options {
        endpoint::Options {
            endpoints: self.from.clone(),
            cacert: self.from_cacert.clone(),
            cert: self.from_cert.clone(),
            key: self.from_key.clone(),
            user: self.from_user.clone(),
        }
    }
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let summary = migrate(&options).await?;
    println!("{summary}");
    Ok(())
}

/// Copies, and tells what was done.
async fn migrate(options: &Options) -> anyhow::Result<String> {
    let mut source = Side::connect(&options.source()).await.context("the source")?;
    let mut target = Side::connect(&options.to).await.context("the target")?;
    if source.cluster_id == target.cluster_id {
        bail!("source and target are the same cluster");
    }
    let mut journal = Journal::open(&options.journal, source.cluster_id, target.cluster_id)?;
    if journal.revision == 0 {
        if !target.is_empty().await? {
            bail!(
                "the target holds keys already, and {} does not know of this copy",
                options.journal.display()
            );
        }
        journal.begin(source.revision().await?)?;
    }
    let leases = copy::leases(&mut source, &mut target).await?;
    let keys = copy::keys(&mut source, &mut target, &mut journal).await?;
    let changes = follow::changes(&mut source, &mut target, &mut journal).await?;
    let accounts = auth::copy(&mut source, &mut target).await?;
    let compared = compare::sides(&mut source, &mut target, journal.revision).await?;
    journal.finish()?;
    Ok(format!(
        "{keys} keys, {leases} leases and {changes} later changes were copied, as of revision {} of the source\n\
         {compared} keys were compared: all are the same\n{accounts}\
         revisions and versions of the keys are the target's own",
        journal.revision
    ))
}

#[cfg(test)]
mod tests;
