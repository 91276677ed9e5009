//! A limit on the memory of one process, by a control group of its own: version 2 where it is
//! mounted with the memory controller, else version 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A control group, removed when it is dropped; its processes must be gone by then.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    folder: PathBuf,
}

/// Where the memory controller is, and the name of its limit.
fn controller() -> anyhow::Result<(PathBuf, &'static str)> {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap_or_default();
    if unified.split_whitespace().any(|one| one == "memory") {
        return Ok((PathBuf::from("/sys/fs/cgroup"), "memory.max"));
    }
    let folder = PathBuf::from("/sys/fs/cgroup/memory");
    if folder.join("memory.limit_in_bytes").exists() {
        return Ok((folder, "memory.limit_in_bytes"));
    }
    bail!("this machine has no memory controller in /sys/fs/cgroup")
}

impl MemoryLimit {
    pub(crate) fn new(bytes: u64) -> anyhow::Result<Self> {
        let (root, limit) = controller()?;
        let folder = root.join(format!("pintle-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)
            .with_context(|| format!("{}: a control group needs root", folder.display()))?;
        let group = Self { folder };
        fs::write(group.folder.join(limit), bytes.to_string())
            .with_context(|| format!("setting {limit}"))?;
        Ok(group)
    }

    /// Starts `program`, with the arguments that follow, in the group from its first step on.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"echo $$ >"$0" && exec "$@""#]);
        command.arg(self.folder.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}
