//! The pages of a range, put together, are the range.

use std::ops::ControlFlow;

use bytes::Bytes;
use pintle_mvcc::{Entry, Mvcc};
use pintle_proto::raft::{Command, command::Kind};
use pintle_store_api::pb;
use prost::Message;

use crate::replay::{options, scratch};

const KEYS: i64 = 50;

fn filled(dir: &std::path::Path) -> Mvcc {
    let mut mvcc = Mvcc::open(dir, options()).expect("open");
    let put = |version: u8| {
        move |index: i64| {
            let key = format!("key-{index:03}").into();
            let value = vec![version; 20 + usize::try_from(index).expect("small")].into();
            Command {
                kind: Some(Kind::Put(pb::PutRequest { key, value, ..Default::default() })),
                caller: None,
            }
        }
    };
    let commands: Vec<Command> = (0..KEYS).map(put(1)).chain((0..KEYS / 2).map(put(2))).collect();
    mvcc.apply(&[Entry { term: 1, commands: &commands }], Bytes::new()).expect("apply");
    mvcc
}

fn merged(
    mvcc: &Mvcc,
    request: &pb::RangeRequest,
    page_bytes: usize,
) -> (pb::RangeResponse, usize) {
    let (mut bytes, mut pages) = (Vec::new(), 0);
    let read = mvcc.reader().range_pages(request, page_bytes, |page| {
        page.encode(&mut bytes).expect("a vector grows");
        pages += 1;
        ControlFlow::Continue(())
    });
    read.expect("pages");
    (pb::RangeResponse::decode(bytes.as_slice()).expect("they merge"), pages)
}

fn requests() -> Vec<pb::RangeRequest> {
    let all =
        pb::RangeRequest { key: "key-".into(), range_end: "key.".into(), ..Default::default() };
    let with = |change: fn(&mut pb::RangeRequest)| {
        let mut request = all.clone();
        change(&mut request);
        request
    };
    vec![
        with(|_| {}),
        with(|request| request.limit = 7),
        with(|request| request.limit = KEYS),
        with(|request| request.limit = KEYS + 1),
        with(|request| request.keys_only = true),
        with(|request| request.count_only = true),
        with(|request| request.revision = 1 + KEYS),
        with(|request| request.range_end = Bytes::new()),
        with(|request| request.range_end = "key-".into()),
        with(|request| request.range_end = "key-010".into()),
    ]
}

#[test]
fn pages_merge_to_the_answer_of_the_range() {
    let temp = scratch();
    let mvcc = filled(temp.path());
    for request in requests() {
        let whole = mvcc.reader().range(&request).expect("range");
        for page_bytes in [1, 100, 700, usize::MAX] {
            let (merged, pages) = merged(&mvcc, &request, page_bytes);
            assert_eq!(merged, whole, "{request:?} in pages of {page_bytes}");
            assert!(page_bytes < usize::MAX || pages == 1, "{pages} pages");
        }
    }
}

#[test]
fn a_reader_that_has_enough_gets_no_more() {
    let temp = scratch();
    let mvcc = filled(temp.path());
    let mut pages = 0;
    let read = mvcc.reader().range_pages(&requests()[0], 1, |page| {
        pages += 1;
        assert!(page.header.is_none(), "only the last page has one");
        if pages == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    read.expect("pages");
    assert_eq!(pages, 3);
}

#[test]
fn a_compacted_revision_is_refused_before_the_first_page() {
    let temp = scratch();
    let mut mvcc = filled(temp.path());
    let compact = pb::CompactionRequest { revision: 10, physical: false };
    let commands = [Command { kind: Some(Kind::Compact(compact)), caller: None }];
    mvcc.apply(&[Entry { term: 1, commands: &commands }], Bytes::new()).expect("apply");
    let request = pb::RangeRequest { revision: 9, ..requests()[0].clone() };
    let read = mvcc.reader().range_pages(&request, 1, |_| panic!("no page"));
    assert!(read.is_err());
}
