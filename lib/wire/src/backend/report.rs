//! Errors and notices: one layout under two type bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::BackendTag;
use crate::{
    read::Reader,
    sqlstate::SqlState,
    write::{message, put_cstr},
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The whole server goes down.
    Panic,
    /// The connection ends.
    Fatal,
    /// The statement ends.
    Error,
    /// Something to look at.
    Warning,
    /// Something to know.
    Notice,
    /// Something that was asked for.
    Info,
    /// For whoever runs the server.
    Log,
    /// For whoever develops it.
    Debug,
}

impl Severity {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "PANIC",
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Log => "LOG",
            Self::Debug => "DEBUG",
        }
    }

    /// `None` for a word of another language.
    fn from_bytes(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"PANIC" => Self::Panic,
            b"FATAL" => Self::Fatal,
            b"ERROR" => Self::Error,
            b"WARNING" => Self::Warning,
            b"NOTICE" => Self::Notice,
            b"INFO" => Self::Info,
            b"LOG" => Self::Log,
            b"DEBUG" => Self::Debug,
            _ => return None,
        })
    }
}

/// An error as a database tells it to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// How bad it is.
    pub severity: Severity,
    /// What drivers switch on.
    pub code: SqlState,
    /// What failed, in one line.
    pub message: String,
    /// The facts.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl ErrorResponse {
    /// An error after which the connection ends.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// An error that ends a statement; the connection goes on.
    pub fn error(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    fn new(severity: Severity, code: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Adds the facts.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message as sent.
    pub fn encode(&self) -> Bytes {
        message(BackendTag::ERROR_RESPONSE, |out| self.put_fields(out)).freeze()
    }

    /// Reads the body of an error, however little it says.
    ///
    /// Some proxies send a message text alone: a severity or code that is missing or unknown reads
    /// as an error with [`SqlState::INTERNAL_ERROR`]. Text that is not UTF-8 is read with
    /// replacement characters, and a body that is cut gives the fields before the cut.
    pub fn parse(body: &[u8]) -> Self {
        let mut error = Self::error(SqlState::INTERNAL_ERROR, "");
        let mut reader = Reader::new(body);
        let mut fixed_severity = None;
        while let Some(field) = reader.u8().filter(|field| *field != 0) {
            let Some(value) = reader.cstr() else { break };
            let text = || String::from_utf8_lossy(value).into_owned();
            match field {
                b'S' => error.severity = Severity::from_bytes(value).unwrap_or(error.severity),
                b'V' => fixed_severity = Severity::from_bytes(value),
                b'C' => error.code = SqlState::from_bytes(value).unwrap_or(error.code),
                b'M' => error.message = text(),
                b'D' => error.detail = Some(text()),
                b'H' => error.hint = Some(text()),
                _ => {}
            }
        }
        error.severity = fixed_severity.unwrap_or(error.severity);
        error
    }

    fn put_fields(&self, out: &mut BytesMut) {
        let severity = self.severity.as_str();
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.code.as_str())),
            (b'M', Some(self.message.as_str())),
            (b'D', self.detail.as_deref()),
            (b'H', self.hint.as_deref()),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                out.put_u8(field);
                put_cstr(out, value);
            }
        }
        out.put_u8(0);
    }
}

/// A remark that ends nothing: the fields of an error under another type byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeResponse(pub ErrorResponse);

impl NoticeResponse {
    /// Something that the client's user should look at.
    pub fn warning(code: SqlState, message: impl Into<String>) -> Self {
        Self(ErrorResponse::new(Severity::Warning, code, message))
    }

    /// Adds the facts.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self(self.0.detail(detail))
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.hint(hint))
    }

    /// The message as sent.
    pub fn encode(&self) -> Bytes {
        message(BackendTag::NOTICE_RESPONSE, |out| self.0.put_fields(out)).freeze()
    }

    /// Reads the body of a notice, as [`ErrorResponse::parse`] does.
    pub fn parse(body: &[u8]) -> Self {
        Self(ErrorResponse::parse(body))
    }
}
