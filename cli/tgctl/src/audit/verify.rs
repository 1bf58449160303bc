//! `tgctl audit verify`: recomputes every chain here, from records that the auth service sends or from exported files.
//!
//! The hashes are computed by this program and not by the service, so that a service which was tampered with cannot
//! simply say that all is well; what it could still do, writing a whole chain anew or leaving its end out, shows against
//! remembered heads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use jiff::Timestamp;
use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table, client::Client, output, table::visible, when,
};
use tidegate_proto::audit::{Chain, Link, ReadLine, Repeats, Verifier, hex};

use super::{Records, heads, say_who_answered};
use crate::args::AuditVerifyArgs;

/// Longest line of a file that is read: far more than an event and its record can take.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Lines that cannot be read which are told one by one.
const UNREADABLE_TOLD_MAX: usize = 10;

/// What is found about one chain.
#[derive(Serialize)]
struct Report {
    log: String,
    source: String,
    records: u64,
    first_sequence: u64,
    last_sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time: Option<Timestamp>,
    head: String,
    sound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Report {
    fn new((log, source): (String, String), chain: &Chain) -> Self {
        Self {
            log,
            source,
            records: chain.count,
            first_sequence: chain.first_sequence,
            last_sequence: chain.head.sequence,
            first_time: chain.first_at,
            last_time: chain.last_at,
            head: hex(&chain.head.hash),
            sound: chain.broken.is_none(),
            broken_at: chain.broken.as_ref().map(|found| found.sequence),
            problem: chain.broken.as_ref().map(|found| found.problem.clone()),
        }
    }
}

/// Verifies the log of the instance that answers.
pub(crate) async fn verify(client: &Client, args: AuditVerifyArgs) -> Result<(), Failure> {
    let remembered = remembered(&args)?;
    let mut verifier = Verifier::new(Repeats::Refused, of_source(&remembered, &args));
    let (mut records, log, first) = Records::open(client, args.source.clone()).await?;
    let mut next = Some(first);
    while let Some(part) = next {
        for record in &part.records {
            verifier.read(Link {
                log: &log.log,
                source: &record.source,
                sequence: record.sequence,
                hash: &record.hash,
                event: &record.event,
            });
            if record.index_differs {
                verifier.accuse(
                    &log.log,
                    &record.source,
                    record.sequence,
                    "what the log searches it by is not what it says",
                );
            }
        }
        next = records.next().await?;
    }
    if args.format == Format::Text {
        say_who_answered(&log);
    }
    if !remembered.is_empty() && !remembered.keys().any(|(of, _)| *of == log.log) {
        output::remark(
            "No head of this log was remembered: an end that was cut off before now does not show.",
        );
    }
    conclude(verifier.finish(&[&log.log]), 0, remembered, &args)
}

/// Verifies exported files, one after the other.
pub(crate) fn verify_files(args: &AuditVerifyArgs) -> Result<(), Failure> {
    let remembered = remembered(args)?;
    let mut verifier = Verifier::new(Repeats::Allowed, of_source(&remembered, args));
    let mut logs = BTreeSet::new();
    let mut unreadable = 0;
    for path in &args.files {
        unreadable += read_file(path, args, &mut verifier, &mut logs)
            .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))?;
    }
    let logs: Vec<&str> = logs.iter().map(String::as_str).collect();
    conclude(verifier.finish(&logs), unreadable, remembered, args)
}

fn remembered(args: &AuditVerifyArgs) -> Result<heads::Heads, Failure> {
    args.heads
        .as_deref()
        .map_or_else(|| Ok(heads::Heads::new()), heads::read)
}

/// What is remembered of the chains that will be read.
fn of_source(remembered: &heads::Heads, args: &AuditVerifyArgs) -> heads::Heads {
    let mut wanted = remembered.clone();
    if let Some(only) = &args.source {
        wanted.retain(|(_, source), _| source == only);
    }
    wanted
}

/// Reads a file into the verifier; how many of its lines are no records.
fn read_file(
    path: &Path,
    args: &AuditVerifyArgs,
    verifier: &mut Verifier,
    logs: &mut BTreeSet<String>,
) -> std::io::Result<usize> {
    let mut file = BufReader::new(File::open(path)?);
    let mut unreadable = 0;
    for number in 1_u64.. {
        let mut bytes = Vec::new();
        if file
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)?
            == 0
        {
            break;
        }
        let text = String::from_utf8_lossy(&bytes);
        if text.trim().is_empty() {
            continue;
        }
        match text.parse::<ReadLine>() {
            Ok(line) => {
                if args
                    .source
                    .as_ref()
                    .is_none_or(|only| *only == line.event.server_id)
                {
                    read_line(&line, verifier);
                    logs.insert(line.log);
                }
            }
            Err(problem) => {
                unreadable += 1;
                if unreadable <= UNREADABLE_TOLD_MAX {
                    output::remark(&format!("{}:{number}: {problem}", path.display()));
                }
            }
        }
    }
    Ok(unreadable)
}

fn read_line(line: &ReadLine, verifier: &mut Verifier) {
    let (source, sequence) = (&line.event.server_id, line.event.sequence);
    verifier.read(Link {
        log: &line.log,
        source,
        sequence,
        hash: &line.hash,
        event: &line.record,
    });
    if !line.is_faithful {
        verifier.accuse(
            &line.log,
            source,
            sequence,
            "its line says something else than the record in it",
        );
    }
}

/// Reports, remembers, and fails when something is wrong.
fn conclude(
    chains: BTreeMap<(String, String), Chain>,
    unreadable: usize,
    mut remembered: heads::Heads,
    args: &AuditVerifyArgs,
) -> Result<(), Failure> {
    let broken = chains
        .values()
        .filter(|chain| chain.broken.is_some())
        .count();
    let reports: Vec<Report> = chains
        .iter()
        .map(|(key, chain)| Report::new(key.clone(), chain))
        .collect();
    Output::new(args.format).list(&reports, || table(&reports))?;
    for report in reports.iter().filter(|_| args.format == Format::Text) {
        if let (Some(at), Some(problem)) = (report.broken_at, &report.problem) {
            let source = visible(&report.source);
            output::remark(&format!("{source}: record {at}: {problem}"));
        }
    }
    if unreadable > 0 {
        return Err(Failure::new(format!(
            "the export is not as it was written: {unreadable} lines are no records"
        )));
    }
    if broken > 0 {
        return Err(Failure::new(format!(
            "the audit log is not as it was written: {broken} of {} chains are broken",
            chains.len()
        ))
        .hint(
            "keep the log as it is; compare it with exports from before the first broken record",
        ));
    }
    if let Some(path) = &args.heads {
        remembered.extend(chains.into_iter().map(|(key, chain)| (key, chain.head)));
        heads::write(path, &remembered)?;
    }
    Ok(())
}

fn table(reports: &[Report]) -> Table {
    let mut table = Table::new([
        "Source", "Records", "First", "Last", "Until", "Head", "State",
    ]);
    for report in reports {
        let state = report
            .broken_at
            .map_or_else(|| "sound".to_owned(), |at| format!("broken at {at}"));
        table.row([
            report.source.as_str(),
            &report.records.to_string(),
            &report.first_sequence.to_string(),
            &report.last_sequence.to_string(),
            &report.last_time.map(when::utc).unwrap_or_default(),
            &report.head,
            &state,
        ]);
    }
    table
}
