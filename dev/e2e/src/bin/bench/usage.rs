//! What a process has used, as the kernel counts it.
//!
//! Source: proc(5), `/proc/PID/stat`, `/proc/PID/status` and `/proc/PID/smaps_rollup`.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks that a second has in `/proc`: part of Linux's interface on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds, user and system, of a process so far.
///
/// # Errors
///
/// When there is no such process.
pub(crate) fn cpu_seconds(process_id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat"))
        .context("a measured process is gone")?;
    // The second field is the program's name in parentheses and may hold spaces.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .context("/proc/PID/stat")
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// The most memory, in MiB, that a process has had resident.
///
/// # Errors
///
/// When there is no such process.
pub(crate) fn peak_mib(process_id: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))
        .context("a measured process is gone")?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    Ok(kib.context("/proc/PID/status has no VmHWM")? / 1024.0)
}

/// The bytes that are resident and no other process's: heap, stacks, and the page cache that SQLite keeps for itself. The
/// program's own code and what the kernel caches of files are left out.
///
/// # Errors
///
/// When there is no such process.
pub(crate) fn private_bytes(process_id: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{process_id}/smaps_rollup"))
        .context("a measured process is gone")?;
    let kib: Vec<f64> = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect();
    anyhow::ensure!(
        kib.len() == 2,
        "/proc/PID/smaps_rollup tells nothing private"
    );
    Ok(kib.iter().sum::<f64>() * 1024.0)
}
