//! Profiles of the program itself: its allocator, and the names of its functions.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::read::GzDecoder;
use pprof::protos::{Message, Profile};

use super::{Member, free_port};

/// The code and the body of an answer.
fn ask(address: &str, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("connects");
    // In this version the answer ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let body = answer.split_off(end);
    let head = String::from_utf8(answer).expect("text");
    (head.split(' ').nth(1).expect("a code").to_owned(), body)
}

fn profile(address: &str, path: &str) -> Profile {
    let (code, body) = ask(address, path);
    assert_eq!(code, "200", "{}", String::from_utf8_lossy(&body));
    let mut bytes = Vec::new();
    GzDecoder::new(&*body).read_to_end(&mut bytes).expect("gzip");
    Profile::decode(&*bytes).expect("a profile")
}

/// The functions that stand on the stack of any sample.
fn functions(profile: &Profile) -> BTreeSet<&str> {
    let index = |id: u64| usize::try_from(id).expect("fits") - 1;
    let locations = profile.sample.iter().flat_map(|sample| &sample.location_id);
    let lines = locations.flat_map(|id| &profile.location[index(*id)].line);
    let names = lines.map(|line| profile.function[index(line.function_id)].name);
    names.map(|name| profile.string_table[usize::try_from(name).expect("fits")].as_str()).collect()
}

async fn writes(member: &Member) {
    let mut kv = member.kv().await;
    for i in 0.. {
        let key = format!("k{}", i % 5_000).into();
        let request = super::pb::PutRequest { key, value: "v".into(), ..Default::default() };
        kv.put(request).await.expect("written");
    }
}

fn start(dir: &std::path::Path, more: &[&str]) -> (Member, String) {
    let metrics = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{metrics}");
    let member = Member::start(dir, &[&["--listen-metrics-urls", &url], more].concat());
    (member, metrics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_members_profiles_name_our_functions() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (member, metrics) = start(dir.path(), &["--enable-pprof"]);
    let of = |path: &'static str| {
        let metrics = metrics.clone();
        tokio::task::spawn_blocking(move || profile(&metrics, path))
    };
    let made = async {
        let cpu = of("/debug/pprof/profile?seconds=3").await.expect("made");
        let heap = of("/debug/pprof/heap").await.expect("made");
        (cpu, heap)
    };
    let (cpu, heap) = tokio::select! {
        made = made => made,
        () = writes(&member) => unreachable!("never ends"),
    };
    let names = functions(&cpu);
    for ours in ["pintle_store::", "pintle_mvcc::"] {
        assert!(names.iter().any(|name| name.contains(ours)), "{ours}: {names:?}");
    }
    assert!(cpu.sample.iter().all(|sample| sample.value.iter().all(|value| *value > 0)));

    let names = functions(&heap);
    assert!(names.iter().any(|name| name.contains("pintle_store::")), "{names:?}");
    let dropped = usize::try_from(heap.drop_frames).expect("fits");
    assert_eq!(heap.string_table[dropped], "prof_.*|_rjem_.*");
    assert!(names.iter().any(|name| name.starts_with("_rjem_")), "so they are named: {names:?}");
    let bytes: i64 = heap.sample.iter().map(|sample| sample.value[0]).sum();
    assert!(bytes > 0, "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_flag_there_are_no_profiles() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (member, metrics) = start(dir.path(), &[]);
    let client = member.client.trim_start_matches("http://").to_owned();
    for port in [&client, &metrics] {
        assert_eq!(ask(port, "/version").0, "200");
        for path in ["/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1"] {
            assert_eq!(ask(port, path).0, "404", "{port}{path}");
        }
    }
}
