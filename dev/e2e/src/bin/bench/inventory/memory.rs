//! What a process holds once it has come to rest.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::usage;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that have to agree, and how far apart they may be.
const LOOKS: usize = 4;
const SPREAD: f64 = 0.003;
/// How long a process may take.
const LOOKS_MAX: usize = 120;

/// The private bytes of a process, when they move no more.
pub(super) async fn settled(process: u32) -> Result<f64> {
    let mut seen = Vec::new();
    for _ in 0..LOOKS_MAX {
        seen.push(usage::private_bytes(process)?);
        if let Some(bytes) = steady(&seen) {
            return Ok(bytes);
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("the memory of process {process} does not come to rest: {seen:?}")
}

/// The last value, when the last few hardly differ.
fn steady(seen: &[f64]) -> Option<f64> {
    let last = seen
        .len()
        .checked_sub(LOOKS)
        .and_then(|from| seen.get(from..))?;
    let low = last.iter().copied().fold(f64::INFINITY, f64::min);
    let high = last.iter().copied().fold(0.0, f64::max);
    (high - low <= high * SPREAD).then_some(*last.last()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_come_to_rest_when_the_last_looks_agree() {
        assert_eq!(steady(&[1000.0, 1000.0, 1001.0]), None);
        assert_eq!(
            steady(&[500.0, 1000.0, 1000.0, 1001.0, 1000.0]),
            Some(1000.0)
        );
        assert_eq!(steady(&[1000.0, 1000.0, 1000.0, 1100.0]), None);
    }
}
