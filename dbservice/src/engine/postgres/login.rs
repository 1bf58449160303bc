//! Answers what a database asks for at login.
//!
//! Pure: a challenge in, an answer out. Codes 0, 3, 5, 10 to 12 and Redshift's 13 are understood; anything else is a
//! clear refusal instead of a hang.
//!
//! Invariant: a password is sent in clear only over the TLS session that [`super::upstream`] set up, and neither it
//! nor an answer made from it prints.

use aws_lc_rs::digest::{Context, SHA256};
use postgres_protocol::authentication::md5_hash;
use secrecy::{ExposeSecret, SecretString};
use tidegate_identity::{IdentityError, secret};
use tidegate_wire::{
    SecretFrame,
    backend::{Authentication, REDSHIFT_DIGEST_SHA256},
    frontend,
};

use super::scram::{SCRAM_SHA_256, Scram, ScramError, ScramKeys};

/// Why a login cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LoginError {
    /// A digest over another hash than SHA-256.
    #[error("database asks for a digest with unknown algorithm {algo}")]
    DigestAlgorithm { algo: u32 },
    /// Nothing to answer with.
    #[error("database asks for a password, and there is none for it")]
    NoPassword,
    /// A step that does not belong here.
    #[error("database sent a step of SASL that nobody began")]
    NoSasl,
    /// No random bytes.
    #[error("could not make a nonce")]
    Nonce(#[source] IdentityError),
    /// None of the offered mechanisms is known.
    #[error("database offers no SASL mechanism that is known here: {offered}")]
    Mechanism { offered: String },
    /// The database did not prove itself, or broke the exchange.
    #[error("SCRAM exchange with the database failed")]
    Scram(#[source] ScramError),
    /// Kerberos, SSPI, identity tokens.
    #[error("database asks for authentication method {code}, which is not known here")]
    Unknown { code: u32 },
}

/// What to do about a challenge.
#[derive(Debug)]
pub(crate) enum Step {
    /// Logged in.
    Done,
    /// Send this, and read on.
    Send(SecretFrame),
    /// Read on.
    Wait,
}

/// One login, from the first challenge to consent.
pub(crate) struct Login<'l> {
    user: &'l str,
    password: Option<&'l SecretString>,
    keys: &'l ScramKeys,
    scram: Option<Scram<'l>>,
}

impl<'l> Login<'l> {
    /// A login as `user`; without a password only a database that asks for none lets us in. Keys of the password are
    /// taken from those that are kept.
    pub(crate) fn new(
        user: &'l str,
        password: Option<&'l SecretString>,
        keys: &'l ScramKeys,
    ) -> Self {
        Self {
            user,
            password,
            keys,
            scram: None,
        }
    }

    /// Answers a challenge.
    ///
    /// # Errors
    ///
    /// [`LoginError`] when there is no answer; the login is over then.
    pub(crate) fn answer(&mut self, challenge: Authentication) -> Result<Step, LoginError> {
        match challenge {
            Authentication::Ok => Ok(Step::Done),
            Authentication::CleartextPassword => {
                let password = self.password()?;
                Ok(Step::Send(frontend::password_message(password.as_bytes())))
            }
            Authentication::Md5Password { salt } => {
                let hash = md5_hash(self.user.as_bytes(), self.password()?.as_bytes(), salt);
                Ok(Step::Send(frontend::password_message(hash.as_bytes())))
            }
            Authentication::Sasl { mechanisms } => self.begin_scram(&mechanisms),
            Authentication::SaslContinue(data) => self.continue_scram(&data),
            Authentication::SaslFinal(data) => {
                let scram = self.scram.take().ok_or(LoginError::NoSasl)?;
                scram.finish(&data).map_err(LoginError::Scram)?;
                Ok(Step::Wait)
            }
            Authentication::RedshiftDigest {
                algo,
                salt,
                server_nonce,
            } => {
                if algo != REDSHIFT_DIGEST_SHA256 {
                    return Err(LoginError::DigestAlgorithm { algo });
                }
                let nonce = text_nonce()?;
                let digest = redshift_digest(
                    self.password()?.as_bytes(),
                    &salt,
                    &server_nonce,
                    nonce.as_bytes(),
                );
                Ok(Step::Send(frontend::redshift_digest_response(
                    &digest,
                    nonce.as_bytes(),
                )))
            }
            Authentication::Other(code) => Err(LoginError::Unknown { code }),
            other => Err(LoginError::Mechanism {
                offered: format!("{other:?}"),
            }),
        }
    }

    fn password(&self) -> Result<&'l str, LoginError> {
        self.password
            .map(ExposeSecret::expose_secret)
            .ok_or(LoginError::NoPassword)
    }

    fn begin_scram(&mut self, mechanisms: &[String]) -> Result<Step, LoginError> {
        if !mechanisms.iter().any(|name| name == SCRAM_SHA_256) {
            return Err(LoginError::Mechanism {
                offered: mechanisms.join(", "),
            });
        }
        let password = self.password()?.as_bytes();
        let scram = Scram::new(password, self.keys, text_nonce()?);
        let frame = frontend::sasl_initial(SCRAM_SHA_256, scram.first().as_bytes());
        self.scram = Some(scram);
        Ok(Step::Send(frame))
    }

    fn continue_scram(&mut self, challenge: &[u8]) -> Result<Step, LoginError> {
        let scram = self.scram.as_mut().ok_or(LoginError::NoSasl)?;
        let answer = scram.answer(challenge).map_err(LoginError::Scram)?;
        Ok(Step::Send(frontend::sasl_response(answer.as_bytes())))
    }
}

/// A nonce as text, as drivers send it.
fn text_nonce() -> Result<String, LoginError> {
    let bytes = secret::random_bytes::<16>().map_err(LoginError::Nonce)?;
    Ok(secret::hex(&bytes))
}

/// SHA-256 over (SHA-256 over password and salt), the server's nonce and ours.
///
/// Source: the login code of Amazon's open drivers.
fn redshift_digest(password: &[u8], salt: &[u8], server_nonce: &[u8], nonce: &[u8]) -> [u8; 32] {
    let sha256 = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        bytes
    };
    sha256(&[&sha256(&[password, salt]), server_nonce, nonce])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sent(step: Step) -> Vec<u8> {
        match step {
            Step::Send(frame) => frame.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_clear_password_is_sent_as_it_is() {
        let password = SecretString::from("s3cret");
        let keys = ScramKeys::default();
        let mut login = Login::new("IAM:alice", Some(&password), &keys);
        let frame = sent(login.answer(Authentication::CleartextPassword).unwrap());
        assert_eq!(frame, b"p\0\0\0\x0bs3cret\0");
    }

    /// The known value: md5(md5("secret" + "alice") + 0x01020304).
    #[test]
    fn md5_is_over_password_user_and_salt() {
        let password = SecretString::from("secret");
        let keys = ScramKeys::default();
        let mut login = Login::new("alice", Some(&password), &keys);
        let challenge = Authentication::Md5Password { salt: [1, 2, 3, 4] };
        let frame = sent(login.answer(challenge).unwrap());
        assert_eq!(
            &frame[5..frame.len() - 1],
            md5_hash(b"alice", b"secret", [1, 2, 3, 4]).as_bytes()
        );
        assert!(frame[5..].starts_with(b"md5"));
    }

    /// Checked with Python's hashlib.
    #[test]
    fn the_redshift_digest_is_the_drivers() {
        let digest = redshift_digest(b"password", b"salt", b"server", b"client");
        assert_eq!(secret::hex(&digest), DIGEST);
    }
    const DIGEST: &str = "487ad7c3c9657b0771cce6a724a25d733fddd89a7f23e2183b63b28d8dd1f85d";

    #[test]
    fn without_a_password_only_trust_lets_us_in() {
        let keys = ScramKeys::default();
        let mut login = Login::new("alice", None, &keys);
        assert!(matches!(
            login.answer(Authentication::Ok).unwrap(),
            Step::Done
        ));
        assert!(matches!(
            login.answer(Authentication::CleartextPassword),
            Err(LoginError::NoPassword)
        ));
    }

    #[test]
    fn a_database_cannot_keep_us_hashing_for_minutes() {
        let password = SecretString::from("secret");
        let keys = ScramKeys::default();
        let mut login = Login::new("alice", Some(&password), &keys);
        let mechanisms = vec![SCRAM_SHA_256.to_owned()];
        login.answer(Authentication::Sasl { mechanisms }).unwrap();
        let challenge = Bytes::from_static(b"r=x,s=c2FsdA==,i=4000000000");
        assert!(matches!(
            login.answer(Authentication::SaslContinue(challenge)),
            Err(LoginError::Scram(ScramError::Rounds { .. }))
        ));
    }

    #[test]
    fn methods_that_are_not_known_are_refused_by_number() {
        let keys = ScramKeys::default();
        let mut login = Login::new("alice", None, &keys);
        assert!(matches!(
            login.answer(Authentication::Other(7)),
            Err(LoginError::Unknown { code: 7 })
        ));
        assert!(matches!(
            login.answer(Authentication::SaslFinal(Bytes::new())),
            Err(LoginError::NoSasl)
        ));
    }
}
