//! The beginning of a connection: the server greets, the client may ask for TLS, answers, and is challenged.
//!
//! Source: MySQL documentation, "Connection Phase Packets"; MariaDB Knowledge Base, "Connecting".

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Capabilities,
    codec::{lenenc_bytes, put_lenenc, put_lenenc_bytes, u16_le, u32_le},
    packet::packet,
    reply::{EOF, MORE_DATA},
};
use crate::{SecretFrame, read::Reader, write::put_cstr};

/// The one version of the handshake that there is.
const PROTOCOL_VERSION: u8 = 10;

/// Bytes of a scramble.
pub const SCRAMBLE_BYTES: usize = 20;

/// Bytes of a request for TLS, and of what every answer begins with.
pub const SSL_REQUEST_BYTES: usize = 32;

/// The plugin that sends a hash by SHA-1.
pub const NATIVE_PASSWORD: &str = "mysql_native_password";
/// The plugin that sends a hash by SHA-256, or over TLS the password.
pub const CACHING_SHA2: &str = "caching_sha2_password";
/// The plugin that sends the password as it is, over TLS alone.
pub const CLEAR_PASSWORD: &str = "mysql_clear_password";

/// A packet that is none at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The client is older than the protocol of 4.1.
    #[error("the client speaks the protocol from before MySQL 4.1")]
    Ancient,
    /// It ends too early, or holds a length that cannot be.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Another version than 10.
    #[error("server speaks version {0} of the handshake; only {PROTOCOL_VERSION} is known here")]
    Version(u8),
}

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Its version, as it likes to be shown.
    pub server_version: Bytes,
    /// Its number for this connection, by which others may stop it.
    pub thread_id: u32,
    /// Random bytes that proofs are made with.
    pub scramble: [u8; SCRAMBLE_BYTES],
    /// What it can.
    pub capabilities: Capabilities,
    /// Its character set, by number.
    pub charset: u8,
    /// How it stands.
    pub status: u16,
    /// How it wants to be logged in to.
    pub plugin: String,
}

impl Greeting {
    /// Reads the payload of a greeting.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for what is none; an ERR in its place is the caller's to look for.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(payload);
        match reader.u8() {
            Some(PROTOCOL_VERSION) => {}
            Some(version) => return Err(HandshakeError::Version(version)),
            None => return Err(HandshakeError::Malformed("greeting")),
        }
        Self::parse_v10(&mut reader).ok_or(HandshakeError::Malformed("greeting"))
    }

    fn parse_v10(reader: &mut Reader<'_>) -> Option<Self> {
        let server_version = Bytes::copy_from_slice(reader.cstr()?);
        let thread_id = u32_le(reader)?;
        let mut scramble = [0; SCRAMBLE_BYTES];
        scramble[..8].copy_from_slice(reader.take(8)?);
        reader.u8()?;
        let low = u16_le(reader)?;
        let charset = reader.u8()?;
        let status = u16_le(reader)?;
        let low = u32::from(low) | u32::from(u16_le(reader)?) << 16;
        let scramble_len = usize::from(reader.u8()?);
        reader.take(6)?;
        let high = u32_le(reader)?;
        let capabilities = Capabilities::new(low, high);
        let rest = reader.take(scramble_len.saturating_sub(8).max(13))?;
        scramble[8..].copy_from_slice(rest.get(..12)?);
        let plugin = if capabilities.has(Capabilities::PLUGIN_AUTH) {
            // Some servers leave the NUL out.
            let name = reader.cstr().unwrap_or_else(|| reader.rest());
            String::from_utf8_lossy(name).into_owned()
        } else {
            NATIVE_PASSWORD.to_owned()
        };
        Some(Self {
            server_version,
            thread_id,
            scramble,
            capabilities,
            charset,
            status,
            plugin,
        })
    }

    /// The packet.
    pub fn encode(&self) -> Bytes {
        let low = self.capabilities.low().to_le_bytes();
        packet(0, |out| {
            out.put_u8(PROTOCOL_VERSION);
            out.put_slice(&self.server_version);
            out.put_u8(0);
            out.put_u32_le(self.thread_id);
            out.put_slice(&self.scramble[..8]);
            out.put_u8(0);
            out.put_slice(&low[..2]);
            out.put_u8(self.charset);
            out.put_u16_le(self.status);
            out.put_slice(&low[2..]);
            out.put_u8(21);
            out.put_bytes(0, 6);
            out.put_u32_le(self.capabilities.high());
            out.put_slice(&self.scramble[8..]);
            out.put_u8(0);
            put_cstr(out, &self.plugin);
        })
        .freeze()
    }
}

/// What a client answers to a greeting.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it wants to use.
    pub capabilities: Capabilities,
    /// The longest packet that it takes.
    pub packet_bytes_max: u32,
    /// Its character set, by number.
    pub charset: u8,
    /// As whom.
    pub user: String,
    /// What proves it, as its plugin makes it.
    pub proof: Bytes,
    /// Which database; `None` for none yet.
    pub database: Option<String>,
    /// The plugin that made the proof.
    pub plugin: Option<String>,
    /// What the client says of itself, as it came.
    pub attributes: Bytes,
}

impl std::fmt::Debug for Answer {
    /// Shows no proof.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("capabilities", &self.capabilities)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

/// What a client sends first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// It answers.
    Answer(Answer),
    /// It wants TLS before it answers, with these capabilities.
    SslRequest(Capabilities),
}

impl First {
    /// Reads the payload of the client's first packet.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for what is neither.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(payload);
        let head = Head::read(&mut reader).ok_or(HandshakeError::Malformed("first packet"))?;
        if !head.capabilities.has(Capabilities::PROTOCOL_41) {
            return Err(HandshakeError::Ancient);
        }
        if reader.is_empty() {
            return Ok(Self::SslRequest(head.capabilities));
        }
        Answer::read(head, &mut reader)
            .map(Self::Answer)
            .ok_or(HandshakeError::Malformed("answer to the greeting"))
    }
}

/// What every first packet begins with.
struct Head {
    capabilities: Capabilities,
    packet_bytes_max: u32,
    charset: u8,
}

impl Head {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let low = u32_le(reader)?;
        if !Capabilities(u64::from(low)).has(Capabilities::PROTOCOL_41) {
            return Some(Self {
                capabilities: Capabilities(u64::from(low)),
                packet_bytes_max: 0,
                charset: 0,
            });
        }
        let packet_bytes_max = u32_le(reader)?;
        let charset = reader.u8()?;
        reader.take(19)?;
        Some(Self {
            capabilities: Capabilities::new(low, u32_le(reader)?),
            packet_bytes_max,
            charset,
        })
    }
}

fn put_head(out: &mut BytesMut, capabilities: Capabilities, packet_bytes_max: u32, charset: u8) {
    out.put_u32_le(capabilities.low());
    out.put_u32_le(packet_bytes_max);
    out.put_u8(charset);
    out.put_bytes(0, 19);
    out.put_u32_le(capabilities.high());
}

impl Answer {
    fn read(head: Head, reader: &mut Reader<'_>) -> Option<Self> {
        let Head {
            capabilities,
            packet_bytes_max,
            charset,
        } = head;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let user = text(reader.cstr()?)?;
        let proof = if capabilities.has(Capabilities::PLUGIN_AUTH_LENENC) {
            lenenc_bytes(reader)?
        } else if capabilities.has(Capabilities::SECURE_CONNECTION) {
            reader.vec8()?
        } else {
            reader.cstr()?
        };
        let proof = Bytes::copy_from_slice(proof);
        let database = match capabilities.has(Capabilities::CONNECT_WITH_DB) {
            true => Some(text(cstr_or_rest(reader))?).filter(|name| !name.is_empty()),
            false => None,
        };
        let plugin = match capabilities.has(Capabilities::PLUGIN_AUTH) {
            true => Some(text(cstr_or_rest(reader))?),
            false => None,
        };
        let attributes = match capabilities.has(Capabilities::CONNECT_ATTRS) {
            true if !reader.is_empty() => Bytes::copy_from_slice(lenenc_bytes(reader)?),
            _ => Bytes::new(),
        };
        Some(Self {
            capabilities,
            packet_bytes_max,
            charset,
            user,
            proof,
            database,
            plugin,
            attributes,
        })
    }

    /// The packet.
    pub fn encode(&self, sequence: u8) -> SecretFrame {
        SecretFrame::new(packet(sequence, |out| {
            let capabilities = self.capabilities;
            put_head(out, capabilities, self.packet_bytes_max, self.charset);
            put_cstr(out, &self.user);
            if capabilities.has(Capabilities::PLUGIN_AUTH_LENENC) {
                put_lenenc_bytes(out, &self.proof);
            } else {
                // Without the length of up to nine bytes, servers take at most this much.
                let proof = &self.proof[..self.proof.len().min(usize::from(u8::MAX))];
                put_lenenc(out, u64::try_from(proof.len()).unwrap_or_default());
                out.put_slice(proof);
            }
            if capabilities.has(Capabilities::CONNECT_WITH_DB) {
                put_cstr(out, self.database.as_deref().unwrap_or_default());
            }
            if capabilities.has(Capabilities::PLUGIN_AUTH) {
                put_cstr(out, self.plugin.as_deref().unwrap_or_default());
            }
            if capabilities.has(Capabilities::CONNECT_ATTRS) {
                put_lenenc_bytes(out, &self.attributes);
            }
        }))
    }

    /// The request for TLS that comes before this answer.
    pub fn ssl_request(&self, sequence: u8) -> Bytes {
        packet(sequence, |out| {
            let capabilities = self.capabilities | Capabilities::SSL;
            put_head(out, capabilities, self.packet_bytes_max, self.charset);
        })
        .freeze()
    }

    /// What the client says of itself under `name`, in its attributes.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let mut reader = Reader::new(&self.attributes);
        loop {
            let key = lenenc_bytes(&mut reader)?;
            let value = lenenc_bytes(&mut reader)?;
            if key == name.as_bytes() {
                return Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
}

/// Clients leave out the last NUL.
fn cstr_or_rest<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    if let Some(text) = reader.cstr() {
        return text;
    }
    let rest = reader.rest();
    *reader = Reader::new(&[]);
    rest
}

/// What a server asks for during a login, beside OK and ERR.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Challenge {
    /// Something that the plugin understands.
    MoreData(Bytes),
    /// To go on with another plugin.
    Switch {
        /// Which.
        plugin: String,
        /// Its random bytes, without a NUL at the end.
        data: Bytes,
    },
}

impl Challenge {
    /// Reads the payload of a challenge.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] for what is none.
    pub fn parse(payload: &Bytes) -> Result<Self, HandshakeError> {
        const WHAT: HandshakeError = HandshakeError::Malformed("challenge");
        let (first, rest) = payload.split_first().ok_or(WHAT)?;
        match *first {
            MORE_DATA => Ok(Self::MoreData(payload.slice(1..))),
            EOF => {
                let mut reader = Reader::new(rest);
                let plugin = cstr_or_rest(&mut reader);
                let plugin = std::str::from_utf8(plugin).map_err(|_| WHAT)?;
                if plugin.is_empty() {
                    return Err(HandshakeError::Malformed(
                        "challenge: it asks for passwords as before MySQL 4.1",
                    ));
                }
                let data = reader.rest();
                let data = data.strip_suffix(&[0]).unwrap_or(data);
                Ok(Self::Switch {
                    plugin: plugin.to_owned(),
                    data: payload.slice_ref(data),
                })
            }
            _ => Err(WHAT),
        }
    }
}

/// Asks a client to go on with another plugin.
pub fn switch(sequence: u8, plugin: &str, data: &[u8]) -> Bytes {
    packet(sequence, |out| {
        out.put_u8(EOF);
        put_cstr(out, plugin);
        out.put_slice(data);
        out.put_u8(0);
    })
    .freeze()
}

/// The answer to a challenge.
pub fn proof(sequence: u8, bytes: &[u8]) -> SecretFrame {
    SecretFrame::new(packet(sequence, |out| out.put_slice(bytes)))
}
