//! Certificates for people: after a password, and bound to one database.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use tidegate_core::{
    Traits,
    locks::{LockFacts, LoginMark},
};
use tidegate_identity::{Route, USER_CERT_TTL_MAX, UserHolder};
use tidegate_proto::{Invalid, convert, v1};

use super::{
    Access, AccessError,
    proof::{Claim, Purpose},
    sessions::NewLogin,
};
use crate::{
    audit::event,
    inventory::{Viewer, tables::Row as _},
    record::UserRecord,
    store::Txn,
};

impl Access {
    /// Exchanges a proof of who somebody is for a certificate, and writes the login down.
    pub(crate) async fn login(
        &self,
        request: v1::LoginRequest,
        remote: Option<SocketAddr>,
    ) -> Result<v1::UserCertificate, AccessError> {
        let proven = self
            .prove_person(Claim {
                purpose: Purpose::Login,
                user: request.user,
                password: request.password,
                code: request.otp,
                enrolment: request.enrolment,
                remote,
            })
            .await?;
        let mark = self.new_mark(proven.name());
        let holder = holder(proven.account().clone(), mark.clone());
        let longest = self.longest_login(&holder);
        let ttl = match request.ttl_seconds {
            0 => longest,
            seconds => Duration::from_secs(seconds.into()).min(longest),
        };
        let given = self.certificate(&request.public_key, &holder, ttl)?;
        let ends = given
            .expires_at
            .as_ref()
            .and_then(|at| convert::instant(at).ok());
        let login = NewLogin {
            mark: &mark,
            user: &holder.name,
            ends: ends.unwrap_or(mark.at),
            remote,
            client: &request.client,
            second_factor: proven.second_factor(),
        };
        // A certificate that is not written down, or of an account that changed meanwhile, is given to nobody.
        self.write_login(proven.unchanged(Txn::new()), login)
            .await?;
        self.tell_login(&holder.name, &mark, remote, proven.second_factor());
        Ok(given)
    }

    fn tell_login(
        &self,
        user: &str,
        mark: &LoginMark,
        remote: Option<SocketAddr>,
        second_factor: bool,
    ) {
        let mut told = event::new(event::LOGIN);
        user.clone_into(&mut told.user);
        for (key, value) in [
            ("method", Some("local".to_owned())),
            ("login", Some(mark.id.clone())),
            ("with_mfa", Some(second_factor.to_string())),
            ("addr.remote", remote.map(|addr| addr.to_string())),
        ] {
            if let Some(value) = value {
                told.fields.insert(key.to_owned(), value);
            }
        }
        self.parts.audit.record(told);
    }

    /// How long a login lasts at most: the strictest of the person's roles.
    pub(super) fn longest_login(&self, holder: &UserHolder) -> Duration {
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
            access_requests: &holder.access_requests,
            login: holder.login.as_ref().into(),
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

    pub(super) fn certificate(
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

fn holder(record: UserRecord, mark: LoginMark) -> UserHolder {
    let user = record.user.unwrap_or_default();
    let traits: Traits = convert::traits(user.traits);
    UserHolder {
        name: user.name,
        roles: user.roles,
        traits,
        route: None,
        access_requests: Vec::new(),
        login: Some(mark),
    }
}
