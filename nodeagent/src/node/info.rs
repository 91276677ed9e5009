//! What this machine is: its processors, memory, disk and names.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::sys::statvfs::statvfs;

/// The API level that the agent implements.
pub const KUBELET_VERSION: &str = "v1.37.0";
/// Pods on one node; upstream's default.
const PODS_MAX: u32 = 110;
/// Memory kept back for the system, as upstream's hard eviction threshold does.
const MEMORY_RESERVED: u64 = 100 << 20;

/// The machine's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the file system that holds the data.
    pub disk: u64,
    /// Pods.
    pub pods: u32,
}

impl Machine {
    /// Looks at the machine.
    pub fn read(data_dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let disk = statvfs(data_dir).map_or(0, |fs| fs.blocks() * fs.fragment_size());
        Self {
            cpus: u32::try_from(cpus).unwrap_or(1),
            memory: meminfo("MemTotal").unwrap_or(0),
            disk,
            pods: PODS_MAX,
        }
    }

    /// `status.capacity`
    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        self.resources(self.memory, self.disk)
    }

    /// `status.allocatable`
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        // A tenth of the disk is the eviction threshold.
        self.resources(self.memory.saturating_sub(MEMORY_RESERVED), self.disk / 10 * 9)
    }

    fn resources(&self, memory: u64, disk: u64) -> BTreeMap<String, Quantity> {
        [
            ("cpu", self.cpus.to_string()),
            ("memory", format!("{}Ki", memory / 1024)),
            ("ephemeral-storage", format!("{}Ki", disk / 1024)),
            ("pods", self.pods.to_string()),
            ("hugepages-1Gi", "0".to_owned()),
            ("hugepages-2Mi", "0".to_owned()),
        ]
        .map(|(name, quantity)| (name.to_owned(), Quantity(quantity)))
        .into()
    }
}

/// A line of `/proc/meminfo` in bytes.
pub fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The architecture as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `status.nodeInfo`; `runtime` is such as `containerd://1.6.20`.
pub fn system_info(runtime: String) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime,
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release")),
        system_uuid: Some(read("/sys/class/dmi/id/product_uuid"))
            .filter(|uuid| !uuid.is_empty())
            .unwrap_or_else(|| read("/etc/machine-id")),
        ..NodeSystemInfo::default()
    }
}

fn os_image(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Space on the file system of a folder: `(free bytes, all bytes, free inodes, all inodes)`.
pub fn filesystem(path: &Path) -> Option<(u64, u64, u64, u64)> {
    let fs = statvfs(path).ok()?;
    let size = fs.fragment_size();
    Some((fs.blocks_available() * size, fs.blocks() * size, fs.files_free(), fs.files()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_allocatable_than_there_is() {
        let machine = Machine { cpus: 4, memory: 8 << 30, disk: 100 << 30, pods: 110 };
        let (capacity, allocatable) = (machine.capacity(), machine.allocatable());
        assert_eq!(capacity["memory"].0, "8388608Ki");
        assert_eq!(allocatable["memory"].0, "8286208Ki");
        assert_eq!(allocatable["cpu"].0, "4");
    }

    #[test]
    fn the_os_says_its_name() {
        let text = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(os_image(text), "Debian GNU/Linux 12 (bookworm)");
    }
}
