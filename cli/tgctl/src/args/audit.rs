//! `tgctl audit`: search, verify and export what happened.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use tidegate_console::{Format, when};

/// How a point in time is written.
const TIMES: &str = "an instant (`2026-11-22T10:00:00Z`), a date (its midnight in UTC), or how long ago (`2h`, `3d`)";

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Write events as JSON lines that can be verified without the cluster.
    #[command(
        after_help = "Examples:\n  tgctl audit export -o audit.jsonl\n  tgctl audit export -o - | jq -r 'select(.event == \"db.session.query\") | .db_query'\n  tgctl audit verify -f audit.jsonl"
    )]
    Export(AuditExportArgs),
    /// List events, the newest last.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  tgctl audit search --from=2h --event=db.session.start\n  tgctl audit search --from=2026-11-01 --to=2026-12-01 --user=alice --limit=100000 --format=json\n  tgctl audit ls --limit=1000 --format=json | jq '.[].db_service'"
    )]
    Search(AuditSearchArgs),
    /// Check that nothing was changed, removed, put in or moved. The exit code is 1 when something was.
    #[command(
        after_help = "Examples:\n  tgctl audit verify --heads=heads.json      # also shows an end that was cut off since the last time\n  tgctl audit verify --source=4f1c0f2a-7f5c-4ed5-9b3a-0a5d3c1b2e77\n  tgctl audit verify -f audit-1.jsonl -f audit-2.jsonl"
    )]
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditSearchArgs {
    /// Only this event, such as `db.session.start`.
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// Only events of this user.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Only events of this database.
    #[arg(long, value_name = "NAME")]
    pub(crate) db: Option<String>,
    /// Only events of this session.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Not before: an instant, a date (its midnight in UTC), or how long ago, such as `2h` or `3d`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) from: Option<Timestamp>,
    /// Before: written like `--from`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) to: Option<Timestamp>,
    /// At most this many, the newest.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// Only what this host sent, by its id.
    #[arg(long, value_name = "HOST_ID")]
    pub(crate) source: Option<String>,
    /// Files that `tgctl audit export` or the continuous export wrote, in order, instead of the cluster's log.
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where the ends of chains are remembered: what is in it is held against the log, and what was found is written to
    /// it when all is well.
    #[arg(long, value_name = "FILE")]
    pub(crate) heads: Option<PathBuf>,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct AuditExportArgs {
    /// The file to write, which is replaced when everything was read; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Only what this host sent, by its id.
    #[arg(long, value_name = "HOST_ID")]
    pub(crate) source: Option<String>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    read_time(text, Timestamp::now()).ok_or_else(|| format!("expected {TIMES}"))
}

fn read_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(date) = text.parse::<Date>() {
        return date
            .to_zoned(TimeZone::UTC)
            .ok()
            .map(|midnight| midnight.timestamp());
    }
    let span = text.strip_suffix("ago").unwrap_or(text).trim();
    // A number alone means minutes elsewhere; here it could be meant as a year.
    if span.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let span = SignedDuration::try_from(when::parse_span(span).ok()?).ok()?;
    now.checked_sub(span).ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_commands_of_the_guide_are_understood() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/audit.md");
        let guide = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = guide
            .lines()
            .filter_map(|line| line.strip_prefix("$ "))
            .collect();
        assert!(lines.len() >= 3);
        for line in lines {
            let parsed = crate::args::Tgctl::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}");
        }
    }

    #[test]
    fn times_are_instants_dates_or_how_long_ago() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let read = |text: &str| read_time(text, now).map(|at| at.to_string());
        for (text, expected) in [
            ("2026-11-22T08:30:00Z", "2026-11-22T08:30:00Z"),
            ("2026-11-22T08:30:00+01:00", "2026-11-22T07:30:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
            ("2h", "2026-11-22T08:00:00Z"),
            ("3d ago", "2026-11-19T10:00:00Z"),
            ("1h30m", "2026-11-22T08:30:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for bad in ["", "2026", "yesterday", "-2h", "2026-13-01", "0h"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
