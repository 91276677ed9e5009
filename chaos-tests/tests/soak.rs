//! `kill -9` of store processes under load: no acknowledged write is lost, nothing is invented, no
//! watcher misses an event, and all members end with the same hash.
//!
//! `PINTLE` names the binary (`make e2e` sets it); `PINTLE_SOAK_ROUNDS` sets how many (3),
//! `PINTLE_SOAK_SEED` who is killed when (1).

use std::path::PathBuf;

use pintle_chaos::soak::soak;

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_members_are_killed() {
    let pintle = std::env::var_os("PINTLE").map(PathBuf::from);
    let pintle = pintle.expect("PINTLE names the binary under test; run `make e2e`");
    let rounds = number("PINTLE_SOAK_ROUNDS", 3);
    match soak(&pintle, rounds, number("PINTLE_SOAK_SEED", 1)).await {
        Ok(report) => println!("{report:?}"),
        Err(reason) => panic!("{reason}"),
    }
}
