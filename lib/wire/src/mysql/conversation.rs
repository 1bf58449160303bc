//! Whose turn it is in a session, from the bytes of both directions as they pass.
//!
//! Commands are answered one after the other, in the shape that each has: one packet, columns and rows, a request for a
//! file. Following that shape tells when nothing runs, whether a transaction is open, and which of the client's messages
//! are commands: the contents of a file for `LOAD DATA LOCAL` are none.
//!
//! Invariant: what a client sends is a command here whenever the server takes it for one. Where that could not be told,
//! because a client sends on while its statement may ask for a file, the conversation ends with an error instead.
//!
//! Source: MySQL documentation, "Command Phase", "COM_QUERY Response", "LOCAL INFILE Request".

use std::collections::VecDeque;

use super::{
    Capabilities,
    codec::{NULL, lenenc},
    command::{Code, Command},
    packet::{Event, Scanner},
    reply::{
        EOF, EOF_BYTES_MAX, ERR, OK, PROGRESS_CODE, ServerError, Status, eof_status, ok_status,
    },
};
use crate::read::Reader;

/// Commands that may wait for their answers at once; connectors that send ahead stop far below.
pub const COMMANDS_MAX: usize = 16 << 10;

/// The most of an answer that is looked at: enough for the status of OK and the code of ERR.
const ANSWER_HEAD_BYTES: usize = 32;

/// Why what passes cannot be told any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConversationError {
    /// The client sent more behind a statement that asks for a file.
    #[error("commands behind a statement that asks the client for a file")]
    BehindFileRequest,
    /// The server spoke while it was the client's turn to send a file.
    #[error("the server spoke while the client sends a file")]
    DuringFile,
    /// More than [`COMMANDS_MAX`].
    #[error("more than {COMMANDS_MAX} commands wait for their answers")]
    TooManyCommands,
}

/// A command that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    /// What it is.
    pub command: Command<'a>,
    /// Bytes of its message.
    pub bytes: u64,
}

/// What an answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// An error.
    Error,
    /// A row.
    Row,
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One packet, whatever it is.
    One,
    /// Definitions of parameters and columns.
    Prepared,
    /// OK, or columns and rows, or a request for a file; perhaps several times.
    Results,
    /// Packets up to EOF or ERR.
    UpToEof,
}

/// How far the answer to the oldest command got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing of it came yet.
    First,
    /// So many column definitions are to come, then rows.
    Columns(u64),
    /// EOF behind the columns is to come.
    ColumnsEnd,
    /// Rows, up to the packet that ends them.
    Rows,
    /// So many packets that tell nothing, then it is over.
    Skip(u64),
    /// It is the client's turn to send a file.
    File,
}

/// One session, after its login.
#[derive(Debug)]
pub struct Conversation {
    client: Scanner,
    server: Scanner,
    capabilities: Capabilities,
    waiting: VecDeque<Shape>,
    stage: Stage,
    next_sequence: u8,
    in_transaction: bool,
    said_goodbye: bool,
    server_gave_up: bool,
}

impl Conversation {
    /// A session with these capabilities, whose client was just told OK; at most `keep_bytes_max` bytes of a command are
    /// kept.
    pub fn new(capabilities: Capabilities, keep_bytes_max: usize) -> Self {
        Self {
            client: Scanner::new(keep_bytes_max),
            server: Scanner::new(ANSWER_HEAD_BYTES),
            capabilities,
            waiting: VecDeque::new(),
            stage: Stage::First,
            next_sequence: 1,
            in_transaction: false,
            said_goodbye: false,
            server_gave_up: false,
        }
    }

    /// Takes the next bytes of the client and reports each command that ends in them.
    ///
    /// # Errors
    ///
    /// [`ConversationError`]; these bytes must not reach the server then.
    pub fn client_sent(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(Sent<'_>),
    ) -> Result<(), ConversationError> {
        let mut result = Ok(());
        let Self {
            client,
            waiting,
            stage,
            next_sequence,
            said_goodbye,
            ..
        } = self;
        client.feed(bytes, |event| {
            if *stage == Stage::File {
                *next_sequence = event.sequence.wrapping_add(1);
                if event.total_len == 0 {
                    *stage = Stage::First;
                }
                return;
            }
            let Some(command) = Command::parse(event.head, event.total_len) else {
                // The server takes it for a command that it does not know.
                result = result.and(wait(waiting, Shape::One));
                return;
            };
            if waiting.is_empty() {
                *next_sequence = event.sequence.wrapping_add(1);
            }
            *said_goodbye |= command == Command::Quit;
            if let Some(shape) = shape(event.head[0]) {
                result = result.and(wait(waiting, shape));
            }
            on(Sent {
                command,
                bytes: event.total_len,
            });
        });
        result
    }

    /// Takes the next bytes of the server and reports what they tell.
    ///
    /// # Errors
    ///
    /// [`ConversationError`]; these bytes must not reach the client then.
    pub fn server_sent(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(Told),
    ) -> Result<(), ConversationError> {
        let mut result = Ok(());
        let Self {
            server,
            capabilities,
            waiting,
            stage,
            next_sequence,
            in_transaction,
            server_gave_up,
            ..
        } = self;
        let mut answer = Answer {
            deprecate_eof: capabilities.has(Capabilities::DEPRECATE_EOF),
            waiting,
            stage,
            in_transaction,
            server_gave_up,
        };
        server.feed(bytes, |event| {
            *next_sequence = event.sequence.wrapping_add(1);
            if result.is_ok() {
                result = answer.take(event, &mut on);
            }
            if answer.waiting.is_empty() {
                // The next packet of the server is the first answer to the next command.
                *next_sequence = 1;
            }
        });
        result
    }

    /// Whether commands wait for their answers.
    pub fn is_running(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a transaction is open, as far as the server told.
    pub fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Whether the client said goodbye.
    pub fn said_goodbye(&self) -> bool {
        self.said_goodbye
    }

    /// Whether the server told the client by itself that the session is over.
    pub fn server_gave_up(&self) -> bool {
        self.server_gave_up
    }

    /// Whether a packet of ours may go to the client here; [`Self::next_sequence`] is its place then.
    pub fn may_speak_to_client(&self) -> bool {
        self.server.at_boundary()
    }

    /// Whether a command of ours may go to the server here.
    pub fn may_speak_to_server(&self) -> bool {
        self.client.at_boundary() && self.stage != Stage::File
    }

    /// The sequence number that the client expects next.
    pub fn next_sequence(&self) -> u8 {
        self.next_sequence
    }
}

fn wait(waiting: &mut VecDeque<Shape>, shape: Shape) -> Result<(), ConversationError> {
    if waiting.len() >= COMMANDS_MAX {
        return Err(ConversationError::TooManyCommands);
    }
    waiting.push_back(shape);
    Ok(())
}

/// The shape of a command's answer; `None` for one that is not answered.
fn shape(code: u8) -> Option<Shape> {
    match code {
        Code::QUIT | Code::STMT_CLOSE | Code::STMT_SEND_LONG_DATA => None,
        Code::QUERY | Code::PROCESS_INFO | Code::STMT_EXECUTE | Code::STMT_BULK_EXECUTE => {
            Some(Shape::Results)
        }
        Code::STMT_PREPARE => Some(Shape::Prepared),
        Code::FIELD_LIST | Code::STMT_FETCH | Code::BINLOG_DUMP | Code::BINLOG_DUMP_GTID => {
            Some(Shape::UpToEof)
        }
        _ => Some(Shape::One),
    }
}

/// What follows the server's side of a conversation.
struct Answer<'c> {
    deprecate_eof: bool,
    waiting: &'c mut VecDeque<Shape>,
    stage: &'c mut Stage,
    in_transaction: &'c mut bool,
    server_gave_up: &'c mut bool,
}

impl Answer<'_> {
    fn take(
        &mut self,
        event: Event<'_>,
        on: &mut impl FnMut(Told),
    ) -> Result<(), ConversationError> {
        let first = event.head.first().copied();
        let is_error = first == Some(ERR);
        if is_error && is_progress(event.head) {
            return Ok(());
        }
        if *self.stage == Stage::File {
            return Err(ConversationError::DuringFile);
        }
        if is_error {
            on(Told::Error);
        }
        let Some(shape) = self.waiting.front().copied() else {
            *self.server_gave_up |= is_error;
            return Ok(());
        };
        if is_error {
            self.over(None);
            return Ok(());
        }
        match *self.stage {
            Stage::First => return self.begin(shape, event, on),
            Stage::Columns(left) => self.after_column(left),
            Stage::ColumnsEnd => match eof_status(event.head) {
                Some(status) if status.has_cursor() => self.over(Some(status)),
                _ => *self.stage = Stage::Rows,
            },
            Stage::Rows => match self.end_of_rows(event) {
                Some(status) => self.over(status),
                None => on(Told::Row),
            },
            Stage::Skip(left) if left > 1 => *self.stage = Stage::Skip(left - 1),
            Stage::Skip(_) => self.over(None),
            Stage::File => {}
        }
        Ok(())
    }

    fn begin(
        &mut self,
        shape: Shape,
        event: Event<'_>,
        on: &mut impl FnMut(Told),
    ) -> Result<(), ConversationError> {
        match (shape, event.head.first().copied()) {
            (Shape::One, Some(OK)) => self.over(ok_status(event.head)),
            (Shape::One, Some(EOF)) => self.over(eof_status(event.head)),
            (Shape::One, _) => self.over(None),
            (Shape::UpToEof, _) => match self.end_of_rows(event) {
                Some(status) => self.over(status),
                None => {
                    *self.stage = Stage::Rows;
                    on(Told::Row);
                }
            },
            (Shape::Prepared, _) => match self.definitions(event.head) {
                0 => self.over(None),
                packets => *self.stage = Stage::Skip(packets),
            },
            (Shape::Results, Some(OK)) => self.over(ok_status(event.head)),
            (Shape::Results, Some(NULL)) if self.waiting.len() > 1 => {
                return Err(ConversationError::BehindFileRequest);
            }
            (Shape::Results, Some(NULL)) => *self.stage = Stage::File,
            (Shape::Results, _) => {
                let columns = lenenc(&mut Reader::new(event.head)).unwrap_or_default();
                *self.stage = Stage::Columns(columns);
                if columns == 0 {
                    self.after_column(0);
                }
            }
        }
        Ok(())
    }

    fn after_column(&mut self, left: u64) {
        *self.stage = match left {
            0 | 1 if self.deprecate_eof => Stage::Rows,
            0 | 1 => Stage::ColumnsEnd,
            left => Stage::Columns(left - 1),
        };
    }

    /// The packets that follow the first answer to a prepared statement.
    fn definitions(&self, head: &[u8]) -> u64 {
        let count = |from: usize| {
            head.get(from..from + 2).map_or(0, |bytes| {
                u64::from(u16::from_le_bytes([bytes[0], bytes[1]]))
            })
        };
        let with_end = |count: u64| match count {
            0 => 0,
            count if self.deprecate_eof => count,
            count => count + 1,
        };
        with_end(count(5)) + with_end(count(7))
    }

    /// `None` when it is a row, else the status behind the rows.
    fn end_of_rows(&self, event: Event<'_>) -> Option<Option<Status>> {
        if event.head.first() != Some(&EOF) {
            return None;
        }
        if event.total_len <= EOF_BYTES_MAX && !self.deprecate_eof {
            return Some(eof_status(event.head));
        }
        // A row that begins so has a field of more than 16 MiB.
        let is_end = self.deprecate_eof && event.total_len < 0xff_ffff;
        is_end.then(|| match event.total_len {
            // Some answers end with EOF all the same; OK is longer.
            5 => eof_status(event.head),
            _ => ok_status(event.head),
        })
    }

    /// This result is over; so is the answer, unless the status says that another follows.
    fn over(&mut self, status: Option<Status>) {
        *self.stage = Stage::First;
        if let Some(status) = status {
            *self.in_transaction = status.in_transaction();
            if status.more_results() {
                return;
            }
        }
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            // A burst of commands leaves no large queue behind.
            self.waiting.shrink_to(4);
        }
    }
}

fn is_progress(head: &[u8]) -> bool {
    ServerError::parse(head).is_some_and(|error| error.code == PROGRESS_CODE)
}
