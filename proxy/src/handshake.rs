//! Carries a connection through its opening: reads, answers requests for encryption, and hands on what it is.
//!
//! The thin shell of [`crate::opening`]. Bounded by [`HANDSHAKE_MAX`] from the first byte to the last.
//!
//! Not here: TLS itself; the ClientHello is only looked at and handed on with the socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    net,
    opening::{OPENING_BYTES_MAX, Opening, Phase, Refusal, Step},
};

/// From accept to knowing what a connection is.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A typical ClientHello with a post-quantum key share fits.
pub(crate) const RECEIVED_BYTES_USUAL: usize = 2 << 10;

/// How an opening ended.
#[derive(Debug)]
pub(crate) enum Opened {
    /// With an answer: what it is, and the bytes that whoever serves it must see again.
    As(Opening, Bytes, TcpStream),
    /// Not begun: its source has too many connections that have not said what they want.
    Limited,
    /// The peer left, or the socket broke, before there was anything to answer.
    Gone,
    /// It was turned away, and told why.
    Refused(Refusal),
}

/// Reads until it is clear what the connection is; `received` came already.
pub(crate) async fn open(mut stream: TcpStream, received: BytesMut) -> Opened {
    let mut progress = Progress {
        phase: Phase::Fresh,
        received,
    };
    let ended = tokio::time::timeout(HANDSHAKE_MAX, progress.run(&mut stream)).await;
    let refusal = match ended {
        Ok(Ended::Opening(opening)) => {
            return Opened::As(opening, progress.received.freeze(), stream);
        }
        Ok(Ended::Broken) => return Opened::Gone,
        Ok(Ended::Refused(refusal)) => Some(refusal),
        Ok(Ended::Closed) | Err(_) => progress.phase.end(&progress.received),
    };
    let Some(refusal) = refusal else {
        return Opened::Gone;
    };
    net::close_with(&mut stream, &refusal.answer().encode()).await;
    Opened::Refused(refusal)
}

struct Progress {
    phase: Phase,
    received: BytesMut,
}

enum Ended {
    Broken,
    Closed,
    Opening(Opening),
    Refused(Refusal),
}

impl Progress {
    async fn run(&mut self, stream: &mut TcpStream) -> Ended {
        loop {
            match self.phase.step(&self.received) {
                Step::Opened(opening) => return Ended::Opening(opening),
                Step::Refuse(refusal) => return Ended::Refused(refusal),
                Step::Answer(byte, next) => {
                    if stream.write_all(&[byte]).await.is_err() {
                        return Ended::Broken;
                    }
                    self.received.clear();
                    self.phase = next;
                }
                Step::Read if self.received.len() >= OPENING_BYTES_MAX => {
                    return Ended::Refused(Refusal::Truncated);
                }
                Step::Read => match stream.read_buf(&mut self.received).await {
                    Ok(0) => return Ended::Closed,
                    Ok(_) => {}
                    Err(_) => return Ended::Broken,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_a_byte_a_second_is_given_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (served, _) = listener.accept().await.unwrap();
        let slow = async move {
            // A record of TLS that is long enough for an hour.
            let mut hello = vec![0x16, 3, 1, 0x0f, 0xff];
            hello.resize(4_000, 1);
            for byte in hello {
                tokio::time::sleep(Duration::from_secs(1)).await;
                // When it is hung up on is the other side's word, which time that is paused would outrun.
                let _ = client.write_all(&[byte]).await;
            }
        };
        let begun = tokio::time::Instant::now();
        let serving = async {
            let opened = open(served, BytesMut::new()).await;
            (opened, begun.elapsed())
        };
        let (opened, after) = tokio::select! {
            served = serving => served,
            () = slow => panic!("it was heard out"),
        };
        assert!(matches!(opened, Opened::Refused(_)));
        assert!(after < HANDSHAKE_MAX + Duration::from_secs(5), "{after:?}");
    }
}
