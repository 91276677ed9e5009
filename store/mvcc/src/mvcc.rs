//! The owner of the state: applies the committed log, one batch at a time.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use pintle_proto::raft::Command;

use crate::alarms::Alarms;
use crate::auth::Auth;
use crate::batch::Batch;
use crate::census::Census;
use crate::database::{Database, Generations};
use crate::keyspace::Head;
use crate::overlay::Overlay;
use crate::settler::Settler;
use crate::{Applied, Entry, Fault, Options, Reader, command_keys};

/// With fewer commands it is not worth while to bring their records nearer first.
const TOUCHED_MIN: usize = 16;

/// The one writer of a member's state. Not cloneable; readers are ([`Mvcc::reader`]).
#[derive(Debug)]
pub struct Mvcc {
    /// Dropped first: it must not hold the database open.
    settler: Settler,
    generations: Generations,
    options: Options,
    database: Arc<Database>,
    head: Head,
    census: Census,
    alarms: Alarms,
    auth: Arc<Auth>,
    applied: Option<Bytes>,
    reader: Reader,
}

impl Mvcc {
    /// Opens the state under `root`, or makes an empty one. `root` is a folder of its own: it
    /// holds the active database and, around a snapshot install, the next one.
    pub fn open(root: impl AsRef<Path>, options: Options) -> Result<Self, Fault> {
        let generations = Generations::open(root.as_ref())?;
        let database = Arc::new(Database::open(&generations.active(), &options)?);
        let (head, applied) = database.load()?;
        let census = Census::load(&database, options.count_bucket_keys_max)?;
        let alarms = Alarms::load(&database)?;
        database.raise(&alarms);
        let auth = Arc::new(Auth::load(&database)?);
        let reader = Reader::new(Arc::clone(&database), Arc::clone(&auth));
        let settler = Settler::start(options.pending_thread)?;
        Ok(Self {
            settler,
            generations,
            options,
            database,
            head,
            census,
            alarms,
            auth,
            applied,
            reader,
        })
    }

    /// A handle for everybody who only reads; stays valid over [`Mvcc::install`].
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The bytes that the newest apply was given as `applied`; `None` on a fresh state. After
    /// [`Mvcc::open`], the server replays its log from there.
    pub fn applied_meta(&self) -> Option<Bytes> {
        self.applied.clone()
    }

    /// Applies committed log entries in one atomic write, together with `applied`: the server's
    /// opaque bytes (last applied log id, membership). May be called without commands, to record
    /// a new `applied` alone. After a fault nothing of the batch is visible, and this
    /// value must not be used again: stop, reopen, replay.
    pub fn apply(&mut self, entries: &[Entry<'_>], applied: Bytes) -> Result<Applied, Fault> {
        let is_settled = self.settler.look(&self.database)?;
        let mut batch = Batch::new(&self.database, self.head);
        batch.alarms = self.alarms.clone();
        batch.auth = Arc::clone(&self.auth);
        let commands = || entries.iter().flat_map(|entry| entry.commands);
        let count = commands().count();
        if count >= TOUCHED_MIN {
            self.database.recent().touch(commands().flat_map(command_keys::first));
        }
        let mut outcomes = Vec::with_capacity(count);
        for entry in entries {
            for command in entry.commands {
                outcomes.push(batch.command(command, entry.term)?);
            }
        }
        batch.population().for_each(|(key, change)| self.census.add(key, change));
        self.census.balance(&batch.view(), is_settled)?;
        let mut alarms = std::mem::take(&mut batch.alarms);
        let auth = batch.changed_auth();
        let (overlay, auth_rows, head, events) = batch.finish();
        self.publish(auth, |this| {
            this.database.write(overlay, &head, &applied, |pending| {
                auth_rows.write_to(pending);
                alarms.write_to(pending);
                this.census.write_to(pending);
            })
        })?;
        if alarms != self.alarms {
            self.database.raise(&alarms);
        }
        (self.head, self.alarms) = (head, alarms);
        self.applied = Some(applied);
        Ok(Applied { outcomes, events })
    }

    /// Whether these commands can be applied without waiting for the disk: they are about few keys, whose
    /// records are in memory, and nothing has to be written first.
    pub fn is_quick(&self, commands: &[Command]) -> bool {
        let keys = command_keys::few(commands);
        let keys = keys.filter(|_| self.settler.is_free(&self.database));
        keys.is_some_and(|keys| keys.iter().all(|key| self.database.has_at_hand(key)))
    }

    /// Makes a restored state the beginning of another cluster: raises the revision by `bump`, so
    /// that no client sees time go back, moves the floor there if wanted, and clears the alarms.
    pub fn rebase(&mut self, bump: i64, compacted: bool, applied: Bytes) -> Result<(), Fault> {
        let mut head = self.head;
        head.revision += bump;
        if compacted {
            head.floor = head.revision;
        }
        self.alarms.clear();
        let alarms = &mut self.alarms;
        self.database
            .write(Overlay::default(), &head, &applied, |pending| alarms.write_to(pending))?;
        self.database.raise(&self.alarms);
        self.database.flush()?;
        (self.head, self.applied) = (head, Some(applied));
        Ok(())
    }

    /// Replaces the whole state by a checkpoint's ([`Reader::checkpoint`]), which is moved away
    /// from `from` (same file system) or copied. Existing readers see the new state at once;
    /// reads under way finish on the old one, which is removed after the last of them.
    pub fn install(&mut self, from: &Path) -> Result<(), Fault> {
        let path = self.generations.stage(from)?;
        let database = Arc::new(Database::open(&path, &self.options)?);
        let (head, applied) = database.load()?;
        let census = Census::load(&database, self.options.count_bucket_keys_max)?;
        let alarms = Alarms::load(&database)?;
        database.raise(&alarms);
        let auth = Auth::load(&database)?;
        self.generations.activate()?;
        let old = std::mem::replace(&mut self.database, Arc::clone(&database));
        (self.head, self.census, self.applied) = (head, census, applied);
        self.alarms = alarms;
        self.publish(Some(auth.into()), |this| {
            this.reader.replace(database);
            Ok(())
        })?;
        old.retire();
        Ok(())
    }

    /// Makes users and roles, if they have changed, known around the write that holds them.
    fn publish(
        &mut self,
        auth: Option<Arc<Auth>>,
        write: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(auth) = auth else { return write(self) };
        let auth = auth.with_generation(self.auth.generation() + 1);
        self.reader.published_auth().announce(&auth);
        write(self)?;
        self.reader.published_auth().publish(Arc::clone(&auth));
        self.auth = auth;
        Ok(())
    }
}
