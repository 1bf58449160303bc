//! Which key exchange databases agreed to.
//!
//! A TLS 1.3 client guesses the group of its first key share, and pays a wrong guess with another round trip
//! (RFC 8446, section 4.1.4). PostgreSQL up to version 17 takes P-256 alone unless told otherwise (`ssl_ecdh_curve`), which is
//! nobody's first guess. What databases that are verified alike took last is the next guess; everything else stays offered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use rustls_pki_types::ServerName;

/// Remembers the group that was agreed to last, and no session.
#[derive(Debug, Default)]
pub(super) struct LastExchange {
    group: Mutex<Option<NamedGroup>>,
}

impl LastExchange {
    fn group(&self) -> MutexGuard<'_, Option<NamedGroup>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for LastExchange {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *self.group() = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *self.group()
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_guess_is_what_was_taken_last() {
        let exchange = LastExchange::default();
        let name = |text: &'static str| ServerName::try_from(text).unwrap();
        assert_eq!(exchange.kx_hint(&name("a.example.com")), None);
        exchange.set_kx_hint(name("a.example.com"), NamedGroup::secp256r1);
        let hint = exchange.kx_hint(&name("b.example.com"));
        assert_eq!(hint, Some(NamedGroup::secp256r1));
    }
}
