//! Certificates for people: after a password, and bound to one database.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_core::{Traits, locks::LockFacts};
use tidegate_identity::{Route, USER_CERT_TTL_MAX, UserHolder};
use tidegate_proto::{Invalid, convert, v1};

use super::{Access, AccessError, check_name};
use crate::{
    audit::event,
    inventory::{Viewer, tables::Row as _},
    record::UserRecord,
};

/// What is said of a login that failed, whatever the cause.
const LOGIN_REFUSED: &str = "wrong user name or password";

impl Access {
    /// Exchanges a password for a certificate. Unknown names cost what known ones do, and get the same answer.
    pub(crate) async fn login(
        &self,
        request: v1::LoginRequest,
        remote: Option<std::net::SocketAddr>,
    ) -> Result<v1::UserCertificate, AccessError> {
        let v1::LoginRequest {
            user,
            password,
            public_key,
            ttl_seconds,
        } = request;
        let outcome = self
            .try_login(&user, password, &public_key, ttl_seconds)
            .await;
        let failure = match &outcome {
            Ok(_) => None,
            Err(
                AccessError::Unproven(_)
                | AccessError::LockedOut { .. }
                | AccessError::Denied { .. },
            ) => outcome.as_ref().err(),
            // Nothing was tried.
            Err(_) => return outcome,
        };
        let mut told = event::new(match failure {
            None => event::LOGIN,
            Some(_) => event::LOGIN_FAILED,
        });
        // Whatever was typed into the name's field is kept short: it may be a password.
        told.user = user.chars().take(128).collect();
        told.error = failure.map(ToString::to_string).unwrap_or_default();
        told.fields.insert("method".to_owned(), "local".to_owned());
        if let Some(remote) = remote {
            told.fields
                .insert("addr.remote".to_owned(), remote.to_string());
        }
        self.parts.audit.record(told);
        outcome
    }

    async fn try_login(
        &self,
        name: &str,
        password: String,
        public_key: &[u8],
        ttl_seconds: u32,
    ) -> Result<v1::UserCertificate, AccessError> {
        let wait = self.lockout.wait(name, self.now());
        if !wait.is_zero() {
            return Err(AccessError::LockedOut { wait });
        }
        let record = match check_name("user", name) {
            Ok(()) => self.user(name).await?.map(|(_, record)| record),
            Err(_) => None,
        };
        let hash = record
            .as_ref()
            .filter(|record| !record.password_hash.is_empty())
            .map(|record| record.password_hash.clone());
        self.lockout.failed(name, self.now());
        let proven = self.passwords.matches(password, hash).await;
        let proven = proven.inspect_err(|_| self.lockout.forgive(name))?;
        let Some(record) = record.filter(|_| proven) else {
            return Err(AccessError::Unproven(LOGIN_REFUSED));
        };
        self.lockout.succeeded(name);
        let holder = holder(record);
        // Only who proved to be somebody is told of that somebody's locks.
        self.refuse_locked(LockFacts {
            user: Some(&holder.name),
            roles: &holder.roles,
            ..LockFacts::default()
        })?;
        let longest = self.longest_login(&holder);
        let ttl = match ttl_seconds {
            0 => longest,
            seconds => Duration::from_secs(seconds.into()).min(longest),
        };
        self.certificate(public_key, &holder, ttl)
    }

    /// How long a login lasts at most: the strictest of the person's roles.
    fn longest_login(&self, holder: &UserHolder) -> Duration {
        let policy = self.parts.inventory.roles().policy.clone();
        let subject = holder.subject();
        let options = policy.grants(&subject).options();
        options
            .max_session_ttl
            .unwrap_or(USER_CERT_TTL_MAX)
            .min(USER_CERT_TTL_MAX)
    }

    /// A certificate that opens one database, and lives no longer than the caller's own.
    pub(crate) fn issue_database_certificate(
        &self,
        caller: &UserHolder,
        expires_at: Timestamp,
        request: v1::IssueDatabaseCertificateRequest,
    ) -> Result<v1::UserCertificate, AccessError> {
        let route = request
            .route
            .filter(|route| !route.database.is_empty())
            .ok_or_else(|| Invalid::new("route.database", "is missing"))?;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let bound = Route {
            database: route.database.clone(),
            db_user: some(&route.db_user),
            db_name: some(&route.db_name),
        };
        // Roles and traits of the login: what changed since comes with the next one.
        let holder = UserHolder {
            route: Some(bound),
            ..caller.clone()
        };
        if !self.may_see(&holder, &route.database) {
            return Err(AccessError::NotFound {
                what: "database",
                name: route.database,
            });
        }
        self.refuse_locked(LockFacts {
            user: Some(&holder.name),
            roles: &holder.roles,
            database: Some(&route.database),
            ..LockFacts::default()
        })?;
        let left = Duration::try_from(expires_at.duration_since(self.now())).unwrap_or_default();
        self.certificate(&request.public_key, &holder, left.min(USER_CERT_TTL_MAX))
    }

    /// Whether a database of that name, listed or only served, may be shown to somebody.
    fn may_see(&self, holder: &UserHolder, name: &str) -> bool {
        let viewer = Viewer::Person(holder.subject());
        let policy = self.parts.inventory.roles().policy.clone();
        let look = self.parts.inventory.tables();
        let listed = look.databases.get(name);
        let served = look
            .servers
            .range((name.to_owned(), String::new())..)
            .take_while(|((database, _), _)| database == name);
        listed.is_some_and(|row| viewer.sees(&policy, row.labels()))
            || served
                .into_iter()
                .any(|(_, row)| viewer.sees(&policy, row.labels()))
    }

    fn certificate(
        &self,
        public_key: &[u8],
        holder: &UserHolder,
        ttl: Duration,
    ) -> Result<v1::UserCertificate, AccessError> {
        let issued = self
            .parts
            .authority
            .issue_user(public_key, holder, ttl)
            .map_err(|error| Invalid::new("public_key", error))?;
        Ok(v1::UserCertificate {
            certificate_pem: issued.chain_pem,
            expires_at: Some(convert::timestamp(issued.expires_at)),
            trust: Some(self.parts.authority.trust()),
            identity: Some(holder.into()),
        })
    }
}

fn holder(record: UserRecord) -> UserHolder {
    let user = record.user.unwrap_or_default();
    let traits: Traits = convert::traits(user.traits);
    UserHolder {
        name: user.name,
        roles: user.roles,
        traits,
        route: None,
    }
}
