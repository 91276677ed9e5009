//! A state with a past, for tests.

use bytes::Bytes;
use pintle_mvcc::{Entry, Mvcc, Options};
use pintle_proto::raft::{Command, command::Kind};
use pintle_store_api::{KeyRange, pb};

/// Revisions 2 to `through`, over ten keys, every seventh a deletion.
pub(super) fn filled(dir: &std::path::Path, through: i64) -> Mvcc {
    let mut mvcc = Mvcc::open(dir, Options::default()).expect("open");
    let command = |revision: i64| {
        let key: Bytes = format!("/{}/{}", revision % 2, revision % 10).into();
        let kind = if revision % 7 == 0 {
            Kind::DeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
        } else {
            let value = revision.to_string().into();
            Kind::Put(pb::PutRequest { key, value, ..Default::default() })
        };
        Command { kind: Some(kind), caller: None }
    };
    let mut revision = 2;
    while mvcc.reader().current_revision().0 < through {
        let entry = Entry { term: 1, commands: &[command(revision)] };
        mvcc.apply(&[entry], Bytes::new()).expect("apply");
        revision += 1;
    }
    mvcc
}

pub(super) fn ranges() -> Vec<KeyRange> {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    vec![
        KeyRange::between(Bytes::new(), None),
        KeyRange::prefix(text("/1/")),
        KeyRange::point(text("/0/4")),
        KeyRange::point(text("/none")),
    ]
}

pub(super) fn compact(mvcc: &mut Mvcc, revision: i64) {
    let kind = Kind::Compact(pb::CompactionRequest { revision, physical: false });
    let commands = [Command { kind: Some(kind), caller: None }];
    mvcc.apply(&[Entry { term: 1, commands: &commands }], Bytes::new()).expect("apply");
}
