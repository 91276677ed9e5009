//! The systems under load: started here as processes of three members, or found at endpoints.

mod cgroup;
mod member;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use pintle_proto::etcdserverpb as pb;
use prost::Message;

pub(crate) use self::cgroup::MemoryLimit;
use self::member::Member;
pub(crate) use self::usage::Usage;
pub use self::usage::machine;
use crate::client::{Call, Connection, encode};

/// A cluster that does not answer by then did not start.
const READY_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// How a system comes to be.
#[derive(Clone, Debug)]
pub enum Launch {
    /// A program that takes etcd's flags, after these arguments.
    Start {
        /// The program.
        program: PathBuf,
        /// What comes before the flags.
        arguments: Vec<String>,
    },
    /// Somebody runs it: `host:port` of each member, in plain text. Neither its CPU time nor its
    /// memory is known.
    At(Vec<String>),
}

/// A system to measure.
#[derive(Clone, Debug)]
pub struct System {
    /// In tables.
    pub name: String,
    /// How it comes to be.
    pub launch: Launch,
}

impl System {
    /// The version that the program, or the running member, reports.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        match &self.launch {
            Launch::Start { program, arguments } => member::version(program, arguments),
            Launch::At(endpoints) => {
                let endpoint = endpoints.first().context("no endpoints")?;
                let status = status(&mut Connection::open(endpoint).await?).await?;
                Ok(status.version)
            }
        }
    }
}

async fn status(connection: &mut Connection) -> anyhow::Result<pb::StatusResponse> {
    let answer = connection.unary(Call::Status, encode(&pb::StatusRequest::default())).await?;
    Ok(pb::StatusResponse::decode(answer)?)
}

/// A running system. Members that were started here end with it.
#[derive(Debug)]
pub(crate) struct Running {
    endpoints: Vec<String>,
    members: Vec<Member>,
}

impl Running {
    /// Starts `members` members with their data under `dir`, or finds those that run.
    pub(crate) async fn start(
        system: &System,
        members: usize,
        dir: &Path,
        limit: Option<&MemoryLimit>,
    ) -> anyhow::Result<Self> {
        let running = match &system.launch {
            Launch::At(endpoints) => Self { endpoints: endpoints.clone(), members: Vec::new() },
            Launch::Start { program, arguments } => {
                let mut members = member::plan(program, arguments, members, dir)?;
                for member in &mut members {
                    member.start(limit)?;
                }
                let endpoints = members.iter().map(Member::endpoint).collect();
                Self { endpoints, members }
            }
        };
        let ready = tokio::time::timeout(READY_MAX, running.ready()).await;
        ready.with_context(|| format!("{} did not start: see {}", system.name, dir.display()))?;
        Ok(running)
    }

    /// Resolves when every member answers a linearizable read.
    pub(crate) async fn ready(&self) {
        let range = encode(&pb::RangeRequest { key: "ready".into(), ..Default::default() });
        for endpoint in &self.endpoints {
            loop {
                let range = range.clone();
                let asked = async {
                    let mut connection = Connection::open(endpoint).await.ok()?;
                    connection.unary(Call::Range, range).await.ok()
                };
                if let Ok(Some(_)) = tokio::time::timeout(READY_MAX / 10, asked).await {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// A connection to one of the members, taken in turn.
    pub(crate) async fn connect(&self, turn: usize) -> anyhow::Result<Connection> {
        Connection::open(&self.endpoints[turn % self.endpoints.len()]).await
    }

    /// Which endpoint leads.
    pub(crate) async fn leader(&self) -> anyhow::Result<usize> {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let status = status(&mut Connection::open(endpoint).await?).await?;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(index);
            }
        }
        bail!("no member says that it leads")
    }

    /// Whether the processes are known.
    pub(crate) fn is_local(&self) -> bool {
        !self.members.is_empty()
    }

    /// What all members have used; `None` for those that somebody else runs.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let usages = self.members.iter().filter_map(|member| Usage::of(member.pid()?).ok());
        self.is_local().then(|| usages.sum())
    }

    pub(crate) fn usage_of(&self, member: usize) -> Option<Usage> {
        Usage::of(self.members.get(member)?.pid()?).ok()
    }

    /// Peak memory counts from now on.
    pub(crate) fn reset_peaks(&self) {
        self.members.iter().filter_map(Member::pid).for_each(usage::reset_peak);
    }

    /// Whether a member that was started has ended by itself.
    pub(crate) fn ended(&mut self, member: usize) -> Option<String> {
        self.members.get_mut(member)?.ended()
    }

    pub(crate) fn kill(&mut self, member: usize) -> anyhow::Result<()> {
        self.members[member].kill()
    }

    /// Asks it to stop; whether it has is seen with [`Running::ended`].
    pub(crate) fn terminate(&self, member: usize) -> anyhow::Result<()> {
        self.members[member].terminate()
    }

    pub(crate) fn restart(&mut self, member: usize) -> anyhow::Result<()> {
        self.members[member].start(None)
    }
}
