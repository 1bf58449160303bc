//! A connection to a server's socket, for what the simulation itself has to do there.

use std::io;
use std::path::Path;

use tokio::net::UnixStream;

use super::wire::{self, Answer, ERR, OK};
use crate::postgres::sql::Rows;

/// Runs statements.
const COM_QUERY: u8 = 3;
/// First byte of NULL in a row.
const NULL: u8 = 0xfb;
/// First byte of EOF; a row that begins so is longer.
const EOF: u8 = 0xfe;
const EOF_BYTES_MAX: usize = 8;

/// A statement that failed, or a connection that did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    #[error("connection failed")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Server(String),
}

/// A connection as a user who needs no password.
#[derive(Debug)]
pub(crate) struct Client(UnixStream);

impl Client {
    pub(crate) async fn connect(socket: &Path, user: &str) -> Result<Self, SqlError> {
        let mut stream = UnixStream::connect(socket).await?;
        let (_, greeting) = wire::read(&mut stream).await?;
        refused(&greeting)?;
        wire::write(&mut stream, 1, &Answer::new(user).to_body()).await?;
        let (_, told) = wire::read(&mut stream).await?;
        refused(&told)?;
        match told.first() {
            Some(&OK) => Ok(Self(stream)),
            _ => Err(SqlError::Server(
                "the server asks for a password".to_owned(),
            )),
        }
    }

    /// Opens a database.
    pub(crate) async fn open(&mut self, database: &str) -> Result<(), SqlError> {
        self.run(&format!("USE {}", super::ident(database)))
            .await
            .map(drop)
    }

    /// Runs one statement, and gives its rows.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Rows, SqlError> {
        let mut body = vec![COM_QUERY];
        body.extend_from_slice(sql.as_bytes());
        wire::write(&mut self.0, 0, &body).await?;
        let (_, first) = wire::read(&mut self.0).await?;
        refused(&first)?;
        if first.first() == Some(&OK) {
            return Ok(Rows::new());
        }
        self.until_eof().await?;
        let rows = self.until_eof().await?;
        let columns = usize::from(first.first().copied().unwrap_or_default());
        rows.iter()
            .map(|row| fields(row, columns).ok_or_else(|| wire::malformed("no row").into()))
            .collect()
    }

    async fn until_eof(&mut self) -> Result<Vec<Vec<u8>>, SqlError> {
        let mut packets = Vec::new();
        loop {
            let (_, packet) = wire::read(&mut self.0).await?;
            refused(&packet)?;
            if packet.first() == Some(&EOF) && packet.len() <= EOF_BYTES_MAX {
                return Ok(packets);
            }
            packets.push(packet);
        }
    }
}

fn refused(packet: &[u8]) -> Result<(), SqlError> {
    match packet.split_first() {
        Some((&ERR, rest)) => Err(SqlError::Server(
            String::from_utf8_lossy(rest.get(2..).unwrap_or_default()).into_owned(),
        )),
        _ => Ok(()),
    }
}

/// The fields of a row of text; those of 251 bytes and more have longer lengths, which nothing here reads.
fn fields(mut row: &[u8], columns: usize) -> Option<Vec<Option<String>>> {
    let mut fields = Vec::new();
    for _ in 0..columns {
        let (&len, rest) = row.split_first()?;
        if len == NULL {
            fields.push(None);
            row = rest;
            continue;
        }
        let (text, rest) = rest.split_at_checked(usize::from(len))?;
        fields.push(Some(String::from_utf8_lossy(text).into_owned()));
        row = rest;
    }
    Some(fields)
}
