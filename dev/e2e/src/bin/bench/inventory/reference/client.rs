//! As much of a PostgreSQL client as the reference needs: prepared statements with binary answers, and COPY.
//!
//! Less of a client makes a faster reference: there is no pool and no task between the caller and the socket.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::{
    IsNull,
    message::{backend::Header, frontend},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Messages of the server, by type.
const COPY_IN_RESPONSE: u8 = b'G';
const DATA_ROW: u8 = b'D';
const ERROR_RESPONSE: u8 = b'E';
const READY_FOR_QUERY: u8 = b'Z';
/// Type and length.
const HEADER_BYTES: usize = 5;

const BINARY: i16 = 1;
const READ_BYTES: usize = 64 * 1024;

/// The columns of a row; an absent value is empty.
pub(in crate::inventory) type Row = Vec<Bytes>;

/// A connection that is ready.
pub(in crate::inventory) struct Client {
    stream: UnixStream,
    input: BytesMut,
    output: BytesMut,
}

impl Client {
    pub(super) async fn connect(socket: &Path, user: &str, database: &str) -> Result<Self> {
        let mut client = Self {
            stream: UnixStream::connect(socket).await?,
            input: BytesMut::new(),
            output: BytesMut::new(),
        };
        let parameters = [("user", user), ("database", database)];
        frontend::startup_message(parameters, &mut client.output)?;
        client.until_ready().await?;
        Ok(client)
    }

    /// Carries out a statement whose answer does not matter.
    pub(in crate::inventory) async fn run(&mut self, statement: &str) -> Result<()> {
        self.texts(statement).await.map(drop)
    }

    /// Carries out a statement; its rows as texts.
    pub(in crate::inventory) async fn texts(
        &mut self,
        statement: &str,
    ) -> Result<Vec<Vec<String>>> {
        frontend::query(statement, &mut self.output)?;
        let rows = self
            .until_ready()
            .await
            .with_context(|| statement.to_owned())?;
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        Ok(rows
            .iter()
            .map(|row| row.iter().map(text).collect())
            .collect())
    }

    /// Prepares a statement under a name.
    pub(in crate::inventory) async fn prepare(
        &mut self,
        name: &str,
        statement: &str,
    ) -> Result<()> {
        frontend::parse(name, statement, [], &mut self.output)?;
        frontend::sync(&mut self.output);
        self.until_ready()
            .await
            .with_context(|| statement.to_owned())?;
        Ok(())
    }

    /// Carries out what was prepared; its rows in binary.
    pub(in crate::inventory) async fn query(&mut self, name: &str) -> Result<Vec<Row>> {
        let none = |(), _: &mut BytesMut| Ok(IsNull::Yes);
        if frontend::bind("", name, [], [], none, [BINARY], &mut self.output).is_err() {
            bail!("`{name}` cannot be bound");
        }
        frontend::execute("", 0, &mut self.output)?;
        frontend::sync(&mut self.output);
        self.until_ready().await.with_context(|| name.to_owned())
    }

    pub(super) async fn copy_in(&mut self, statement: &str) -> Result<()> {
        frontend::query(statement, &mut self.output)?;
        self.send().await?;
        loop {
            match self.next().await? {
                (COPY_IN_RESPONSE, _) => return Ok(()),
                (ERROR_RESPONSE, body) => bail!("{}", told(&body)),
                _ => {}
            }
        }
    }

    pub(super) async fn copy_data(&mut self, rows: Bytes) -> Result<()> {
        frontend::CopyData::new(rows)?.write(&mut self.output);
        self.send().await
    }

    pub(super) async fn copy_done(&mut self) -> Result<()> {
        frontend::copy_done(&mut self.output);
        self.until_ready().await.map(drop)
    }

    async fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// Sends what is to be sent, and reads until the server waits again.
    async fn until_ready(&mut self) -> Result<Vec<Row>> {
        self.send().await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match self.next().await? {
                (DATA_ROW, body) => rows.push(columns(body)?),
                (ERROR_RESPONSE, body) => refused = Some(told(&body)),
                (READY_FOR_QUERY, _) => break,
                _ => {}
            }
        }
        match refused {
            Some(refused) => bail!("{refused}"),
            None => Ok(rows),
        }
    }

    /// The type and the body of the next message.
    async fn next(&mut self) -> Result<(u8, Bytes)> {
        loop {
            if let Some(header) = Header::parse(&self.input)? {
                // The length counts itself, and not the type.
                let length = usize::try_from(header.len())? + 1;
                if self.input.len() >= length {
                    let mut message = self.input.split_to(length).freeze();
                    message.advance(HEADER_BYTES);
                    return Ok((header.tag(), message));
                }
            }
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("PostgreSQL hung up");
            }
        }
    }
}

/// The values of a row: their number, then of each its length, -1 for none, and its bytes.
fn columns(mut body: Bytes) -> Result<Row> {
    let mut row = Row::with_capacity(body.try_get_u16()?.into());
    while body.has_remaining() {
        let length = usize::try_from(body.try_get_i32()?).unwrap_or(0);
        if length > body.remaining() {
            bail!("a row of PostgreSQL's is cut off");
        }
        row.push(body.split_to(length));
    }
    Ok(row)
}

/// What an error says: texts with a letter before each and a zero after it.
fn told(body: &[u8]) -> String {
    let texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    format!(
        "PostgreSQL refused: {}",
        texts.collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_value_is_empty_and_a_row_that_is_cut_off_is_refused() {
        let body = Bytes::from_static(&[0, 2, 0, 0, 0, 1, 7, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(
            columns(body).unwrap(),
            [Bytes::from_static(&[7]), Bytes::new()]
        );
        assert!(columns(Bytes::from_static(&[0, 1, 0, 0, 0, 9, 7])).is_err());
    }
}
