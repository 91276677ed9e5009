//! `pintle store dump`: what a stopped member, or a snapshot, holds, one line an entry.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use pintle_proto::authpb;
use pintle_proto::mvccpb::KeyValue;
use pintle_store::inspect::{self, LogContent, LogEntry};
use pintle_store::mvcc::offline::{Accounts, Change, Offline};
use pintle_store_api::{KeyRange, Revision};
use serde_json::{Value, json};

use super::check::with_state;

/// What to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Revision, compact floor, sizes, alarms.
    Head,
    /// The living keys.
    Keys,
    /// What happened, by revision.
    Changes,
    /// Leases and their keys.
    Leases,
    /// Users and roles; no passwords.
    Auth,
    /// The Raft log.
    Log,
}

/// How to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: values are shortened.
    Text,
    /// A JSON object a line.
    Json,
}

/// What to dump.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The data folder of a stopped member, or a snapshot.
    path: PathBuf,
    /// What to tell of it.
    #[arg(value_enum, default_value = "keys")]
    what: What,
    /// Only keys with this prefix.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only from this revision (or index of the log) on.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only up to this revision (or index of the log).
    #[arg(long, default_value_t = i64::MAX as u64)]
    to: u64,
    /// At most this many entries.
    #[arg(long, default_value_t = usize::MAX)]
    limit: usize,
    /// Where the log is, if not in the data folder.
    #[arg(long)]
    wal_dir: Option<PathBuf>,
    /// How to write it.
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    output: Format,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let mut lines = Lines {
        out: BufWriter::new(std::io::stdout().lock()),
        left: options.limit,
        format: options.output,
        failure: None,
    };
    if options.what == What::Log {
        log(options, &mut lines)?;
    } else {
        with_state(&options.path, |state| told(state, options, &mut lines))?;
    }
    match lines.failure {
        // Whoever read this has read enough.
        Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(error.into()),
        None => Ok(lines.out.flush()?),
    }
}

/// What is written, until enough is.
struct Lines<W: Write> {
    out: W,
    left: usize,
    format: Format,
    failure: Option<std::io::Error>,
}

impl<W: Write> Lines<W> {
    /// One entry, as JSON and as text. Whether more is wanted.
    fn tell(&mut self, object: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> bool {
        if self.left == 0 || self.failure.is_some() {
            return false;
        }
        self.left -= 1;
        let line = match self.format {
            Format::Json => object().to_string(),
            Format::Text => text(),
        };
        self.failure = writeln!(self.out, "{line}").err();
        self.failure.is_none() && self.left > 0
    }
}

fn told<W: Write>(state: &Offline, options: &Options, lines: &mut Lines<W>) -> anyhow::Result<()> {
    let range = KeyRange::prefix(Bytes::from(options.prefix.clone().into_bytes()));
    match options.what {
        What::Head => head(state, lines)?,
        What::Keys => state.keys(&range, |kv| {
            let wanted = (options.from..=options.to).contains(&kv.mod_revision.unsigned_abs());
            !wanted || lines.tell(|| object(&kv), || text(&kv))
        })?,
        What::Changes => {
            let revision = |number: u64| Revision(i64::try_from(number).unwrap_or(i64::MAX));
            let (from, to) = (revision(options.from), revision(options.to));
            state.changes(&range, from, to, |change| {
                lines.tell(|| change_object(&change), || change_text(&change))
            })?;
        }
        What::Leases => {
            for (lease, keys) in state.leases()? {
                let keys: Vec<String> = keys.iter().map(|key| shown(key)).collect();
                let (id, granted, left) = (lease.id.0, lease.granted_ttl, lease.remaining_ttl);
                lines.tell(
                    || json!({"id": id, "grantedTTL": granted, "remainingTTL": left, "keys": keys}),
                    || {
                        format!(
                            "{id:x} granted {granted} s, checkpoint {left} s: {}",
                            keys.join(" ")
                        )
                    },
                );
            }
        }
        What::Auth => accounts(&state.accounts()?, lines),
        What::Log => bail!("a snapshot has no log"),
    }
    Ok(())
}

fn head<W: Write>(state: &Offline, lines: &mut Lines<W>) -> anyhow::Result<()> {
    let at = state.standing();
    let alarms = state.alarms()?;
    let alarms: Vec<String> = alarms
        .iter()
        .map(|one| format!("{} of member {:x}", one.alarm().as_str_name(), one.member_id))
        .collect();
    let (revision, floor) = (at.revision.0, at.compact_revision.0);
    lines.tell(
        || {
            json!({"revision": revision, "compactRevision": floor, "keys": at.keys,
                "bytes": at.bytes, "alarms": alarms})
        },
        || {
            let alarms = if alarms.is_empty() { "none".to_owned() } else { alarms.join(", ") };
            format!(
                "revision {revision}, compacted to {floor}, {} keys, {} bytes, alarms: {alarms}",
                at.keys, at.bytes
            )
        },
    );
    Ok(())
}

/// What passwords hash to is left out.
fn accounts<W: Write>(accounts: &Accounts, lines: &mut Lines<W>) {
    let (enabled, revision) = (accounts.enabled, accounts.revision);
    lines.tell(
        || json!({"enabled": enabled, "authRevision": revision}),
        || format!("authentication {}, revision {revision}", if enabled { "on" } else { "off" }),
    );
    for user in &accounts.users {
        let name = shown(&user.name);
        let login = match user.options.is_some_and(|options| options.no_password) {
            true => "no password",
            false => "a password",
        };
        lines.tell(
            || json!({"user": name, "roles": user.roles, "login": login}),
            || format!("user {name}, {login}, roles: {}", user.roles.join(" ")),
        );
    }
    for role in &accounts.roles {
        let name = shown(&role.name);
        let permissions: Vec<String> = role.key_permission.iter().map(permission).collect();
        lines.tell(
            || json!({"role": name, "permissions": permissions}),
            || format!("role {name}: {}", permissions.join(", ")),
        );
    }
}

fn permission(permission: &authpb::Permission) -> String {
    let kind = permission.perm_type().as_str_name();
    let (key, end) = (shown(&permission.key), shown(&permission.range_end));
    match &permission.range_end[..] {
        [] => format!("{kind} {key}"),
        [0] => format!("{kind} {key} and all after it"),
        _ => format!("{kind} {key} to {end}"),
    }
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A field as text where it is text, else as hexadecimal under another name.
fn field(object: &mut serde_json::Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), json!(text)),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert(format!("{name}Hex"), json!(hex))
        }
    };
}

fn object(kv: &KeyValue) -> Value {
    let mut object = serde_json::Map::new();
    field(&mut object, "key", &kv.key);
    field(&mut object, "value", &kv.value);
    for (name, number) in [
        ("createRevision", kv.create_revision),
        ("modRevision", kv.mod_revision),
        ("version", kv.version),
        ("lease", kv.lease),
    ] {
        object.insert(name.to_owned(), json!(number));
    }
    Value::Object(object)
}

/// Bytes of a value that people are shown.
const SHOWN_MAX: usize = 60;

fn text(kv: &KeyValue) -> String {
    let cut = &kv.value[..kv.value.len().min(SHOWN_MAX)];
    let more = if cut.len() < kv.value.len() { "…" } else { "" };
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {:x}", kv.lease) };
    format!(
        "{} created {} modified {} version {}{lease} {} bytes \"{}{more}\"",
        shown(&kv.key),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.value.len(),
        shown(cut)
    )
}

fn change_object(change: &Change) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("revision".to_owned(), json!(change.revision.0));
    object.insert("position".to_owned(), json!(change.position));
    object.insert("type".to_owned(), json!(if change.deleted { "DELETE" } else { "PUT" }));
    field(&mut object, "key", &change.key);
    if let Some(kv) = &change.record {
        object.insert("kv".to_owned(), self::object(kv));
    }
    Value::Object(object)
}

fn change_text(change: &Change) -> String {
    let at = format!("{}/{}", change.revision.0, change.position);
    match &change.record {
        Some(kv) => format!("{at} PUT {}", text(kv)),
        None if change.deleted => format!("{at} DELETE {}", shown(&change.key)),
        None => format!("{at} PUT {} (compacted)", shown(&change.key)),
    }
}

fn log<W: Write>(options: &Options, lines: &mut Lines<W>) -> anyhow::Result<()> {
    let inside = |dir: &Path| dir.join("member/log");
    let dir = options.wal_dir.clone().unwrap_or_else(|| inside(&options.path));
    inspect::raft_log(&dir, options.from, options.to, |entry| {
        lines.tell(|| entry_object(&entry), || entry_text(&entry))
    })?;
    Ok(())
}

fn entry_object(entry: &LogEntry) -> Value {
    let (kind, content) = match &entry.content {
        LogContent::Blank => ("blank", Value::Null),
        LogContent::Commands(commands) => {
            let commands: Vec<String> = commands.iter().map(|one| format!("{one:?}")).collect();
            ("commands", json!(commands))
        }
        LogContent::Membership { voters, members } => {
            let members: Vec<String> = members.iter().map(|one| format!("{one:?}")).collect();
            ("membership", json!({"voters": voters, "members": members}))
        }
        LogContent::Unreadable => ("unreadable", Value::Null),
    };
    json!({"index": entry.index, "term": entry.term, "type": kind, "content": content})
}

fn entry_text(entry: &LogEntry) -> String {
    let content = match &entry.content {
        LogContent::Blank => "a leader began".to_owned(),
        LogContent::Commands(commands) => {
            let commands: Vec<String> = commands.iter().map(|one| format!("{one:?}")).collect();
            commands.join("\n    ")
        }
        LogContent::Membership { voters, .. } => format!("voters {voters:x?}"),
        LogContent::Unreadable => "unreadable".to_owned(),
    };
    format!("{} term {}: {content}", entry.index, entry.term)
}
