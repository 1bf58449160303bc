//! Where results go: text for people, JSON or YAML for programs.
//!
//! Results are on standard output and nothing else is; remarks are on standard error. A reader that went away
//! (`| head`) ends the program without a word.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::{Failure, Table, table};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; may change.
    #[default]
    Text,
    /// One JSON document; its fields stay.
    Json,
    /// One YAML document a resource, with the same fields as JSON.
    Yaml,
}

/// Writes results.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Results in this format.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format }
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// One value: the text for people, or the value as a document.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to.
    pub fn value<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&text()),
            Format::Json => print(&json(value)?),
            Format::Yaml => print(&yaml(value)?),
        }
    }

    /// Several values: the table for people, a JSON array, or one YAML document each.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to.
    pub fn list<T: Serialize>(
        &self,
        values: &[T],
        table: impl FnOnce() -> Table,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&table().render(table::terminal_width())),
            Format::Json => print(&json(&values)?),
            Format::Yaml => print(&yaml_documents(values)?),
        }
    }
}

/// Writes text to standard output as it is.
///
/// # Errors
///
/// When it cannot be written; a closed pipe gives a failure that says nothing.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(),
            _ => Failure::new(format!("cannot write to standard output: {error}")),
        })
}

/// A remark for whoever looks on, not part of the result. Lost when standard error is closed.
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A remark that the next one of its kind takes the place of; only for a person who looks on.
pub fn progress(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r{text}");
        let _ = stderr.flush();
    }
}

/// The last [`progress`] stays as it is.
pub fn end_progress() {
    if io::stderr().is_terminal() {
        remark("");
    }
}

/// Whether a person reads standard output.
#[must_use]
pub fn for_a_person() -> bool {
    io::stdout().is_terminal()
}

/// A JSON document, indented by four spaces, ending with a newline.
///
/// # Errors
///
/// When the value cannot be a document, which is a fault of the program.
pub fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, style,
        ))
        .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))
}

/// A YAML document.
///
/// # Errors
///
/// When the value cannot be a document, which is a fault of the program.
pub fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut options = serde_yaml::SerializerOptions::default();
    options.folded_wrap_chars = usize::MAX; // a long line stays a line, so that `grep` finds it
    let mut text = serde_yaml::to_string_with_options(value, options)
        .map_err(|error| Failure::new(format!("cannot write YAML: {error}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// YAML documents, with `---` between two of them; `[]` when there are none, so that it is still a document.
///
/// # Errors
///
/// As [`yaml`].
pub fn yaml_documents<T: Serialize>(values: &[T]) -> Result<String, Failure> {
    if values.is_empty() {
        return Ok("[]\n".to_owned());
    }
    let documents = values.iter().map(yaml).collect::<Result<Vec<_>, _>>()?;
    Ok(documents.join("---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Point {
        x: u8,
        name: &'static str,
    }

    const POINTS: [Point; 2] = [Point { x: 1, name: "a" }, Point { x: 2, name: "yes" }];

    #[test]
    fn json_is_indented_and_ends_with_a_newline() {
        assert_eq!(
            json(&POINTS[0]).unwrap(),
            "{\n    \"x\": 1,\n    \"name\": \"a\"\n}\n"
        );
    }

    #[test]
    fn a_long_line_of_yaml_is_not_folded_and_certificates_stay_readable() {
        let long = "word ".repeat(50);
        assert_eq!(
            yaml(&[long.trim()]).unwrap(),
            format!("- {}\n", long.trim())
        );
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(
            yaml(&std::collections::BTreeMap::from([("ca_cert", pem)])).unwrap(),
            "ca_cert: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\n"
        );
    }

    #[test]
    fn yaml_is_one_document_a_value_and_keeps_strings_strings() {
        let text = yaml_documents(&POINTS).unwrap();
        assert_eq!(text, "x: 1\nname: a\n---\nx: 2\nname: \"yes\"\n");
    }
}
