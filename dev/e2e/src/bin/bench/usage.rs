//! What a process has used, as the kernel counts it.
//!
//! Source: proc(5), `/proc/PID/stat`, `/proc/PID/status` and `/proc/PID/smaps_rollup`.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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
    Ok(status_kib(process_id, "VmHWM:")? / 1024.0)
}

/// The bytes that a process has resident, the program's own code included.
///
/// # Errors
///
/// When there is no such process.
pub(crate) fn resident_bytes(process_id: u32) -> Result<f64> {
    Ok(status_kib(process_id, "VmRSS:")? * 1024.0)
}

fn status_kib(process_id: u32, line: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))
        .context("a measured process is gone")?;
    let kib = status.lines().find_map(|found| {
        found
            .strip_prefix(line)?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    kib.with_context(|| format!("/proc/PID/status has no {line}"))
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

/// Makes room for this process's connections; those that it starts inherit it.
///
/// # Errors
///
/// When the system does not allow so many.
pub(crate) fn raise_open_files(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).with_context(|| {
            format!("{wanted} open files are not allowed: raise `ulimit -n`, or ask for less")
        })?;
    }
    Ok(())
}
