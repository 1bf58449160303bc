//! What a client asks for once it is logged in: the first byte of a message says what, the rest belongs to it.
//!
//! Source: MySQL documentation, "Command Phase"; MariaDB Knowledge Base, "COM_STMT_BULK_EXECUTE".

use std::borrow::Cow;

use bytes::{BufMut, Bytes};

use super::{codec::u32_le, packet::packet};
use crate::{frontend::whole_characters, read::Reader};

/// The codes of commands.
#[derive(Clone, Copy, Debug)]
pub struct Code;

impl Code {
    /// Says goodbye.
    pub const QUIT: u8 = 0x01;
    /// Chooses a database.
    pub const INIT_DB: u8 = 0x02;
    /// Runs statements.
    pub const QUERY: u8 = 0x03;
    /// Lists columns of a table.
    pub const FIELD_LIST: u8 = 0x04;
    /// Makes a database.
    pub const CREATE_DB: u8 = 0x05;
    /// Removes a database.
    pub const DROP_DB: u8 = 0x06;
    /// Empties caches, rotates logs.
    pub const REFRESH: u8 = 0x07;
    /// Stops the server.
    pub const SHUTDOWN: u8 = 0x08;
    /// Asks how the server is.
    pub const STATISTICS: u8 = 0x09;
    /// Lists connections.
    pub const PROCESS_INFO: u8 = 0x0a;
    /// Ends another connection.
    pub const PROCESS_KILL: u8 = 0x0c;
    /// Makes the server write what it is doing.
    pub const DEBUG: u8 = 0x0d;
    /// Asks whether the server is there.
    pub const PING: u8 = 0x0e;
    /// Becomes another user.
    pub const CHANGE_USER: u8 = 0x11;
    /// Asks for the stream of changes.
    pub const BINLOG_DUMP: u8 = 0x12;
    /// Prepares a statement.
    pub const STMT_PREPARE: u8 = 0x16;
    /// Runs a prepared statement.
    pub const STMT_EXECUTE: u8 = 0x17;
    /// Sends a part of a parameter.
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    /// Forgets a prepared statement.
    pub const STMT_CLOSE: u8 = 0x19;
    /// Forgets what was sent for a prepared statement.
    pub const STMT_RESET: u8 = 0x1a;
    /// Switches several statements at once on or off.
    pub const SET_OPTION: u8 = 0x1b;
    /// Asks for rows of a cursor.
    pub const STMT_FETCH: u8 = 0x1c;
    /// Asks for the stream of changes, by transaction ids.
    pub const BINLOG_DUMP_GTID: u8 = 0x1e;
    /// Makes the connection as new.
    pub const RESET_CONNECTION: u8 = 0x1f;
    /// MariaDB: runs a prepared statement with many rows of parameters.
    pub const STMT_BULK_EXECUTE: u8 = 0xfa;
}

/// A text as far as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Bytes that are not UTF-8 are replaced; a character cut in two is dropped.
    pub text: Cow<'a, str>,
    /// Whether it went on.
    pub truncated: bool,
}

/// A command, from the first bytes of its message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command<'a> {
    /// Becomes another user.
    ChangeUser,
    /// Makes a database of this name.
    CreateDatabase(Text<'a>),
    /// Makes the server write what it is doing.
    Debug,
    /// Removes the database of this name.
    DropDatabase(Text<'a>),
    /// Ends the connection with this number.
    Kill(u32),
    /// Chooses a database.
    OpenDatabase(Text<'a>),
    /// Anything else, by its code: nothing that changes or reads data.
    Other(u8),
    /// Prepares a statement.
    Prepare(Text<'a>),
    /// Runs statements.
    Query(Text<'a>),
    /// Says goodbye.
    Quit,
    /// Empties caches, rotates logs; the bits say which.
    Refresh(u8),
    /// Asks for the stream of changes.
    Replicate,
    /// Stops the server.
    Shutdown,
    /// Does something to a prepared statement.
    Statement {
        /// What: one of the `STMT_` codes.
        code: u8,
        /// The server's number for it.
        id: u32,
    },
}

impl<'a> Command<'a> {
    /// Reads a command from the kept bytes of its message; `None` for an empty one.
    pub fn parse(head: &'a [u8], total_len: u64) -> Option<Self> {
        let (&code, rest) = head.split_first()?;
        let is_cut = u64::try_from(head.len()).is_ok_and(|kept| kept < total_len);
        let text = || text(rest, is_cut);
        let number = || u32_le(&mut Reader::new(rest)).unwrap_or_default();
        Some(match code {
            Code::CHANGE_USER => Self::ChangeUser,
            Code::CREATE_DB => Self::CreateDatabase(text()),
            Code::DEBUG => Self::Debug,
            Code::DROP_DB => Self::DropDatabase(text()),
            Code::PROCESS_KILL => Self::Kill(number()),
            Code::INIT_DB => Self::OpenDatabase(text()),
            Code::STMT_PREPARE => Self::Prepare(text()),
            Code::QUERY => Self::Query(text()),
            Code::QUIT => Self::Quit,
            Code::REFRESH => Self::Refresh(rest.first().copied().unwrap_or_default()),
            Code::BINLOG_DUMP | Code::BINLOG_DUMP_GTID => Self::Replicate,
            Code::SHUTDOWN => Self::Shutdown,
            Code::STMT_EXECUTE
            | Code::STMT_SEND_LONG_DATA
            | Code::STMT_CLOSE
            | Code::STMT_RESET
            | Code::STMT_FETCH
            | Code::STMT_BULK_EXECUTE => Self::Statement { code, id: number() },
            code => Self::Other(code),
        })
    }
}

fn text(bytes: &[u8], is_cut: bool) -> Text<'_> {
    let kept = if is_cut {
        whole_characters(bytes)
    } else {
        bytes
    };
    Text {
        text: String::from_utf8_lossy(kept),
        truncated: is_cut,
    }
}

/// Says goodbye.
pub fn quit() -> Bytes {
    Bytes::from_static(&[1, 0, 0, 0, Code::QUIT])
}

/// A command with its text.
pub fn command(code: u8, text: &str) -> Bytes {
    packet(0, |out| {
        out.put_u8(code);
        out.put_slice(text.as_bytes());
    })
    .freeze()
}
