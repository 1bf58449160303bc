//! What a process has used, as the kernel counts it.
//!
//! Source: proc(5), `/proc/PID/stat` and `/proc/PID/status`.

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
