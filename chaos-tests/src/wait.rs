//! Waiting for a named condition. A time-out says what was seen last.

use std::time::{Duration, Instant};

use crate::Result;

const POLL: Duration = Duration::from_millis(100);

/// Asks `probe` until it answers `Ok`; its last `Err` is part of the failure.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s; last: {last}", limit.as_secs()));
            }
            Err(_) => pause(POLL),
        }
    }
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "the one place where a look is repeated")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// The same, for a probe that is asynchronous.
pub async fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s; last: {last}", limit.as_secs()));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
