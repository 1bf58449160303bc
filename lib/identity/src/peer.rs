//! Whom a verified certificate belongs to.
//!
//! Invariant: [`PeerIdentity::from_der`] is for certificates whose chain TLS has verified. It checks on top that the
//! CA that signed may speak for that kind of holder: the user CA for people, the host CA for services.

use jiff::Timestamp;
use prost::Message;
use tidegate_core::{ClusterName, HostId, Subject, Traits, locks::LoginMark};
use tidegate_proto::{convert, v1};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    IdentityError,
    ca::{CaKind, IDENTITY_OID},
};

/// The holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// Who it is.
    pub holder: Holder,
    /// When the certificate ends.
    pub expires_at: Timestamp,
}

/// A person or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A service process.
    Host(HostHolder),
    /// A person.
    User(UserHolder),
}

/// A service process that joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostHolder {
    /// Its id, made when it joined.
    pub host_id: HostId,
    /// What it may run: `auth`, `proxy`, `db`, `discovery`.
    pub services: Vec<String>,
    /// Its name for people.
    pub hostname: String,
}

/// A person who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserHolder {
    /// The person's name.
    pub name: String,
    /// Names of roles at login.
    pub roles: Vec<String>,
    /// Traits at login.
    pub traits: Traits,
    /// When set, the certificate opens only this.
    pub route: Option<Route>,
    /// Ids of the approved requests that some of the roles come from.
    pub access_requests: Vec<String>,
    /// The login that it comes from; certificates of programs that knew of none have none.
    pub login: Option<LoginMark>,
}

/// What a database certificate is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The database.
    pub database: String,
    /// The database user, when bound.
    pub db_user: Option<String>,
    /// The logical database, when bound.
    pub db_name: Option<String>,
}

impl UserHolder {
    /// The person as the subject of an access decision.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject {
            user: self.name.clone(),
            roles: self.roles.clone(),
            traits: self.traits.clone(),
        }
    }
}

impl From<&UserHolder> for v1::UserIdentity {
    fn from(user: &UserHolder) -> Self {
        Self {
            name: user.name.clone(),
            roles: user.roles.clone(),
            traits: convert::label_values(&user.traits),
            route: user.route.as_ref().map(|route| v1::DatabaseRoute {
                database: route.database.clone(),
                db_user: route.db_user.clone().unwrap_or_default(),
                db_name: route.db_name.clone().unwrap_or_default(),
            }),
            access_requests: user.access_requests.clone(),
            login: user.login.as_ref().map(|mark| v1::LoginMark {
                id: mark.id.clone(),
                at: Some(convert::timestamp(mark.at)),
            }),
        }
    }
}

impl From<v1::UserIdentity> for UserHolder {
    fn from(user: v1::UserIdentity) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            name: user.name,
            roles: user.roles,
            traits: convert::traits(user.traits),
            route: user.route.map(|route| Route {
                database: route.database,
                db_user: some(route.db_user),
                db_name: some(route.db_name),
            }),
            access_requests: user.access_requests,
            login: user.login.map(|mark| LoginMark {
                id: mark.id,
                // A time that cannot be read is before everything that ended logins.
                at: mark
                    .at
                    .and_then(|at| convert::instant(&at).ok())
                    .unwrap_or(Timestamp::MIN),
            }),
        }
    }
}

impl From<&HostHolder> for v1::HostIdentity {
    fn from(host: &HostHolder) -> Self {
        Self {
            host_id: host.host_id.to_string(),
            services: host.services.clone(),
            hostname: host.hostname.clone(),
        }
    }
}

impl PeerIdentity {
    /// Reads the holder of a certificate that TLS has verified.
    ///
    /// # Errors
    ///
    /// When the identity extension is missing or malformed, or the certificate's CA may not speak for such a holder.
    pub fn from_der(certificate: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |what: &str| IdentityError::Malformed(what.to_owned());
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        let oid = x509_parser::oid_registry::Oid::from(IDENTITY_OID)
            .map_err(|_| malformed("the identity extension's OID"))?;
        let extension = parsed
            .get_extension_unique(&oid)
            .map_err(|_| malformed("two identity extensions"))?
            .ok_or_else(|| malformed("it carries no Tidegate identity"))?;
        let identity = v1::Identity::decode(extension.value)
            .map_err(|_| malformed("its identity cannot be decoded"))?;
        let holder = match identity
            .holder
            .ok_or_else(|| malformed("its identity names nobody"))?
        {
            v1::identity::Holder::User(user) => Holder::User(user.into()),
            v1::identity::Holder::Host(host) => Holder::Host(HostHolder {
                host_id: host.host_id.parse().map_err(|_| malformed("its host id"))?,
                services: host.services,
                hostname: host.hostname,
            }),
        };
        let may_speak = match holder {
            Holder::Host(_) => CaKind::Host,
            Holder::User(_) => CaKind::User,
        };
        let issuer = parsed
            .issuer()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        if issuer != Some(may_speak.common_name()) {
            return Err(malformed("its CA may not speak for such a holder"));
        }
        Ok(Self {
            cluster: identity
                .cluster
                .parse()
                .map_err(|_| malformed("its cluster name"))?,
            holder,
            expires_at: Timestamp::from_second(parsed.validity().not_after.timestamp())
                .map_err(|_| malformed("its end of life"))?,
        })
    }
}
