//! What a crash leaves of a member's files: a copy of them as they are at that moment, with what no
//! sync has covered cut off or torn.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files that a RocksDB makes anew, or that belong to the running process.
const NOT_COPIED: [&str; 2] = ["LOCK", "LOG"];

/// Cuts a file off after `kept` bytes; a torn one has a wrong byte behind the durable ones.
pub fn cut(path: &Path, durable: u64, kept: u64, torn: bool) -> io::Result<()> {
    let mut bytes = fs::read(path)?;
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.truncate(index(kept));
    if torn && let Some(byte) = bytes.get_mut(index((durable + kept) / 2)) {
        *byte ^= 0xff;
    }
    fs::write(path, bytes)
}

/// Copies a folder in which RocksDB may be at work: again, if the list of its files changed
/// meanwhile, because the copy may then lack some.
pub fn copy_consistently(from: &Path, to: &Path) -> io::Result<()> {
    loop {
        let before = manifests(from)?;
        let copied = copy(from, to);
        if copied.is_ok() && manifests(from)? == before {
            return Ok(());
        }
        if let Err(error) = copied
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        fs::remove_dir_all(to)?;
    }
}

/// What each database below a folder says of its files: the sizes of its manifests, which only grow.
fn manifests(dir: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(manifests(&path)?);
        } else if entry.file_name().to_string_lossy().starts_with("MANIFEST-") {
            found.insert(path, entry.metadata()?.len());
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_COPIED.iter().any(|one| name.to_string_lossy() == *one) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
