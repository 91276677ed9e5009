//! Who a member is. Ids follow from the founding list, as in etcd, so that all founders compute
//! the same ones without talking; they are kept on disk and never computed again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::consensus::{self, Node};

/// What a member must never forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    /// The founding members; empty for one that joined later.
    pub(crate) founders: BTreeMap<u64, Node>,
}

impl Identity {
    /// The identity of a founder: `None` when the list does not name this member.
    pub(crate) fn found(config: &Config) -> Option<Self> {
        let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
        for (name, url) in &config.initial_cluster {
            let node = nodes.entry(name).or_default();
            node.name.clone_from(name);
            node.peer_urls.push(url.clone());
        }
        let token = &config.initial_cluster_token;
        let id = |node: &Node| member_id(&node.peer_urls, token, &[]);
        let member_id = id(nodes.get(config.name.as_str())?);
        let founders: BTreeMap<u64, Node> =
            nodes.values().map(|node| (id(node), node.clone())).collect();
        Some(Self { cluster_id: cluster_id(&founders), member_id, founders })
    }

    pub(crate) fn load(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => consensus::decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(&consensus::encode(self)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// The id of a member with these addresses. `salt` tells apart members that were added later.
pub(crate) fn member_id(peer_urls: &[String], token: &str, salt: &[u8]) -> u64 {
    let mut urls: Vec<&String> = peer_urls.iter().collect();
    urls.sort();
    let mut hash = Sha256::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    hash.update(salt);
    first_eight(&hash.finalize())
}

fn cluster_id(founders: &BTreeMap<u64, Node>) -> u64 {
    let mut hash = Sha256::new();
    for id in founders.keys() {
        hash.update(id.to_be_bytes());
    }
    first_eight(&hash.finalize())
}

fn first_eight(digest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(name: &str, order: &[usize]) -> Identity {
        let list = [("a", "http://h:1"), ("b", "http://h:2"), ("c", "http://h:3")];
        let cluster = order.iter().map(|i| (list[*i].0.to_owned(), list[*i].1.to_owned()));
        let config =
            Config { name: name.into(), initial_cluster: cluster.collect(), ..Config::default() };
        Identity::found(&config).expect("named in the list")
    }

    #[test]
    fn founders_agree_whatever_the_order_of_the_list() {
        let (a, b) = (founder("a", &[0, 1, 2]), founder("b", &[2, 1, 0]));
        assert_eq!(a.cluster_id, b.cluster_id);
        assert_eq!(a.founders, b.founders);
        assert_ne!(a.member_id, b.member_id);
        assert!(b.founders.contains_key(&a.member_id));
    }

    #[test]
    fn identity_survives_the_disk() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("identity");
        assert_eq!(Identity::load(&path).expect("readable"), None);
        let identity = founder("a", &[0, 1, 2]);
        identity.save(&path).expect("writable");
        assert_eq!(Identity::load(&path).expect("readable"), Some(identity));
    }
}
