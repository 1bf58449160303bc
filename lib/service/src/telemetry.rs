//! Logging: one subscriber for the process, set up from the `log` settings.
//!
//! Spans carry identity, events carry what happened; times are UTC in RFC 3339. A panic is logged like any error,
//! with its place, so that it reaches wherever the log goes.

use std::{
    collections::HashSet,
    error::Error,
    fs::{File, OpenOptions},
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{self, MakeWriter, writer::BoxMakeWriter},
    util::SubscriberInitExt,
};

use crate::settings::{LogFormat, LogOutput, LogSettings};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Logging was set up before in this process.
    #[error("could not set up logging, it is set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
    /// The filter does not parse; the operator has to change it.
    #[error("log filter `{filter}` is not valid")]
    Filter {
        /// As written.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process is at its end: nothing logs any more.
    #[error("could not change what is logged, logging has ended")]
    Gone,
    /// The log file cannot be opened; the operator has to make it writable.
    #[error("could not open log file `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogFilter {
    set: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

impl LogFilter {
    /// Logs by this filter from here on.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Filter`]; the one before stays.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        if (self.set)(parsed(filter)?) {
            Ok(())
        } else {
            Err(TelemetryError::Gone)
        }
    }
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFilter").finish_non_exhaustive()
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

/// Sets up logging for the process. Can be done once.
///
/// # Errors
///
/// See [`TelemetryError`]; nothing is set up then.
pub fn init(settings: &LogSettings) -> Result<LogFilter, TelemetryError> {
    let filter = parsed(&settings.filter)?;
    let (writer, terminal) = open(&settings.output)?;
    let builder = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(terminal);
    let set: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>;
    match style(settings.format, terminal) {
        Style::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            set = Arc::new(move |filter| handle.reload(filter).is_ok());
            builder.finish().try_init()
        }
        Style::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            set = Arc::new(move |filter| handle.reload(filter).is_ok());
            builder.finish().try_init()
        }
    }
    .map_err(TelemetryError::AlreadySet)?;
    panic::set_hook(Box::new(log_panic));
    Ok(LogFilter { set })
}

/// An error and its causes, outermost first, joined by `: `. A cause that its parent already tells is left out.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let told = next.to_string();
        if !told.is_empty() && !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = next.source();
    }
    text
}

/// Distinct texts that a [`SaidOnce`] remembers.
pub const SAID_MAX: usize = 64;

/// Remembers what was said, so that a loop that keeps failing logs each distinct cause once and not each attempt.
#[derive(Debug, Default)]
pub struct SaidOnce {
    said: HashSet<String>,
}

impl SaidOnce {
    /// Nothing said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether `text` is said for the first time. Past [`SAID_MAX`] texts it begins anew.
    pub fn is_new(&mut self, text: &str) -> bool {
        if self.said.len() >= SAID_MAX {
            self.said.clear();
        }
        self.said.insert(text.to_owned())
    }

    /// Forgets everything, after a success.
    pub fn clear(&mut self) {
        self.said.clear();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Json,
    Text,
}

fn style(format: LogFormat, terminal: bool) -> Style {
    match format {
        LogFormat::Json => Style::Json,
        LogFormat::Text => Style::Text,
        LogFormat::Auto if terminal => Style::Text,
        LogFormat::Auto => Style::Json,
    }
}

/// Where to write, and whether a person looks at it.
fn open(output: &LogOutput) -> Result<(BoxMakeWriter, bool), TelemetryError> {
    Ok(match output {
        LogOutput::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        LogOutput::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
        LogOutput::File(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| TelemetryError::Open {
                    path: path.clone(),
                    source,
                })?;
            (BoxMakeWriter::new(LogFile(Mutex::new(file))), false)
        }
    })
}

/// A file that keeps logging after a thread panicked while it wrote.
struct LogFile(Mutex<File>);

impl<'w> MakeWriter<'w> for LogFile {
    type Writer = LineWriter<'w>;

    fn make_writer(&'w self) -> Self::Writer {
        LineWriter(
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

struct LineWriter<'w>(std::sync::MutexGuard<'w, File>);

impl io::Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("a panic without text");
    tracing::error!(panic.place = place, error = message, "panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layered {
        text: &'static str,
        source: Option<Box<Layered>>,
    }

    fn layers(texts: &[&'static str]) -> Layered {
        let (text, rest) = texts.split_first().unwrap();
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layered { text, source }
    }

    #[test]
    fn a_chain_tells_every_cause_once_outermost_first() {
        let error = layers(&[
            "could not join",
            "could not reach a:1: refused",
            "could not reach a:1: refused",
            "refused",
        ]);
        assert_eq!(
            chain(&error),
            "could not join: could not reach a:1: refused"
        );
        assert_eq!(
            chain(&layers(&["a failed", "b failed"])),
            "a failed: b failed"
        );
    }

    #[test]
    fn each_distinct_text_is_said_once_until_a_success() {
        let mut said = SaidOnce::new();
        assert!(said.is_new("refused"));
        assert!(!said.is_new("refused"));
        assert!(said.is_new("timed out"));
        said.clear();
        assert!(said.is_new("refused"));
        for number in 0..SAID_MAX * 2 {
            said.is_new(&number.to_string());
        }
        assert!(said.said.len() <= SAID_MAX);
    }

    #[test]
    fn people_get_text_and_programs_json_unless_told_otherwise() {
        assert_eq!(style(LogFormat::Auto, true), Style::Text);
        assert_eq!(style(LogFormat::Auto, false), Style::Json);
        assert_eq!(style(LogFormat::Json, true), Style::Json);
        assert_eq!(style(LogFormat::Text, false), Style::Text);
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused_with_its_text() {
        let settings = LogSettings {
            filter: "info,tidegate_proxy=loud".to_owned(),
            format: LogFormat::Auto,
            output: LogOutput::Stderr,
        };
        let error = init(&settings).unwrap_err();
        assert!(error.to_string().contains("tidegate_proxy=loud"), "{error}");
    }
}
