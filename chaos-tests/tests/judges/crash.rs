//! What is left after a simulated crash.

use std::fs;

use pintle_chaos::crash::{copy_consistently, cut};

#[test]
fn a_cut_file_keeps_its_durable_part_whole() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("000004.log");
    let left = |kept, torn| {
        fs::write(&path, b"durable, and more").expect("written");
        cut(&path, 7, kept, torn).expect("cut");
        fs::read(&path).expect("there")
    };
    assert_eq!(left(7, false), b"durable");
    assert_eq!(left(12, false), b"durable, and");
    let torn = left(12, true);
    assert!(
        torn.starts_with(b"durable") && torn.len() == 12 && torn != b"durable, and",
        "{torn:?}"
    );
}

#[test]
fn a_copy_has_everything_but_what_belongs_to_the_process() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("log")).expect("made");
    for name in ["identity", "log/CURRENT", "log/LOCK", "log/000004.log"] {
        fs::write(from.join(name), name).expect("written");
    }
    let to = dir.path().join("to");
    copy_consistently(&from, &to).expect("copied");
    for name in ["identity", "log/CURRENT", "log/000004.log"] {
        assert_eq!(fs::read_to_string(to.join(name)).expect("there"), name);
    }
    assert!(!to.join("log/LOCK").exists());
}
