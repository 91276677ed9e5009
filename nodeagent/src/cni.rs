//! The pod network of one node: a bridge with addresses from the node's `podCIDR`, written as a CNI
//! configuration that containerd picks up by itself.
//!
//! No masquerading here: the service proxy owns the nftables rules. Forwarding between the bridges
//! of several nodes on one machine is the kernel's own routing.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde_json::json;

use crate::config::{BRIDGE_PREFIX, Paths};

/// The file that containerd reads.
const CONF_FILE: &str = "10-pintle.conflist";
/// Where distributions put the CNI plugins: Debian first, then upstream's place.
const BIN_DIRS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin"];
/// What the kernel must do for pod traffic, and why.
const SYSCTLS: &[(&str, &str)] = &[
    // Pods reach other nodes and the machine's networks.
    ("net/ipv4/ip_forward", "1"),
    // Traffic between two pods of one bridge passes the service rules.
    ("net/bridge/bridge-nf-call-iptables", "1"),
    // NodePorts answer on the loopback address.
    ("net/ipv4/conf/all/route_localnet", "1"),
];

/// The folder with the CNI plugins.
pub fn bin_dir() -> &'static str {
    BIN_DIRS.iter().find(|dir| Path::new(dir).join("bridge").exists()).unwrap_or(&BIN_DIRS[0])
}

/// The configuration list for `subnet`.
pub fn conflist(paths: &Paths, subnet: Ipv4Net, host_ports: bool) -> serde_json::Value {
    let mut plugins = vec![json!({
        "type": "bridge",
        "bridge": paths.bridge(),
        "isGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": paths.cni_state_dir(),
            "ranges": [[{ "subnet": subnet.to_string() }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })];
    if host_ports {
        plugins.push(
            json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }),
        );
    }
    json!({ "cniVersion": "1.0.0", "name": "pintle", "plugins": plugins })
}

/// Writes the configuration and prepares the kernel; does nothing when both are as they should be.
pub fn install(paths: &Paths, subnet: Ipv4Net) -> io::Result<()> {
    for (key, value) in SYSCTLS {
        set_sysctl(key, value)?;
    }
    let routes = std::fs::read_to_string("/proc/net/route")?;
    for id in other_bridges(&routes, subnet, &paths.bridge()) {
        take_over(paths, &id, subnet)?;
    }
    let file = paths.cni_conf_dir().join(CONF_FILE);
    let wanted = format!("{:#}\n", conflist(paths, subnet, portmap_works()));
    if std::fs::read_to_string(&file).is_ok_and(|current| current == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(paths.cni_conf_dir())?;
    std::fs::create_dir_all(paths.cni_state_dir())?;
    // containerd watches the folder: the file must appear complete.
    let draft = file.with_extension("draft");
    std::fs::write(&draft, wanted)?;
    std::fs::rename(draft, file)
}

/// The ids of other nodes whose bridges route `subnet`, from the kernel's table of IPv4 routes.
fn other_bridges(routes: &str, subnet: Ipv4Net, own: &str) -> Vec<String> {
    let word = |hex: &str| u32::from_str_radix(hex, 16).map(|raw| raw.swap_bytes()).ok();
    let wanted = (Some(u32::from(subnet.network())), Some(u32::from(subnet.netmask())));
    routes
        .lines()
        .filter_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            let [name, destination, _, _, _, _, _, mask, ..] = columns[..] else { return None };
            let id = name.strip_prefix(BRIDGE_PREFIX)?;
            let same = (word(destination), word(mask)) == wanted;
            (same && name != own).then(|| id.to_owned())
        })
        .collect()
}

/// Removes the bridge that a node left behind which ended without cleaning up. One whose pods still
/// run is not touched: two nodes cannot have the same addresses on one machine.
fn take_over(paths: &Paths, id: &str, subnet: Ipv4Net) -> io::Result<()> {
    let bridge = format!("{BRIDGE_PREFIX}{id}");
    let run_dir = paths.run_dir().with_file_name(id);
    if has_pods(&run_dir)? {
        return Err(io::Error::other(format!(
            "the pod range {subnet} is in use by {bridge}, a node of another cluster on this \
             machine; stop that cluster first (pintle down --dir ITS_FOLDER)"
        )));
    }
    tracing::warn!(bridge, %subnet, "removing the bridge of a node that is gone");
    let status = std::process::Command::new("ip").args(["link", "delete", &bridge]).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("ip link delete {bridge}: {status}"))),
    }
}

/// Whether a container's shim serves the containerd of `run_dir`.
fn has_pods(run_dir: &Path) -> io::Result<bool> {
    let socket = run_dir.join("containerd.sock").into_os_string().into_encoded_bytes();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Ok(command) = std::fs::read(process.path().join("cmdline")) else { continue };
        let mut arguments = command.split(|byte| *byte == 0);
        let is_shim = arguments.next().is_some_and(|name| {
            Path::new(&*String::from_utf8_lossy(name))
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("containerd-shim"))
        });
        if is_shim && arguments.any(|argument| argument == socket) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The portmap plugin calls `iptables`.
fn portmap_works() -> bool {
    let plugin = Path::new(bin_dir()).join("portmap").exists();
    plugin && ["/usr/sbin/iptables", "/sbin/iptables"].iter().any(|path| Path::new(path).exists())
}

fn set_sysctl(key: &str, value: &str) -> io::Result<()> {
    let file = PathBuf::from("/proc/sys").join(key);
    match std::fs::read_to_string(&file) {
        Ok(current) if current.trim() == value => Ok(()),
        Ok(_) => std::fs::write(file, value),
        // A kernel without bridge filtering: pods of one bridge then bypass the service rules.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(key, "this kernel does not have the setting");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_that_routes_the_same_range_is_found() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n\
                      pinaaaa\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
                      pinbbbb\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
                      pincccc\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
                      cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        let subnet = "10.244.0.0/24".parse().unwrap();
        assert_eq!(other_bridges(routes, subnet, "pinbbbb"), ["aaaa"]);
        assert!(other_bridges(routes, "10.244.2.0/24".parse().unwrap(), "pinbbbb").is_empty());
    }

    #[test]
    fn pods_get_addresses_from_the_nodes_range() {
        let paths = Paths::new(Path::new("/data/node-1"));
        let list = conflist(&paths, "10.244.3.0/24".parse().unwrap(), true);
        assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.3.0/24");
        assert_eq!(list["plugins"][0]["bridge"], paths.bridge());
        assert_eq!(list["plugins"][1]["type"], "portmap");
        assert_eq!(
            conflist(&paths, "10.0.0.0/24".parse().unwrap(), false)["plugins"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
