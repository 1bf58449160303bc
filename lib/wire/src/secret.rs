//! A message that carries a secret, and so does not print.

use std::{fmt, ops::Deref};

use bytes::BytesMut;

/// A message ready to be sent that holds a password or a proof of one. It reads as bytes wherever
/// bytes are asked for, and prints only its length.
pub struct SecretFrame(BytesMut);

impl SecretFrame {
    pub(crate) fn new(bytes: BytesMut) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for SecretFrame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for SecretFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFrame({} bytes)", self.0.len())
    }
}
