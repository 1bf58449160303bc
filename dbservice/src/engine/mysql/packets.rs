//! Packets of a handshake, read whole from a stream and with a bound.

use bytes::BytesMut;
use tidegate_wire::mysql::packet::{HANDSHAKE_BYTES_MAX, Packet, TooLong, take_packet};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are asked for at a time.
const READ_BYTES: usize = 1024;

/// Why there is no packet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the connection was closed during the handshake")]
    Closed,
    #[error("the connection broke during the handshake")]
    Io(#[from] std::io::Error),
    #[error("a packet of the handshake is too long")]
    TooLong(#[from] TooLong),
}

/// Reads the next packet; what came behind it stays in `buffer`.
pub(crate) async fn next<S>(stream: &mut S, buffer: &mut BytesMut) -> Result<Packet, ReadError>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some(packet) = take_packet(buffer, HANDSHAKE_BYTES_MAX)? {
            return Ok(packet);
        }
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Err(ReadError::Closed);
        }
    }
}
