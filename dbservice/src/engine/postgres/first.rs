//! The first message of a client inside TLS, read with bounds of size and time.

use bytes::{Bytes, BytesMut};
use tidegate_wire::startup::{FirstMessage, STARTUP_BYTES_MAX, parse_first};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::engine::session::STARTUP_TIMEOUT;

/// Why there is no usable first message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFirstError {
    #[error("encryption was asked for a second time")]
    AlreadyEncrypted,
    #[error("the client closed the connection before its start-up message")]
    Closed,
    #[error("the client's connection broke before its start-up message")]
    Io(#[from] std::io::Error),
    #[error("invalid start-up message: {0}")]
    Malformed(#[from] tidegate_wire::startup::StartupError),
    #[error("no start-up message came in {} s", STARTUP_TIMEOUT.as_secs())]
    TimedOut,
}

/// Reads the first message; what came behind it is the beginning of the session.
pub(crate) async fn read_first<S>(client: &mut S) -> Result<(FirstMessage, Bytes), ReadFirstError>
where
    S: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        if let Some((message, len)) = parse_first(&buffer)? {
            return Ok((message, buffer.split_off(len).freeze()));
        }
        // A message that is still incomplete here is shorter than this.
        buffer.reserve(1024.min(STARTUP_BYTES_MAX));
        if client.read_buf(&mut buffer).await? == 0 {
            return Err(ReadFirstError::Closed);
        }
    }
}
