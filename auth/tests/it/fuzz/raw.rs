//! Calls whose messages are bytes.

use std::time::Duration;

use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Bytes, http::uri::PathAndQuery},
    transport::Channel,
};

/// How long a stream is listened to; watches never end by themselves.
const LISTENED: Duration = Duration::from_millis(30);

/// Leaves messages as they are.
#[derive(Clone, Copy, Default)]
struct AsIs;

impl Codec for AsIs {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsIs {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        use bytes::BufMut as _;
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        use bytes::Buf as _;
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// Sends messages to a method, and listens to what comes of it.
pub(super) async fn call(
    channel: Channel,
    path: &str,
    messages: Vec<Vec<u8>>,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let path: PathAndQuery = path.parse().unwrap();
    let request = Request::new(tokio_stream::iter(messages));
    let answer = grpc.streaming(request, path, AsIs).await?;
    let mut answers = answer.into_inner();
    loop {
        match tokio::time::timeout(LISTENED, answers.message()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(status)) => return Err(status),
        }
    }
}
