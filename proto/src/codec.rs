//! How messages are encoded for the wire: as protobuf, in buffers that begin small.
//!
//! A stream keeps the buffers of its codec for as long as it lives, and most streams of a cluster are silent: thousands of
//! agents hold a handful open each, to say a few bytes now and then. tonic's own codec begins each with two buffers of
//! 8 KiB; here they begin with what a sign of life takes, and grow when a message needs more.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a buffer begins with, in bytes.
const BUFFER_BYTES: usize = 512;

/// Messages that are ready together are sent together up to here, in bytes: tonic's own number.
const YIELD_BYTES: usize = 32 * 1024;

/// The codec of every service of the contract; generated code names it.
#[derive(Clone, Debug)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
