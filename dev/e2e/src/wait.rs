//! Waiting for a state, never for a fixed time.

use std::{fmt, future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything in the laboratory may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks again and again until `look` finds what it looks for.
///
/// # Errors
///
/// After [`PATIENCE`], with what was seen last.
pub async fn until<T, E, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    E: fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                bail!("waited {} s for {what}: {seen}", PATIENCE.as_secs())
            }
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}
