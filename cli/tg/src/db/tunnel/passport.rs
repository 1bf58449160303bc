//! What a tunnel shows to agents: a certificate for one database, renewed by itself as long as the person is logged in.
//!
//! It follows the login on disk: who logs in again, or takes up other roles, has the next connection made with that. A
//! tunnel stays its person's: another person's login is not used.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;
use tidegate_console::{
    Failure,
    client::{Client, tls_unusable},
    profile::{Credentials, Profile},
};
use tidegate_identity::{
    ALPN_MYSQL, ALPN_POSTGRES, KeyPair, PeerIdentity, secret,
    tls::{self, ClientTls, Roots},
};
use tokio::sync::Mutex;

use crate::{
    db::{
        Speaks,
        certificate::{self, Route},
    },
    trust,
};

/// A certificate with less than this left is renewed before it is shown, where the login lasts longer.
const LEFT_MIN: SignedDuration = SignedDuration::from_secs(60);

/// The certificate of a tunnel.
pub(crate) struct Passport {
    profile: Profile,
    route: Route,
    speaks: Speaks,
    /// The person whose tunnel it is.
    person: String,
    current: Mutex<Option<Current>>,
}

/// What is shown now.
struct Current {
    config: Arc<ClientConfig>,
    expires_at: Timestamp,
    /// Which login it was had with.
    login: [u8; 32],
}

impl Current {
    /// Whether it can be shown, or a better one be had.
    fn is_good(&self, login: &[u8; 32], login_ends: Timestamp, now: Timestamp) -> bool {
        let lasts = self.expires_at > now + LEFT_MIN;
        let is_the_last = self.expires_at > now && self.expires_at >= login_ends;
        self.login == *login && (lasts || is_the_last)
    }
}

impl Passport {
    /// Of the person who is logged in now; a certificate is asked for when it is first needed.
    ///
    /// # Errors
    ///
    /// When nobody is logged in.
    pub(crate) fn new(profile: &Profile, route: Route, speaks: Speaks) -> Result<Self, Failure> {
        let person = profile.credentials(Timestamp::now())?.user.name;
        Ok(Self {
            profile: profile.clone(),
            route,
            speaks,
            person,
            current: Mutex::new(None),
        })
    }

    /// What to show to an agent now.
    ///
    /// # Errors
    ///
    /// When the login has ended, is another person's, or a certificate cannot be had.
    pub(super) async fn config(&self, now: Timestamp) -> Result<Arc<ClientConfig>, Failure> {
        let login = self.login(now)?;
        let digest = secret::digest(&login.chain_pem);
        let mut current = self.current.lock().await;
        if let Some(kept) = &*current
            && kept.is_good(&digest, login.expires_at, now)
        {
            return Ok(Arc::clone(&kept.config));
        }
        let client = Client::of_profile(&self.profile)?;
        let trust = trust::refresh(&self.profile, &client).await?;
        let issued = certificate::request(&client, &self.route).await?;
        let fresh = self.shown(&issued.chain_pem, &issued.key, &trust.db_ca_pem, &login)?;
        let config = Arc::clone(&fresh.config);
        *current = Some(fresh);
        Ok(config)
    }

    /// An agent, or its certificate, was not to be trusted: CAs may have changed, and the next connection asks anew.
    pub(super) async fn distrust(&self, config: &Arc<ClientConfig>) {
        let mut current = self.current.lock().await;
        if current
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(&kept.config, config))
        {
            *current = None;
        }
    }

    /// The person's login as it is on disk now.
    ///
    /// # Errors
    ///
    /// When it has ended, or is another person's.
    pub(crate) fn login(&self, now: Timestamp) -> Result<Credentials, Failure> {
        let login = self.profile.credentials(now)?;
        if login.user.name != self.person {
            return Err(Failure::new(format!(
                "this tunnel is `{}`'s, and you are logged in as `{}` now",
                self.person, login.user.name
            ))
            .hint("start it again with `tg proxy db`"));
        }
        Ok(login)
    }

    fn shown(
        &self,
        chain_pem: &str,
        key: &KeyPair,
        roots_pem: &str,
        login: &Credentials,
    ) -> Result<Current, Failure> {
        let alpn = match self.speaks {
            Speaks::Mysql => ALPN_MYSQL,
            Speaks::Postgres => ALPN_POSTGRES,
        };
        let config = tls::client_config(ClientTls {
            roots: Roots::Pem(roots_pem),
            identity: Some((chain_pem, key)),
            alpn: &[alpn],
        })
        .map_err(tls_unusable)?;
        let expires_at = tls::first_certificate_der(chain_pem)
            .and_then(|der| PeerIdentity::from_der(&der))
            .map_err(tls_unusable)?
            .expires_at;
        Ok(Current {
            config,
            expires_at,
            login: secret::digest(&login.chain_pem),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn ending(seconds: i64) -> Current {
        let config = tls::client_config(ClientTls {
            roots: Roots::Unverified,
            identity: None,
            alpn: &[],
        });
        Current {
            config: config.unwrap(),
            expires_at: at(seconds),
            login: [1; 32],
        }
    }

    #[test]
    fn a_certificate_is_shown_until_a_better_one_can_be_had() {
        let hour = ending(3600);
        assert!(hour.is_good(&[1; 32], at(3600), at(0)));
        // The login goes no further: this one is the last.
        assert!(hour.is_good(&[1; 32], at(3600), at(3590)));
        assert!(!hour.is_good(&[1; 32], at(3600), at(3600)));
        assert!(!hour.is_good(&[1; 32], at(7200), at(3590)));
    }

    #[test]
    fn another_login_is_taken_up_at_once() {
        assert!(!ending(3600).is_good(&[2; 32], at(3600), at(0)));
    }
}
