//! Tokens of OIDC providers: JSON web tokens, signed with ES256 by one key that stands for every provider's.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Without `https://`.
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
    pub(crate) expires_at: Timestamp,
}

impl Claims {
    /// The provider as trust policies name it, in the partition of the role.
    pub(crate) fn provider_arn(&self, role_arn: &str, account: &str) -> String {
        let partition = role_arn.split(':').nth(1).unwrap_or("aws");
        format!(
            "arn:{partition}:iam::{account}:oidc-provider/{}",
            self.issuer
        )
    }
}

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is no JSON web token")]
    Malformed,
    #[error("nobody's key signed the token")]
    Signature,
}

/// Signs tokens, and knows its own.
pub(super) struct Issuer {
    key: EcdsaKeyPair,
}

impl Default for Issuer {
    fn default() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self {
            key: key.expect("the system has randomness"),
        }
    }
}

impl Issuer {
    pub(super) fn sign(&self, claims: &Claims) -> String {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "awssim"});
        let body = json!({
            "iss": format!("https://{}", claims.issuer),
            "sub": claims.subject,
            "aud": [claims.audience],
            "exp": claims.expires_at.as_second(),
        });
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(body));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.expect("the system has randomness");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(super) fn read(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.trim().rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (_, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let claims = parse(body).ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        let proven = key.verify(signed.as_bytes(), &signature);
        proven.map(|()| claims).map_err(|_| TokenError::Signature)
    }
}

fn parse(body: &str) -> Option<Claims> {
    let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Claims {
        issuer: body["iss"].as_str()?.strip_prefix("https://")?.to_owned(),
        subject: text(&body["sub"])?,
        audience: text(&body["aud"]).or_else(|| text(&body["aud"][0]))?,
        expires_at: Timestamp::from_second(body["exp"].as_i64()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_by_the_key_that_signed_it_and_no_other() {
        let issuer = Issuer::default();
        let claims = Claims {
            issuer: "oidc.example.com/id/A".to_owned(),
            subject: "system:serviceaccount:default:agent".to_owned(),
            audience: "sts.amazonaws.com".to_owned(),
            expires_at: Timestamp::from_second(1_000).unwrap(),
        };
        let token = issuer.sign(&claims);
        assert_eq!(issuer.read(&token), Ok(claims));
        assert_eq!(Issuer::default().read(&token), Err(TokenError::Signature));
        assert_eq!(issuer.read("no token"), Err(TokenError::Malformed));
    }
}
