//! Hands out cluster addresses and node ports.
//!
//! The lower part of each range is left to clients that ask for something particular; what is
//! picked by chance comes from above it, so that the two rarely meet.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use rand::Rng as _;

use super::claims::{Acquired, Claim, ClaimError, Claims, Held, Owner};

/// Where node ports come from.
pub(crate) const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Guesses before the whole range is looked through.
const GUESSES_MAX: u32 = 16;

/// Why nothing was handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllocateError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error(
        "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
    )]
    AddressOutOfRange { address: Ipv4Addr, range: Ipv4Net },
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is 30000-32767")]
    PortOutOfRange,
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// Whether the service behind a claim still exists; asked when a wanted claim is somebody else's.
#[async_trait::async_trait]
pub(crate) trait Owners: Send + Sync {
    async fn exists(&self, owner: &Owner) -> bool;
}

/// One range of numbers with a part that chance prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Band {
    first: u32,
    /// The first number that is handed out by chance while there are any left from there on.
    dynamic: u32,
    last: u32,
}

impl Band {
    /// The hosts of a network: neither its own address nor the broadcast one.
    fn of_network(network: Ipv4Net) -> Self {
        let first = u32::from(network.network()).saturating_add(1);
        let last = u32::from(network.broadcast()).saturating_sub(1).max(first);
        Self::with_reserve(first, last, 16, 256)
    }

    fn of_node_ports() -> Self {
        let (first, last) = (u32::from(*NODE_PORTS.start()), u32::from(*NODE_PORTS.end()));
        Self::with_reserve(first, last, 16, 128)
    }

    /// A sixteenth (upstream: a thirty-second of the ports) stays reserved, within bounds; nothing in
    /// a tiny range.
    fn with_reserve(first: u32, last: u32, min: u32, max: u32) -> Self {
        let size = last - first + 1;
        let reserve = if size <= min { 0 } else { (size / 16).clamp(min, max) };
        Self { first, dynamic: first + reserve, last }
    }

    fn contains(self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    fn guess(self) -> u32 {
        rand::rng().random_range(self.dynamic..=self.last)
    }

    /// Every number, those for chance first, starting anywhere.
    fn all(self) -> impl Iterator<Item = u32> {
        let start = self.guess();
        (start..=self.last).chain(self.dynamic..start).chain(self.first..self.dynamic)
    }
}

/// The allocators of one cluster.
#[derive(Clone)]
pub(crate) struct Allocator {
    claims: Claims,
    network: Ipv4Net,
}

impl Allocator {
    pub(crate) fn new(claims: Claims, network: Ipv4Net) -> Self {
        Self { claims, network }
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Any free address.
    pub(crate) async fn any_address(&self, owner: &Owner) -> Result<Ipv4Addr, AllocateError> {
        let band = Band::of_network(self.network);
        let claim = |number: u32| Claim::Address(Ipv4Addr::from(number));
        match self.any(band, claim, owner).await? {
            Claim::Address(address) => Ok(address),
            Claim::NodePort(_) => Err(AllocateError::Full),
        }
    }

    /// Any free node port.
    pub(crate) async fn any_node_port(&self, owner: &Owner) -> Result<u16, AllocateError> {
        let claim = |number: u32| Claim::NodePort(u16::try_from(number).unwrap_or(u16::MAX));
        match self.any(Band::of_node_ports(), claim, owner).await? {
            Claim::NodePort(port) => Ok(port),
            Claim::Address(_) => Err(AllocateError::Full),
        }
    }

    async fn any(
        &self,
        band: Band,
        claim: impl Fn(u32) -> Claim + Send,
        owner: &Owner,
    ) -> Result<Claim, AllocateError> {
        for _ in 0..GUESSES_MAX {
            let candidate = claim(band.guess());
            if !self.claims.looks_taken(candidate).await?
                && let Acquired::New = self.claims.acquire(candidate, owner).await?
            {
                return Ok(candidate);
            }
        }
        let held = match claim(band.first) {
            Claim::Address(_) => self.claims.addresses().await?,
            Claim::NodePort(_) => self.claims.node_ports().await?,
        };
        let held: HashSet<Claim> = held.into_iter().map(|held| held.claim).collect();
        for candidate in band.all().map(claim).filter(|candidate| !held.contains(candidate)) {
            if let Acquired::New = self.claims.acquire(candidate, owner).await? {
                return Ok(candidate);
            }
        }
        Err(AllocateError::Full)
    }

    /// This very address. `Ok(false)` when the service had it before.
    pub(crate) async fn address(
        &self,
        address: Ipv4Addr,
        owner: &Owner,
        owners: &dyn Owners,
    ) -> Result<bool, AllocateError> {
        if !Band::of_network(self.network).contains(u32::from(address)) {
            return Err(AllocateError::AddressOutOfRange { address, range: self.network });
        }
        match self.particular(Claim::Address(address), owner, owners).await? {
            Some(new) => Ok(new),
            None => Err(AllocateError::AddressTaken),
        }
    }

    /// This very node port. `Ok(false)` when the service had it before.
    pub(crate) async fn node_port(
        &self,
        port: u16,
        owner: &Owner,
        owners: &dyn Owners,
    ) -> Result<bool, AllocateError> {
        if !NODE_PORTS.contains(&port) {
            return Err(AllocateError::PortOutOfRange);
        }
        match self.particular(Claim::NodePort(port), owner, owners).await? {
            Some(new) => Ok(new),
            None => Err(AllocateError::PortTaken),
        }
    }

    /// `None` when somebody else has it. A claim whose service is gone is taken over.
    async fn particular(
        &self,
        claim: Claim,
        owner: &Owner,
        owners: &dyn Owners,
    ) -> Result<Option<bool>, AllocateError> {
        let held: Held = match self.claims.acquire(claim, owner).await? {
            Acquired::New => return Ok(Some(true)),
            Acquired::Ours => return Ok(Some(false)),
            Acquired::Taken(held) => held,
        };
        match &held.owner {
            Some(other) if !other.uid.is_empty() && !owners.exists(other).await => {
                let taken = self.claims.take_over(&held, owner).await?;
                Ok(taken.then_some(true))
            }
            _ => Ok(None),
        }
    }

    /// Gives up what `owner` holds of these.
    pub(crate) async fn release(
        &self,
        claims: impl IntoIterator<Item = Claim>,
        owner: &Owner,
    ) -> Result<(), ClaimError> {
        for claim in claims {
            self.claims.release(claim, owner).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pintle_store_api::memory::Memory;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_network_leaves_its_first_256_addresses_to_clients() {
        let band = Band::of_network("10.96.0.0/16".parse().unwrap());
        assert_eq!(Ipv4Addr::from(band.first), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(Ipv4Addr::from(band.dynamic), Ipv4Addr::new(10, 96, 1, 1));
        assert_eq!(Ipv4Addr::from(band.last), Ipv4Addr::new(10, 96, 255, 254));
    }

    fn allocator(store: &std::sync::Arc<Memory>, network: &str) -> Allocator {
        Allocator::new(Claims::new(store.clone()), network.parse().unwrap())
    }

    fn owner(name: &str) -> Owner {
        Owner { namespace: "t".into(), name: name.into(), uid: format!("{name}-uid") }
    }

    /// Says of every owner but one that it exists.
    struct AllBut(&'static str);

    #[async_trait::async_trait]
    impl Owners for AllBut {
        async fn exists(&self, owner: &Owner) -> bool {
            owner.name != self.0
        }
    }

    #[tokio::test]
    async fn members_hand_out_every_address_once_until_none_is_left() {
        let store = Memory::new();
        let members = [(); 3].map(|()| allocator(&store, "10.0.0.0/27"));
        let wishes = (0..30).map(|i| {
            let member = members[i % 3].clone();
            async move { member.any_address(&owner(&format!("s{i}"))).await.unwrap() }
        });
        let mut given = futures::future::join_all(wishes).await;
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 30);
        let full = members[0].any_address(&owner("late")).await;
        assert!(matches!(full, Err(AllocateError::Full)), "{full:?}");
        members[1].release([Claim::Address(given[7])], &owner("somebody")).await.unwrap();
        assert!(members[0].any_address(&owner("late")).await.is_err(), "not the owner's release");
        let held = members[2].claims().find(Claim::Address(given[7])).await.unwrap().unwrap();
        members[1].release([held.claim], held.owner.as_ref().unwrap()).await.unwrap();
        assert_eq!(members[0].any_address(&owner("late")).await.unwrap(), given[7]);
    }

    #[tokio::test]
    async fn a_wanted_port_is_taken_kept_or_inherited() {
        let store = Memory::new();
        let member = allocator(&store, "10.0.0.0/24");
        let (a, b, alive) = (owner("a"), owner("b"), AllBut(""));
        assert!(member.node_port(30000, &a, &alive).await.unwrap());
        assert!(!member.node_port(30000, &a, &alive).await.unwrap(), "it was ours before");
        let taken = member.node_port(30000, &b, &alive).await;
        assert!(matches!(taken, Err(AllocateError::PortTaken)), "{taken:?}");
        assert!(member.node_port(30000, &b, &AllBut("a")).await.unwrap(), "its owner is gone");
        let late = member.claims().release(Claim::NodePort(30000), &a).await;
        assert!(late.is_ok() && member.claims().looks_taken(Claim::NodePort(30000)).await.unwrap());
        let outside = member.node_port(29999, &a, &alive).await;
        assert!(matches!(outside, Err(AllocateError::PortOutOfRange)), "{outside:?}");
    }

    proptest! {
        #[test]
        fn looking_through_a_range_finds_every_number_once(prefix in 20u8..=30, seed in any::<u32>()) {
            let network = Ipv4Net::new(Ipv4Addr::from(seed), prefix).unwrap().trunc();
            let band = Band::of_network(network);
            let mut numbers: Vec<u32> = band.all().collect();
            prop_assert!(band.dynamic >= band.first && band.dynamic <= band.last);
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (band.first..=band.last).collect::<Vec<_>>());
            let hosts: Vec<u32> = network.hosts().map(u32::from).collect();
            prop_assert_eq!((band.first, band.last), (hosts[0], hosts[hosts.len() - 1]));
        }

        #[test]
        fn a_guess_stays_in_the_dynamic_part(_ in 0..100) {
            let band = Band::of_node_ports();
            let guess = band.guess();
            prop_assert!(guess >= band.dynamic && guess <= band.last);
        }
    }
}
