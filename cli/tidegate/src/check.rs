//! `tidegate config check`: what `start` would say of a file, without starting.

use std::path::Path;

use tidegate_service::settings::{self, Settings};

/// Prints `FILE: ok`, the warnings and the notes.
///
/// What would keep a process from starting here, such as a file that is not on this host, is a warning: fragments
/// and files for other hosts are checked too.
///
/// # Errors
///
/// When the file cannot be read or is wrong; the error tells everything.
pub(crate) fn check(file: &Path) -> anyhow::Result<()> {
    let settings = settings::load(file)?;
    for remark in remarks(&settings) {
        crate::complain(&format!("{}:{remark}", file.display()));
    }
    crate::print(&format!("{}: ok", file.display()));
    Ok(())
}

/// `LINE: warning: text` and `LINE: note: text` in the order of the file.
fn remarks(settings: &Settings) -> Vec<String> {
    let warnings = settings
        .warnings
        .iter()
        .map(|warning| (warning.line, "warning", warning.message.clone()));
    let notes = settings
        .notes
        .iter()
        .map(|note| (note.line, "note", note.message.clone()));
    let blockers = settings.blockers.iter().map(|problem| {
        (
            problem.line,
            "warning",
            format!("{problem} (`tidegate start` refuses this)"),
        )
    });
    let mut remarks: Vec<_> = warnings.chain(blockers).chain(notes).collect();
    remarks.sort_by_key(|(line, ..)| *line);
    remarks
        .into_iter()
        .map(|(line, kind, message)| match line {
            0 => format!(" {kind}: {message}"),
            line => format!("{line}: {kind}: {message}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_come_in_the_order_of_the_file() {
        let text = "tidegate:\n  pid_file: x\n  ca_pin: /nonexistent\nproxy_service: {}\n";
        let settings = settings::parse(text, Path::new("t.yaml")).unwrap();
        let remarks = remarks(&settings);
        assert!(
            remarks[0].starts_with(" warning: a proxy relays to the auth service"),
            "{remarks:?}"
        );
        assert!(
            remarks[1].starts_with("2: warning: tidegate.pid_file"),
            "{remarks:?}"
        );
        assert!(
            remarks[2].starts_with("3: warning: tidegate.ca_pin"),
            "{remarks:?}"
        );
    }
}
