//! People: added by an administrator, with a one-time token by which they set their password.

use std::time::Duration;

use tidegate_proto::{Invalid, convert, v1};

use super::{
    Access, AccessError, check_name, digest_of, new_secret,
    passwords::rules,
    proof::{Claim, Purpose},
    sessions::Cause,
    ttl,
};
use crate::{
    audit::event,
    keys,
    record::{SignupRecord, UserRecord, decode, encode},
    store::{Entry, Txn},
};

/// Most roles of one person.
const ROLES_MAX: usize = 64;
/// Most traits of one person, and most values of one.
const TRAITS_MAX: usize = 256;
/// What is said of a sign-up token that does not open anything.
const SIGNUP_REFUSED: &str = "the sign-up token is wrong, used up or expired";

impl Access {
    /// Adds a person, and makes the token to sign up with.
    pub(crate) async fn create_user(
        &self,
        actor: &str,
        request: v1::CreateUserRequest,
    ) -> Result<v1::CreateUserResponse, AccessError> {
        let ttl = ttl(request.ttl.as_ref())?;
        let wanted = request
            .user
            .ok_or_else(|| Invalid::new("user", "is missing"))?;
        self.check_user(&wanted)?;
        let (secret, digest) = new_secret()?;
        let user = v1::User {
            created_at: Some(convert::timestamp(self.now())),
            signed_up: false,
            revision: 0,
            second_factors: 0,
            locked_out_until: None,
            ..wanted
        };
        let expires_at = self.end_of(ttl);
        let revision = self.write_new_user(&user, &digest, ttl, expires_at).await?;
        let mut made = event::new(event::USER_CREATE);
        actor.clone_into(&mut made.user);
        made.fields.insert("name".to_owned(), user.name.clone());
        made.fields.insert("roles".to_owned(), user.roles.join(","));
        self.parts.audit.record(made);
        self.parts.inventory.reached(revision).await;
        Ok(v1::CreateUserResponse {
            user: Some(v1::User { revision, ..user }),
            signup_token: secret,
            expires_at: Some(expires_at),
        })
    }

    pub(super) fn check_user(&self, user: &v1::User) -> Result<(), Invalid> {
        check_name("user.name", &user.name)?;
        if user.roles.is_empty() || user.roles.len() > ROLES_MAX {
            let problem = format!("must be 1 to {ROLES_MAX} roles");
            return Err(Invalid::new("user.roles", problem));
        }
        let roles = self.parts.inventory.roles();
        let unknown = user
            .roles
            .iter()
            .find(|name| !roles.messages.iter().any(|role| role.name == **name));
        if let Some(name) = unknown {
            let known: Vec<&str> = roles
                .messages
                .iter()
                .map(|role| role.name.as_str())
                .collect();
            let problem = format!("there is no role `{name}`; there are {}", known.join(", "));
            return Err(Invalid::new("user.roles", problem));
        }
        let too_many = user.traits.len() > TRAITS_MAX
            || user
                .traits
                .values()
                .any(|values| values.values.len() > TRAITS_MAX);
        if too_many {
            return Err(Invalid::new("user.traits", "are too many"));
        }
        Ok(())
    }

    async fn write_new_user(
        &self,
        user: &v1::User,
        digest: &str,
        ttl: Duration,
        expires_at: prost_types::Timestamp,
    ) -> Result<u64, AccessError> {
        let key = keys::user(&user.name);
        let lease = self.store().grant(ttl).await?;
        let record = UserRecord {
            user: Some(user.clone()),
            password_hash: String::new(),
            signup_digest: digest.to_owned(),
        };
        let signup = SignupRecord {
            user: user.name.clone(),
            expires_at: Some(expires_at),
        };
        let txn = Txn::new()
            .absent(key.clone())
            .put(key.clone(), encode(&record))
            .put_with(keys::signup(digest), encode(&signup), Some(lease));
        match self.store().commit(txn).await {
            Ok(revision) => Ok(revision),
            Err(error) => {
                self.store().revoke(lease).await?;
                match AccessError::commit("the user", error) {
                    AccessError::Conflict { .. } => Err(AccessError::Exists {
                        what: "user",
                        name: user.name.clone(),
                    }),
                    other => Err(other),
                }
            }
        }
    }

    /// Everybody, in name order.
    pub(crate) async fn list_users(&self) -> Result<Vec<v1::User>, AccessError> {
        let mut users = Vec::new();
        for entry in self.read_all(keys::USERS).await? {
            let record: UserRecord = decode(&entry)?;
            users.extend(shown(record, entry.modified));
        }
        self.tell_waits(&mut users).await?;
        Ok(users)
    }

    /// Says of people until when they cannot log in, for failures.
    pub(crate) async fn tell_waits(&self, users: &mut [v1::User]) -> Result<(), AccessError> {
        let (waits, now) = (self.all_failures().await?, self.now());
        if waits.is_empty() {
            return Ok(());
        }
        for user in users {
            let failures = waits.get(&digest_of(&user.name));
            let until = failures.and_then(|failures| failures.until(now));
            user.locked_out_until = until.map(convert::timestamp);
        }
        Ok(())
    }

    /// Removes a person, and ends all logins with it: certificates are refused at once, here and at agents, also when
    /// another person gets the name.
    pub(crate) async fn delete_user(&self, actor: &str, name: &str) -> Result<(), AccessError> {
        let key = keys::user(name);
        let Some((entry, record)) = self.user(name).await? else {
            return Err(AccessError::NotFound {
                what: "user",
                name: name.to_owned(),
            });
        };
        let mut txn = Txn::new()
            .at(key.clone(), entry.modified)
            .delete(key)
            .delete(keys::factors(name));
        if !record.signup_digest.is_empty() {
            txn = txn.delete(keys::signup(&record.signup_digest));
        }
        let (txn, ending) = self.ending_all(txn, actor, name, Cause::Removed).await?;
        let committed = self.store().commit(txn).await;
        let revision = committed.map_err(|error| AccessError::commit("the user", error))?;
        let mut gone = event::new(event::USER_DELETE);
        actor.clone_into(&mut gone.user);
        gone.fields.insert("name".to_owned(), name.to_owned());
        self.parts.audit.record(gone);
        self.parts.inventory.reached(revision).await;
        self.ended(actor, name, ending).await?;
        Ok(())
    }

    /// Sets the first password, and uses up the token.
    pub(crate) async fn sign_up(
        &self,
        token: &str,
        password: String,
    ) -> Result<String, AccessError> {
        let digest = digest_of(token);
        let refused = || AccessError::Unproven(SIGNUP_REFUSED);
        let entry = self
            .store()
            .get(keys::signup(&digest))
            .await?
            .ok_or_else(refused)?;
        let signup: SignupRecord = decode(&entry)?;
        if self.is_over(signup.expires_at.as_ref()) {
            return Err(refused());
        }
        let (user_entry, mut record) = self.user(&signup.user).await?.ok_or_else(refused)?;
        if record.signup_digest != digest {
            return Err(refused());
        }
        check_password("password", &password, &signup.user)?;
        record.password_hash = self.passwords.hash(password).await?;
        record.signup_digest = String::new();
        if let Some(user) = &mut record.user {
            user.signed_up = true;
        }
        let txn = Txn::new()
            .at(entry.key.clone(), entry.modified)
            .at(user_entry.key.clone(), user_entry.modified)
            .delete(entry.key)
            .put(user_entry.key, encode(&record));
        // Who lost the race holds a token that was used up a moment ago.
        self.store().commit(txn).await.map_err(|error| {
            match AccessError::commit("the user", error) {
                AccessError::Conflict { .. } => refused(),
                other => other,
            }
        })?;
        self.forget_failures(&signup.user).await?;
        Ok(signup.user)
    }

    /// Replaces a person's own password.
    pub(crate) async fn change_password(
        &self,
        request: v1::ChangePasswordRequest,
        remote: Option<std::net::SocketAddr>,
    ) -> Result<(), AccessError> {
        let claim = Claim::of(Purpose::ChangePassword, request.proof, remote)?;
        check_password("new_password", &request.new_password, &claim.user)?;
        if claim.password == request.new_password {
            let problem = "is the one that you have";
            return Err(Invalid::new("new_password", problem).into());
        }
        let proven = self.prove_person(claim).await?;
        let hash = self.passwords.hash(request.new_password).await?;
        let txn = proven.unchanged(Txn::new());
        let (entry, mut record) = proven.into_account();
        record.password_hash = hash;
        let committed = self
            .store()
            .commit(txn.put(entry.key, encode(&record)))
            .await;
        let revision = committed.map_err(|error| AccessError::commit("the user", error))?;
        let mut told = event::new(event::PASSWORD_CHANGE);
        told.user = record.user.unwrap_or_default().name;
        self.parts.audit.record(told);
        self.parts.inventory.reached(revision).await;
        Ok(())
    }

    /// Lets a person try to log in again at once. Whether anything was in the way.
    pub(crate) async fn unlock_user(&self, actor: &str, name: &str) -> Result<bool, AccessError> {
        self.existing(name).await?;
        let waited = self.forget_failures(name).await?;
        let mut told = event::new(event::USER_UNLOCKED);
        actor.clone_into(&mut told.user);
        told.fields.insert("name".to_owned(), name.to_owned());
        self.parts.audit.record(told);
        Ok(waited)
    }

    /// That there is such a person.
    pub(crate) async fn check_user_exists(&self, name: &str) -> Result<(), AccessError> {
        self.existing(name).await.map(|_| ())
    }

    /// One person's record.
    pub(super) async fn user(
        &self,
        name: &str,
    ) -> Result<Option<(Entry, UserRecord)>, AccessError> {
        match self.store().get(keys::user(name)).await? {
            None => Ok(None),
            Some(entry) => {
                let record = decode(&entry)?;
                Ok(Some((entry, record)))
            }
        }
    }
}

fn check_password(field: &str, password: &str, user: &str) -> Result<(), Invalid> {
    rules::check(password, user).map_err(|broken| Invalid::new(field, broken))
}

/// A person as listings show it.
pub(crate) fn shown(record: UserRecord, revision: u64) -> Option<v1::User> {
    record.user.map(|user| v1::User { revision, ..user })
}
