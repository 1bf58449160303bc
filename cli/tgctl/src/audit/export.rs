//! `tgctl audit export`: the log as JSON lines.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use prost::Message as _;
use tidegate_console::{Failure, client::Client, output};
use tidegate_proto::{
    audit::Line,
    v1::{AuditEvent, AuditLogId, ReadRecordsResponse},
};

use super::{Records, say_who_answered};
use crate::args::AuditExportArgs;

pub(crate) async fn export(client: &Client, args: AuditExportArgs) -> Result<(), Failure> {
    let (mut records, log, first) = Records::open(client, args.source).await?;
    let to_stdout = args.output.as_os_str() == "-";
    let mut beside = args.output.clone().into_os_string();
    beside.push(".part");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe if to_stdout => Failure::quiet(),
        _ => Failure::new(format!("cannot write `{}`: {error}", args.output.display())),
    };
    let mut sink: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout())
    } else {
        Box::new(private(Path::new(&beside)).map_err(failed)?)
    };
    let mut writer = BufWriter::new(&mut sink);
    let mut next = Some(first);
    let mut count = 0;
    while let Some(part) = next {
        count += part.records.len();
        write_part(&log, &part, &mut writer).map_err(failed)?;
        next = records.next().await?;
    }
    writer.flush().map_err(failed)?;
    drop(writer);
    drop(sink);
    if !to_stdout {
        std::fs::rename(&beside, &args.output).map_err(failed)?;
        output::remark(&format!(
            "Wrote {count} events to `{}`.",
            args.output.display()
        ));
    }
    say_who_answered(&log);
    Ok(())
}

/// A new file that only its owner may read: events tell who did what.
fn private(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn write_part(
    log: &AuditLogId,
    part: &ReadRecordsResponse,
    writer: &mut impl Write,
) -> io::Result<()> {
    let mut text = Vec::new();
    for record in &part.records {
        // A record that is no event any more stays in the export: verifying the file then says so.
        let event = AuditEvent::decode(record.event.as_slice()).unwrap_or_default();
        text.clear();
        Line {
            log: &log.log,
            hash: &record.hash,
            record: &record.event,
            event: &event,
        }
        .append_to(&mut text)?;
        writer.write_all(&text)?;
    }
    Ok(())
}
