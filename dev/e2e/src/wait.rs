//! Waiting for a state, never for a fixed time.

use std::{fmt, future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything in the laboratory may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks, as a part of the patience: looking may cost what is looked at something.
const LOOKS: u32 = 1200;

/// Looks again and again until `look` finds what it looks for.
///
/// # Errors
///
/// After [`PATIENCE`], with what was seen last.
pub async fn until<T, E, F>(what: &str, look: impl FnMut() -> F) -> Result<T>
where
    E: fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    until_within(PATIENCE, what, look).await
}

/// As [`until`], with another patience.
///
/// # Errors
///
/// After `patience`, with what was seen last.
pub async fn until_within<T, E, F>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> Result<T>
where
    E: fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                bail!("waited {} s for {what}: {seen}", patience.as_secs())
            }
            Err(_) => sleep(patience / LOOKS).await,
        }
    }
}
