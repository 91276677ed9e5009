//! Random calls, answered by a real etcd and by our store: the answers must be the same.
//!
//! `PINTLE_DIFFERENTIAL_CALLS` sets how many (5,000), `PINTLE_DIFFERENTIAL_SEED` the first seed (1). A failing
//! run prints its calls as JSON; `PINTLE_DIFFERENTIAL_REPLAY` names a file of such calls, which are
//! then all that is run.

use std::time::Duration;

use pintle_chaos::differential::call::Call;
use pintle_chaos::differential::{Pair, Profile, generate, shrink};

/// Calls of one sequence: enough for history to grow, few enough to be shrunk.
const SEQUENCE: usize = 150;
/// Our client gives a connection up once 1,024 frames have come for streams that it has left, and a watch that
/// is left after its first answer often gets another.
const SEQUENCES_OF_A_PAIR: u64 = 50;
/// A shorter sequence fails in the same way or it does not: no need to wait long for it.
const SHRINKING_PATIENCE: Duration = Duration::from_secs(3);
const SHRINKING_MAX: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

async fn compare(profile: Profile, share: u64) {
    if std::env::var_os("PINTLE_DIFFERENTIAL_REPLAY").is_some() {
        return;
    }
    let first = number("PINTLE_DIFFERENTIAL_SEED", 1);
    let count = number("PINTLE_DIFFERENTIAL_CALLS", 5_000) * share / 100;
    let sequences = count.div_ceil(SEQUENCE as u64);
    let mut pair = Pair::start().await.expect("both start");
    for seed in first..first + sequences {
        if (seed - first + 1).is_multiple_of(SEQUENCES_OF_A_PAIR) {
            pair = Pair::start().await.expect("both start");
        }
        let calls = generate(seed, SEQUENCE, profile);
        run(&mut pair, &format!("{profile:?}, seed {seed}"), calls).await;
    }
    println!(
        "{profile:?}: {} calls, seeds {first} to {}",
        sequences * SEQUENCE as u64,
        first + sequences - 1
    );
}

async fn run(pair: &mut Pair, name: &str, calls: Vec<Call>) {
    let (kind, found) = match pair.run(&calls).await {
        Ok(None) => return,
        Ok(Some(difference)) => (difference.kind(), difference.to_string()),
        Err(reason) => (String::new(), reason),
    };
    pair.patience = SHRINKING_PATIENCE;
    let calls = shrink(calls, SHRINKING_MAX, async |calls: &[Call]| match pair.run(calls).await {
        Ok(None) => false,
        Ok(Some(difference)) => difference.kind() == kind,
        Err(_) => kind.is_empty(),
    })
    .await;
    let left = match pair.run(&calls).await {
        Ok(Some(difference)) => difference.to_string(),
        Ok(None) => "the shortened sequence passes now".to_owned(),
        Err(reason) => reason,
    };
    let json = serde_json::to_string(&calls).expect("plain data");
    panic!("{name}:\n{found}\n\nshortened to {} calls:\n{left}\n\n{json}", calls.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_calls_are_answered_as_etcd_answers_them() {
    compare(Profile::General, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kube_apiserver_sends_is_answered_as_etcd_answers_it() {
    compare(Profile::Kubernetes, 25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles_are_judged_as_etcd_judges_them() {
    compare(Profile::Auth, 25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_sequence_is_answered_as_etcd_answers_it() {
    let Some(path) = std::env::var_os("PINTLE_DIFFERENTIAL_REPLAY") else { return };
    let text = std::fs::read_to_string(&path).expect("the file of calls");
    let calls: Vec<Call> = serde_json::from_str(&text).expect("calls as they were printed");
    let mut pair = Pair::start().await.expect("both start");
    match pair.run(&calls).await {
        Ok(None) => {}
        Ok(Some(difference)) => panic!("{difference}"),
        Err(reason) => panic!("{reason}"),
    }
}
