//! What the two sides of a connection agree on.
//!
//! The low 32 bits are MySQL's; the high ones MariaDB's extended capabilities, which a side has room for when it does
//! not set [`Capabilities::CLIENT_MYSQL`].
//!
//! Source: MySQL documentation, "Capabilities Flags"; MariaDB Knowledge Base, "Connecting: Capabilities".

use std::ops::{BitAnd, BitOr};

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Not MariaDB's extended handshake; MySQL calls it `CLIENT_LONG_PASSWORD`.
    pub const CLIENT_MYSQL: Self = Self(1);
    /// The answer to the greeting names a database.
    pub const CONNECT_WITH_DB: Self = Self(1 << 3);
    /// Compressed packets (zlib).
    pub const COMPRESS: Self = Self(1 << 5);
    /// `LOAD DATA LOCAL`.
    pub const LOCAL_FILES: Self = Self(1 << 7);
    /// The protocol since 4.1.
    pub const PROTOCOL_41: Self = Self(1 << 9);
    /// TLS behind a short first packet.
    pub const SSL: Self = Self(1 << 11);
    /// A scramble of 20 bytes; MariaDB calls it `SECURE_CONNECTION`.
    pub const SECURE_CONNECTION: Self = Self(1 << 15);
    /// Authentication by named plugins.
    pub const PLUGIN_AUTH: Self = Self(1 << 19);
    /// Attributes of the client in its answer.
    pub const CONNECT_ATTRS: Self = Self(1 << 20);
    /// The proof may be longer than 255 bytes.
    pub const PLUGIN_AUTH_LENENC: Self = Self(1 << 21);
    /// OK packets carry changes of the session's state.
    pub const SESSION_TRACK: Self = Self(1 << 23);
    /// OK instead of EOF behind rows, and none behind columns.
    pub const DEPRECATE_EOF: Self = Self(1 << 24);
    /// Column definitions may be left out (MySQL).
    pub const OPTIONAL_METADATA: Self = Self(1 << 25);
    /// Compressed packets (zstd).
    pub const ZSTD: Self = Self(1 << 26);
    /// Attributes before a statement's text (MySQL).
    pub const QUERY_ATTRIBUTES: Self = Self(1 << 27);
    /// Several factors of authentication (MySQL).
    pub const MULTI_FACTOR: Self = Self(1 << 28);
    /// MariaDB: reports of progress, which look like errors.
    pub const PROGRESS: Self = Self(1 << 32);
    /// MariaDB: one statement with many rows of parameters.
    pub const BULK: Self = Self(1 << 34);
    /// MariaDB: column definitions say more about types.
    pub const EXTENDED_METADATA: Self = Self(1 << 35);
    /// MariaDB: one result for each row of a bulk statement.
    pub const BULK_UNIT_RESULTS: Self = Self(1 << 37);

    /// What may be agreed on over a connection that is watched. Left out is what would hide the stream
    /// (compression), or change the shape of messages in ways that are not understood here.
    pub const WATCHED: Self = Self(
        (0x01ff_ffff & !(Self::COMPRESS.0 | Self::SSL.0))
            | Self::PROGRESS.0
            | Self::BULK.0
            | Self::EXTENDED_METADATA.0
            | Self::BULK_UNIT_RESULTS.0,
    );

    /// What a proxy can offer before it knows the server: all that MySQL 5.7 and MariaDB 10.2 and their successors
    /// have, among what is [`Self::WATCHED`].
    pub const COMMON: Self =
        Self(0x01ff_ffff & !(Self::COMPRESS.0 | Self::SSL.0 | (1 << 4) | (1 << 6) | (1 << 22)));

    /// Whether all of `others` are in it.
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// MySQL's part.
    pub(crate) fn low(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// MariaDB's part; nothing where [`Self::CLIENT_MYSQL`] says that it is not spoken.
    pub(crate) fn high(self) -> u32 {
        if self.has(Self::CLIENT_MYSQL) {
            return 0;
        }
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    pub(crate) fn new(low: u32, high: u32) -> Self {
        let low = Self(u64::from(low));
        if low.has(Self::CLIENT_MYSQL) {
            return low;
        }
        Self(low.0 | u64::from(high) << 32)
    }
}

impl BitAnd for Capabilities {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
