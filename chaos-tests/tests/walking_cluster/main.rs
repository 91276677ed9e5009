//! The walking cluster: one scenario on real parts (kubectl, etcdctl, containerd), from the first
//! `up` over everyday work to the death of the leader and of everybody.
//!
//! `PINTLE` names the binary; `PINTLE_KEEP=1` leaves the cluster for a look; an argument runs only
//! the steps whose name contains it (after the start, which is always run).

mod control;
mod faults;
mod network;
mod objects;
mod pods;
mod rollout;

use std::path::PathBuf;
use std::process::ExitCode;

use pintle_chaos::{Cluster, Scenario};

/// The demo image and the one to roll over to.
const DEMO: &str = "localhost/pintle/demo:v1";
const DEMO_NEXT: &str = "localhost/pintle/demo:v2";
/// Away from the default, so that a cluster of the user's own is not in the way.
const BASE_PORT: &str = "17443";

/// A step: its name and what it does on the cluster.
type Step = (&'static str, fn(&Cluster) -> pintle_chaos::Result);

fn main() -> ExitCode {
    let Some(pintle) = std::env::var_os("PINTLE").map(PathBuf::from) else {
        eprintln!("PINTLE is not set to the binary under test; run `make e2e`");
        return ExitCode::FAILURE;
    };
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let dir = std::env::temp_dir().join(format!("pintle-e2e-{}", std::process::id()));
    let cluster = Cluster::new(&pintle, dir);
    let mut scenario = Scenario::default();
    scenario.step("up: three members, two nodes on containerd", || control::up(&cluster));
    if !scenario.holds() {
        control::print_logs(&cluster);
        return scenario.finish();
    }
    let steps: Vec<&[Step]> = vec![
        control::STEPS,
        objects::STEPS,
        pods::STEPS,
        network::STEPS,
        rollout::STEPS,
        faults::STEPS,
    ];
    for (name, step) in steps.concat() {
        if filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            scenario.step(name, || step(&cluster));
        }
    }
    if !scenario.holds() {
        control::print_logs(&cluster);
    }
    scenario.finish()
}
