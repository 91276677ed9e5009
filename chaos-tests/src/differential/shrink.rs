//! Makes a failing sequence short: drops stretches of it, ever shorter ones, as long as it fails.

use std::time::{Duration, Instant};

/// The shortest failing sequence found within `limit`. `fails` says whether one fails.
pub async fn shrink<T: Clone>(
    mut items: Vec<T>,
    limit: Duration,
    mut fails: impl AsyncFnMut(&[T]) -> bool,
) -> Vec<T> {
    let start = Instant::now();
    let mut stretch = items.len() / 2;
    while stretch > 0 {
        let mut from = 0;
        let mut dropped = false;
        while from < items.len() && start.elapsed() < limit {
            let mut shorter = items[..from].to_vec();
            shorter.extend_from_slice(&items[(from + stretch).min(items.len())..]);
            if fails(&shorter).await {
                items = shorter;
                dropped = true;
            } else {
                from += stretch;
            }
        }
        if !dropped || stretch > 1 {
            stretch /= 2;
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_is_what_it_takes_to_fail() {
        let fails = async |items: &[i32]| [3, 50, 97].iter().all(|item| items.contains(item));
        let left = shrink((0..100).collect(), Duration::from_secs(60), fails).await;
        assert_eq!(left, [3, 50, 97]);
    }
}
