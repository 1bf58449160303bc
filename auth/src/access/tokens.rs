//! Join tokens: what a new process shows once, to become a host of the cluster.

use secrecy::ExposeSecret as _;
use tidegate_identity::secret;
use tidegate_proto::{Invalid, v1};

use super::{Access, AccessError, digest_of, new_secret, ttl};
use crate::{
    audit::event,
    keys,
    record::{TokenRecord, decode, encode},
    store::Txn,
};

/// What a token can let in.
const TYPES: [&str; 3] = ["db", "discovery", "proxy"];
/// Characters of the digest that listings show.
const ID_CHARS: usize = 8;

impl Access {
    /// Makes a join token.
    pub(crate) async fn create_token(
        &self,
        actor: &str,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, AccessError> {
        let ttl = ttl(request.ttl.as_ref())?;
        let mut types: Vec<String> = request
            .types
            .iter()
            .map(|kind| kind.to_lowercase())
            .collect();
        types.sort();
        types.dedup();
        if types.is_empty() || !types.iter().all(|kind| TYPES.contains(&kind.as_str())) {
            let problem = format!("must be one or more of {}", TYPES.join(", "));
            return Err(Invalid::new("types", problem).into());
        }
        let (secret, digest) = new_secret()?;
        let record = TokenRecord {
            types,
            expires_at: Some(self.end_of(ttl)),
        };
        let lease = self.store().grant(ttl).await?;
        let txn = Txn::new().absent(keys::token(&digest)).put_with(
            keys::token(&digest),
            encode(&record),
            Some(lease),
        );
        let committed = self.store().commit(txn).await;
        committed.map_err(|error| AccessError::commit("the token", error))?;
        let mut made = event::new(event::JOIN_TOKEN_CREATE);
        actor.clone_into(&mut made.user);
        made.fields
            .insert("types".to_owned(), record.types.join(","));
        self.parts.audit.record(made);
        Ok(v1::CreateTokenResponse {
            secret,
            token: Some(shown(&digest, record)),
        })
    }

    /// Tokens that can be used now: those of the configuration file, then those that were made.
    pub(crate) async fn list_tokens(&self) -> Result<Vec<v1::Token>, AccessError> {
        let mut tokens: Vec<v1::Token> = self
            .parts
            .static_tokens
            .iter()
            .map(|token| {
                let record = TokenRecord {
                    types: token.types.clone(),
                    expires_at: None,
                };
                shown(&digest_of(token.secret.expose_secret()), record)
            })
            .collect();
        for (digest, record) in self.stored_tokens().await? {
            tokens.push(shown(&digest, record));
        }
        Ok(tokens)
    }

    async fn stored_tokens(&self) -> Result<Vec<(String, TokenRecord)>, AccessError> {
        let mut tokens = Vec::new();
        for entry in self.read_all(keys::TOKENS).await? {
            let record: TokenRecord = decode(&entry)?;
            if !self.is_over(record.expires_at.as_ref())
                && let Some(digest) = keys::name_under(keys::TOKENS, &entry.key)
            {
                tokens.push((digest.to_owned(), record));
            }
        }
        Ok(tokens)
    }

    /// Removes a token, named by what listings show or by the secret itself.
    pub(crate) async fn delete_token(&self, named: &str) -> Result<(), AccessError> {
        let of_secret = digest_of(named);
        let means = |digest: &str| {
            digest == of_secret || (named.len() == ID_CHARS && digest.starts_with(named))
        };
        let mut stored = self.stored_tokens().await?;
        stored.retain(|(digest, _)| means(digest));
        let is_static = self
            .parts
            .static_tokens
            .iter()
            .any(|token| means(&digest_of(token.secret.expose_secret())));
        match stored.as_slice() {
            [(digest, _)] => {
                let txn = Txn::new().delete(keys::token(digest));
                let committed = self.store().commit(txn).await;
                committed.map_err(|error| AccessError::commit("the token", error))?;
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

    /// What may join with a secret; `None` when it opens nothing.
    pub(super) async fn token_types(
        &self,
        given: &str,
    ) -> Result<Option<Vec<String>>, AccessError> {
        let digest = secret::digest(given);
        for token in &self.parts.static_tokens {
            if secret::same(&secret::digest(token.secret.expose_secret()), &digest) {
                return Ok(Some(token.types.clone()));
            }
        }
        let Some(entry) = self.store().get(keys::token(&digest_of(given))).await? else {
            return Ok(None);
        };
        let record: TokenRecord = decode(&entry)?;
        Ok((!self.is_over(record.expires_at.as_ref())).then_some(record.types))
    }
}

fn shown(digest: &str, record: TokenRecord) -> v1::Token {
    v1::Token {
        id: digest.chars().take(ID_CHARS).collect(),
        types: record.types,
        expires_at: record.expires_at,
    }
}
