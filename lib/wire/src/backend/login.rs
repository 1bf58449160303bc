//! The messages of a database's login, from the first challenge to the first ReadyForQuery.

use std::fmt;

use bytes::Bytes;

use super::BackendError;
use crate::{read::Reader, startup::ProtocolVersion};

/// The most SASL mechanisms that are read out of one offer.
const MECHANISMS_MAX: usize = 32;

/// The hash that Redshift's digest challenge names: SHA-256, the only one defined.
pub const REDSHIFT_DIGEST_SHA256: u32 = 0;

/// What a database asks for, or its consent.
///
/// Source for code 13: the login code of Amazon's open drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentication {
    /// Code 0: logged in.
    Ok,
    /// Code 3: the password itself.
    CleartextPassword,
    /// Code 5: MD5 over password, user and salt.
    Md5Password {
        /// Mixed into the outer hash.
        salt: [u8; 4],
    },
    /// Code 10: choose a SASL mechanism.
    Sasl {
        /// Names in the order of the database's liking.
        mechanisms: Vec<String>,
    },
    /// Code 11: the next SASL challenge.
    SaslContinue(Bytes),
    /// Code 12: the end of SASL, with the database's own proof.
    SaslFinal(Bytes),
    /// Code 13, Redshift alone: a digest over password, salt and two nonces.
    RedshiftDigest {
        /// Which hash; 0 is SHA-256.
        algo: u32,
        /// Mixed into the inner hash.
        salt: Bytes,
        /// The database's part of the outer hash.
        server_nonce: Bytes,
    },
    /// Any other code: Kerberos, SSPI, tokens.
    Other(u32),
}

impl Authentication {
    /// Reads the body of an `R` message.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when the body does not hold what its code announces.
    pub fn parse(body: &[u8]) -> Result<Self, BackendError> {
        Self::read(Reader::new(body)).ok_or(BackendError::malformed("Authentication"))
    }

    fn read(mut reader: Reader<'_>) -> Option<Self> {
        let code = reader.u32()?;
        let rest = || Bytes::copy_from_slice(reader.rest());
        Some(match code {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: reader.take(4)?.try_into().ok()?,
            },
            10 => Self::Sasl {
                mechanisms: mechanisms(reader)?,
            },
            11 => Self::SaslContinue(rest()),
            12 => Self::SaslFinal(rest()),
            13 => Self::RedshiftDigest {
                algo: reader.u32()?,
                salt: Bytes::copy_from_slice(reader.vec32()?),
                server_nonce: Bytes::copy_from_slice(reader.vec32()?),
            },
            other => Self::Other(other),
        })
    }
}

fn mechanisms(mut reader: Reader<'_>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            return Some(names);
        }
        if names.len() == MECHANISMS_MAX {
            return None;
        }
        names.push(String::from_utf8_lossy(name).into_owned());
    }
}

/// The key by which a client may ask to cancel. Debug shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKeyData {
    /// Which session.
    pub process_id: u32,
    /// Proof that the asker was told.
    pub secret: Bytes,
}

impl BackendKeyData {
    /// Reads the body of a `K` message.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when the process id or the secret is cut short.
    pub fn parse(body: &[u8]) -> Result<Self, BackendError> {
        let mut reader = Reader::new(body);
        match (reader.u32(), reader.rest()) {
            (Some(process_id), secret)
                if secret.len() >= crate::startup::CANCEL_SECRET_BYTES_MIN =>
            {
                Ok(Self {
                    process_id,
                    secret: Bytes::copy_from_slice(secret),
                })
            }
            _ => Err(BackendError::malformed("BackendKeyData")),
        }
    }
}

impl fmt::Debug for BackendKeyData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendKeyData")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

/// A setting and its value, as a view: what is passed on are the bytes as they came.
#[derive(Clone, PartialEq, Eq)]
pub struct ParameterStatus {
    /// Which setting.
    pub name: String,
    /// Its value; bytes that are not UTF-8 are replaced.
    pub value: String,
}

impl ParameterStatus {
    /// Reads the body of an `S` message.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when name or value is not terminated.
    pub fn parse(body: &[u8]) -> Result<Self, BackendError> {
        let mut reader = Reader::new(body);
        match (reader.cstr(), reader.cstr()) {
            (Some(name), Some(value)) => Ok(Self {
                name: String::from_utf8_lossy(name).into_owned(),
                value: String::from_utf8_lossy(value).into_owned(),
            }),
            _ => Err(BackendError::malformed("ParameterStatus")),
        }
    }

    /// Whether the value must reach no log: Redshift hands drivers a secret this way.
    pub fn is_secret(&self) -> bool {
        self.name.to_ascii_lowercase().contains("token")
    }
}

impl fmt::Debug for ParameterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.is_secret() {
            "[redacted]"
        } else {
            self.value.as_str()
        };
        f.debug_struct("ParameterStatus")
            .field("name", &self.name)
            .field("value", &value)
            .finish()
    }
}

/// Where a session stands between statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStatus {
    /// In no transaction.
    Idle,
    /// In a transaction.
    InTransaction,
    /// In a transaction that can only be rolled back.
    Failed,
}

impl TxStatus {
    /// The letter on the wire.
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }

    /// What a letter stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

/// The next statement may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyForQuery(pub TxStatus);

impl ReadyForQuery {
    /// Reads the body of a `Z` message.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when it is not one known letter.
    pub fn parse(body: &[u8]) -> Result<Self, BackendError> {
        match body {
            [byte] => TxStatus::from_byte(*byte).map(Self),
            _ => None,
        }
        .ok_or(BackendError::malformed("ReadyForQuery"))
    }
}

/// A database's answer to a version or to options that it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiateProtocolVersion {
    /// The newest version that it speaks. Servers send the whole version; where the manual is read
    /// as "the minor part alone", the major part is 0.
    pub newest: ProtocolVersion,
    /// Options that it ignores.
    pub unsupported: Vec<String>,
}

impl NegotiateProtocolVersion {
    /// Reads the body of a `v` message.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when it lists fewer options than it counts.
    pub fn parse(body: &[u8]) -> Result<Self, BackendError> {
        Self::read(Reader::new(body)).ok_or(BackendError::malformed("NegotiateProtocolVersion"))
    }

    fn read(mut reader: Reader<'_>) -> Option<Self> {
        let newest = ProtocolVersion::from_code(reader.u32()?);
        let count = reader.u32()?;
        // The count is only believed as far as there are bytes: nothing is reserved by it.
        let mut unsupported = Vec::new();
        for _ in 0..count {
            unsupported.push(String::from_utf8_lossy(reader.cstr()?).into_owned());
        }
        Some(Self {
            newest,
            unsupported,
        })
    }
}
