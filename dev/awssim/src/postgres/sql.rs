//! A small client for PostgreSQL's simple query protocol, over a unix socket that asks for no
//! password. For set-up only.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Largest message taken from the server, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Rows of text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The connection failed or said what it should not.
    #[error("connection to PostgreSQL failed")]
    Connection(#[from] io::Error),
    /// The server refused.
    #[error("{code}: {message}")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
    },
}

impl SqlError {
    /// Whether the thing to make was there already, made by somebody else perhaps just now.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if ["42710", "42P04", "23505"].contains(&code.as_str()))
    }
}

/// A connection that is ready for a query.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    pub(crate) async fn connect(socket: &Path, user: &str, db: &str) -> Result<Self, SqlError> {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for text in [
            "user",
            user,
            "database",
            db,
            "application_name",
            "awssim",
            "",
        ] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&frame(None, &body)).await?;
        let mut client = Self { stream };
        client.until_ready().await?;
        Ok(client)
    }

    /// Runs one or more statements, together one transaction; the rows of all of them.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Rows, SqlError> {
        let body: Vec<u8> = sql.bytes().chain([0]).collect();
        self.stream.write_all(&frame(Some(b'Q'), &body)).await?;
        self.until_ready().await
    }

    /// As [`Client::run`], and closes the connection.
    pub(crate) async fn run_once(mut self, sql: &str) -> Result<Rows, SqlError> {
        let rows = self.run(sql).await?;
        self.stream.write_all(&frame(Some(b'X'), &[])).await?;
        Ok(rows)
    }

    async fn until_ready(&mut self) -> Result<Rows, SqlError> {
        let mut rows = Rows::new();
        let mut refused = None;
        loop {
            let (kind, body) = match self.read().await {
                Ok(message) => message,
                Err(error) => return Err(refused.unwrap_or(error.into())),
            };
            match kind {
                b'Z' => return refused.map_or(Ok(rows), Err),
                b'E' => refused = Some(parse_error(&body)),
                b'D' => rows.push(parse_row(&body).ok_or_else(malformed)?),
                b'R' if body != [0; 4] => {
                    let message = "the server asks for a password on its unix socket";
                    return Err(io::Error::other(message).into());
                }
                _ => {}
            }
        }
    }

    async fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let kind = self.stream.read_u8().await?;
        let length = self.stream.read_u32().await? as usize;
        let length = length.checked_sub(4).filter(|n| *n <= MESSAGE_BYTES_MAX);
        let mut body = vec![0; length.ok_or_else(malformed)?];
        self.stream.read_exact(&mut body).await?;
        Ok((kind, body))
    }
}

/// A message of the protocol; the start-up message has no type.
pub(crate) fn frame(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("messages made here are small");
    kind.into_iter()
        .chain(length.to_be_bytes())
        .chain(body.iter().copied())
        .collect()
}

/// `name` as a quoted identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string literal; needs `standard_conforming_strings`, which is the default.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn parse_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, after) = after.split_at_checked(length.unwrap_or(0))?;
        row.push(length.map(|_| String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Some(row)
}

fn parse_error(body: &[u8]) -> SqlError {
    let field = |kind: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| field.strip_prefix(&[kind]));
        found
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    SqlError::Refused {
        code: field(b'C'),
        message: field(b'M'),
    }
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "malformed message from PostgreSQL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn rows_tell_null_from_empty() {
        let body = [0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(parse_row(&body), Some(vec![None, Some(String::new())]));
        assert_eq!(parse_row(&body[..8]), None);
    }
}
