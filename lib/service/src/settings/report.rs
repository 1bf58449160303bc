//! What was found while reading: errors, what keeps a process from starting, and warnings.

use std::{cell::RefCell, path::Path};

use super::{ConfigError, ConfigProblem, Warning, yaml::Position};

/// Most findings of one kind that are kept: what a person can use, and then some.
const FINDINGS_MAX: usize = 1000;

/// What was found while reading.
#[derive(Default)]
pub(super) struct Report {
    findings: RefCell<Findings>,
}

#[derive(Default)]
struct Findings {
    errors: Vec<ConfigProblem>,
    blockers: Vec<ConfigProblem>,
    warnings: Vec<Warning>,
    notes: Vec<Warning>,
}

/// What did not stop the file from being read.
pub(super) struct Remarks {
    /// What a start must refuse.
    pub(super) blockers: Vec<ConfigProblem>,
    pub(super) warnings: Vec<Warning>,
    /// What is as it should be and worth knowing.
    pub(super) notes: Vec<Warning>,
}

impl Report {
    pub(super) fn error(&self, problem: ConfigProblem) {
        push_bounded(&mut self.findings.borrow_mut().errors, problem);
    }

    /// Notes what is fine for a fragment that is looked at, and not for a process that starts.
    pub(super) fn blocker(&self, problem: ConfigProblem) {
        push_bounded(&mut self.findings.borrow_mut().blockers, problem);
    }

    pub(super) fn warn(&self, at: Position, message: String) {
        let warning = Warning {
            line: at.line,
            message,
        };
        push_bounded(&mut self.findings.borrow_mut().warnings, warning);
    }

    pub(super) fn note(&self, at: Position, message: String) {
        let note = Warning {
            line: at.line,
            message,
        };
        push_bounded(&mut self.findings.borrow_mut().notes, note);
    }

    /// Takes over what was found in a section that is switched off: worth knowing, and no more.
    pub(super) fn absorb_disabled(&self, other: Self) {
        let Findings {
            errors, blockers, ..
        } = other.findings.into_inner();
        for problem in errors.into_iter().chain(blockers) {
            let at = Position {
                line: problem.line,
                column: problem.column,
            };
            self.warn(at, format!("{problem} (the section is switched off)"));
        }
    }

    /// The remarks when nothing was wrong, the errors otherwise.
    pub(super) fn finish(self, file: &Path) -> Result<Remarks, ConfigError> {
        let Findings {
            errors,
            mut blockers,
            mut warnings,
            mut notes,
        } = self.findings.into_inner();
        if !errors.is_empty() {
            return Err(ConfigError::of(file, errors));
        }
        warnings.sort_by_key(|warning| warning.line);
        notes.sort_by_key(|note| note.line);
        blockers.sort_by_key(|problem| (problem.line, problem.column));
        Ok(Remarks {
            blockers,
            warnings,
            notes,
        })
    }
}

fn push_bounded<T>(findings: &mut Vec<T>, finding: T) {
    if findings.len() < FINDINGS_MAX {
        findings.push(finding);
    }
}
