//! Join tokens: what a new process shows to become a host of the cluster.
//!
//! Every token is kept under the digest of its name. Of a token of method `token` the name is the secret, and the digest
//! is all that is kept of it; of one of method `iam` the name is public and in the record. Tokens that end live with a
//! lease, which every change keeps.
//!
//! Not here: what a join does with a token ([`super::join`]).

pub(crate) mod allow;
pub(crate) mod asked;
pub(crate) mod spend;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tidegate_identity::secret;
use tidegate_proto::{Invalid, convert, v1};

use super::{Access, AccessError, digest_of, new_secret, ttl};
use crate::{
    audit::event,
    keys,
    record::{TokenRecord, decode, encode},
    store::{Entry, LeaseId, Txn},
};
use asked::{Asked, JoinMethod};

/// Characters of the digest that listings show.
pub(super) const ID_CHARS: usize = 8;
/// Most tokens that listings show and that can be made: each is made by a person.
const TOKENS_MAX: usize = 10_000;

/// A token as a join finds it.
pub(crate) enum Found {
    /// Written in the configuration file.
    Static {
        /// What may join.
        types: Vec<String>,
    },
    /// Made over the API.
    Stored {
        /// As it is in the store.
        entry: Entry,
        /// What it says.
        record: Box<TokenRecord>,
    },
}

impl Access {
    /// Makes a join token that is a secret, and tells the secret.
    pub(crate) async fn create_token(
        &self,
        actor: &str,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, AccessError> {
        let ttl = ttl(request.ttl.as_ref())?;
        let (secret, digest) = if request.value.is_empty() {
            new_secret()?
        } else {
            asked::check_secret("value", &request.value)?;
            let digest = digest_of(&request.value);
            (request.value, digest)
        };
        let asked = Asked {
            method: JoinMethod::Token,
            types: asked::types(&request.types)?,
            allow: Vec::new(),
            max_uses: asked::uses(request.max_uses)?,
            expires_at: convert::instant(&self.end_of(ttl)).ok(),
        };
        let token = self.put_token(actor, &secret, &digest, asked, None).await?;
        Ok(v1::CreateTokenResponse {
            secret,
            token: Some(token),
        })
    }

    /// Makes a token as its owner wrote it, or replaces one.
    pub(crate) async fn upsert_token(
        &self,
        actor: &str,
        request: v1::UpsertTokenRequest,
    ) -> Result<v1::Token, AccessError> {
        let Some(token) = request.token else {
            return Err(Invalid::new("token", "is required").into());
        };
        let asked = asked::check(&request.name, &token, self.now())?;
        let digest = digest_of(&request.name);
        self.refuse_static(&digest)?;
        let earlier = self.stored_token(&digest).await?;
        if let Some((entry, _)) = &earlier {
            if !request.replace {
                return Err(AccessError::Exists {
                    what: "token",
                    name: told_name(asked.method, &request.name, &digest),
                });
            }
            if token.revision != 0 && token.revision != entry.modified {
                return Err(AccessError::Conflict { what: "the token" });
            }
        } else if token.revision != 0 {
            return Err(AccessError::Conflict { what: "the token" });
        }
        self.put_token(actor, &request.name, &digest, asked, earlier)
            .await
    }

    /// Writes a token in the place of an earlier one, whose uses stay counted.
    async fn put_token(
        &self,
        actor: &str,
        name: &str,
        digest: &str,
        asked: Asked,
        earlier: Option<(Entry, TokenRecord)>,
    ) -> Result<v1::Token, AccessError> {
        if earlier.is_none() && self.stored_tokens().await?.len() >= TOKENS_MAX {
            let message = format!("there are {TOKENS_MAX} join tokens already: remove some");
            return Err(AccessError::forbidden("TOO_MANY", message));
        }
        let key = keys::token(digest);
        let lease = match asked.expires_at {
            Some(ends) => Some(self.lease_until(ends).await?),
            None => None,
        };
        let kind = if earlier.is_some() {
            event::JOIN_TOKEN_UPDATE
        } else {
            event::JOIN_TOKEN_CREATE
        };
        let (txn, record) = match earlier {
            None => (
                Txn::new().absent(key.clone()),
                TokenRecord {
                    created_by: actor.to_owned(),
                    created_at: Some(convert::timestamp(self.now())),
                    ..TokenRecord::default()
                },
            ),
            Some((entry, record)) => (Txn::new().at(key.clone(), entry.modified), record),
        };
        let record = TokenRecord {
            name: match asked.method {
                JoinMethod::Iam => name.to_owned(),
                JoinMethod::Token => String::new(),
            },
            types: asked.types,
            expires_at: asked.expires_at.map(convert::timestamp),
            join_method: asked.method.as_str().to_owned(),
            allow: asked.allow,
            max_uses: asked.max_uses,
            ..record
        };
        let committed = self
            .store()
            .commit(txn.put_with(key, encode(&record), lease))
            .await;
        let revision = match committed {
            Ok(revision) => revision,
            Err(error) => {
                self.give_back(lease).await;
                return Err(AccessError::commit("the token", error));
            }
        };
        let token = shown(digest, record, revision);
        self.tell_token(kind, actor, &token);
        Ok(token)
    }

    async fn lease_until(&self, ends: Timestamp) -> Result<LeaseId, AccessError> {
        let left = ends.duration_since(self.now());
        let left = std::time::Duration::try_from(left).unwrap_or_default();
        Ok(self.store().grant(left).await?)
    }

    /// Ends a lease that nothing lives with. One that stays costs nothing but its own end.
    pub(super) async fn give_back(&self, lease: Option<LeaseId>) {
        if let Some(lease) = lease
            && let Err(error) = self.store().revoke(lease).await
        {
            tracing::debug!(%error, "could not end an unused lease");
        }
    }

    fn tell_token(&self, kind: event::Kind, actor: &str, token: &v1::Token) {
        let mut told = event::new(kind);
        actor.clone_into(&mut told.user);
        let ends = token.expires_at.as_ref();
        let ends = ends.and_then(|ends| convert::instant(ends).ok());
        let fields = [
            ("name", token.id.clone()),
            ("types", token.types.join(",")),
            ("join_method", token.join_method.clone()),
            ("max_uses", token.max_uses.to_string()),
            ("uses", token.uses.to_string()),
            (
                "expires",
                ends.map_or("never".to_owned(), |ends| ends.to_string()),
            ),
        ];
        for (key, value) in fields {
            told.fields.insert(key.to_owned(), value);
        }
        self.parts.audit.record(told);
    }

    /// Tokens that can be used now: those of the configuration file, then those that were made.
    pub(crate) async fn list_tokens(&self) -> Result<Vec<v1::Token>, AccessError> {
        let mut tokens = self.static_tokens();
        for (digest, entry, record) in self.stored_tokens().await? {
            tokens.push(shown(&digest, record, entry.modified));
        }
        Ok(tokens)
    }

    /// Tokens of the configuration file, as listings show them.
    pub(crate) fn static_tokens(&self) -> Vec<v1::Token> {
        let tokens = self.parts.static_tokens.iter().map(|token| v1::Token {
            id: short(&digest_of(token.secret.expose_secret())),
            types: token.types.clone(),
            join_method: JoinMethod::Token.as_str().to_owned(),
            is_static: true,
            ..v1::Token::default()
        });
        tokens.collect()
    }

    async fn stored_tokens(&self) -> Result<Vec<(String, Entry, TokenRecord)>, AccessError> {
        let mut tokens = Vec::new();
        for entry in self.read_all(keys::TOKENS).await? {
            let record: TokenRecord = decode(&entry)?;
            if !self.has_ended(&record)
                && let Some(digest) = keys::name_under(keys::TOKENS, &entry.key)
            {
                tokens.push((digest.to_owned(), entry, record));
            }
        }
        Ok(tokens)
    }

    async fn stored_token(
        &self,
        digest: &str,
    ) -> Result<Option<(Entry, TokenRecord)>, AccessError> {
        let Some(entry) = self.store().get(keys::token(digest)).await? else {
            return Ok(None);
        };
        let record = decode(&entry)?;
        Ok(Some((entry, record)))
    }

    fn has_ended(&self, record: &TokenRecord) -> bool {
        record.expires_at.is_some() && self.is_over(record.expires_at.as_ref())
    }

    fn refuse_static(&self, digest: &str) -> Result<(), AccessError> {
        let is_it = |secret: &str| digest_of(secret) == digest;
        let mut tokens = self.parts.static_tokens.iter();
        if tokens.any(|token| is_it(token.secret.expose_secret())) {
            return Err(AccessError::forbidden(
                "STATIC_TOKEN",
                "the token is written in the auth service's configuration file: change it there",
            ));
        }
        Ok(())
    }

    /// Removes a token, named by what listings show or by the secret itself.
    pub(crate) async fn delete_token(&self, actor: &str, named: &str) -> Result<(), AccessError> {
        let of_name = digest_of(named);
        let means = |digest: &str| {
            digest == of_name || (named.len() == ID_CHARS && digest.starts_with(named))
        };
        let mut stored = self.stored_tokens().await?;
        stored.retain(|(digest, _, _)| means(digest));
        let is_static = self
            .parts
            .static_tokens
            .iter()
            .any(|token| means(&digest_of(token.secret.expose_secret())));
        match stored.as_slice() {
            [(digest, entry, record)] => {
                let txn = Txn::new().delete(keys::token(digest));
                let committed = self.store().commit(txn).await;
                committed.map_err(|error| AccessError::commit("the token", error))?;
                let token = shown(digest, record.clone(), entry.modified);
                self.tell_token(event::JOIN_TOKEN_DELETE, actor, &token);
                Ok(())
            }
            [] if is_static => Err(AccessError::forbidden(
                "STATIC_TOKEN",
                "the token is written in the auth service's configuration file: remove it there",
            )),
            [] => Err(AccessError::NotFound {
                what: "token",
                // The name may be a secret: only its beginning is told.
                name: named.chars().take(ID_CHARS).collect(),
            }),
            _ => Err(AccessError::forbidden(
                "AMBIGUOUS",
                "several tokens have this id: name the one you mean by its secret",
            )),
        }
    }

    /// The token of a name; `None` when it opens nothing.
    pub(super) async fn find_token(&self, given: &str) -> Result<Option<Found>, AccessError> {
        let digest = secret::digest(given);
        for token in &self.parts.static_tokens {
            if secret::same(&secret::digest(token.secret.expose_secret()), &digest) {
                let types = token.types.clone();
                return Ok(Some(Found::Static { types }));
            }
        }
        let stored = self.stored_token(&digest_of(given)).await?;
        let stored = stored.filter(|(_, record)| !self.has_ended(record));
        Ok(stored.map(|(entry, record)| Found::Stored {
            entry,
            record: Box::new(record),
        }))
    }
}

impl TokenRecord {
    /// How it is joined with.
    pub(super) fn method(&self) -> JoinMethod {
        // Nothing else is ever written; records of earlier versions name none.
        JoinMethod::read(&self.join_method).unwrap_or(JoinMethod::Token)
    }
}

/// What listings call a token.
pub(super) fn told_name(method: JoinMethod, name: &str, digest: &str) -> String {
    match method {
        JoinMethod::Iam => name.to_owned(),
        JoinMethod::Token => short(digest),
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(ID_CHARS).collect()
}

/// A stored token as listings show it; `None` when it cannot be read, which is logged.
pub(crate) fn shown_token(entry: &Entry) -> Option<v1::Token> {
    let digest = keys::name_under(keys::TOKENS, &entry.key)?;
    let record = decode(entry).inspect_err(|error| {
        tracing::error!(error = %error, "left out a stored token that cannot be read");
    });
    Some(shown(digest, record.ok()?, entry.modified))
}

fn shown(digest: &str, record: TokenRecord, revision: u64) -> v1::Token {
    let method = record.method();
    v1::Token {
        id: told_name(method, &record.name, digest),
        types: record.types,
        expires_at: record.expires_at,
        join_method: method.as_str().to_owned(),
        allow: record.allow,
        max_uses: record.max_uses,
        uses: record.uses,
        is_static: false,
        created_by: record.created_by,
        created_at: record.created_at,
        revision,
    }
}
