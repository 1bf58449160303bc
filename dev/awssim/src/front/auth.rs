//! Asking for a password in Redshift's ways, and deciding who is let in.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::startup::{Refusal, Startup, malformed};
use super::{LoginError, Site, Stream};
use crate::crypto::{random_bytes, sha256};
use crate::mint::Mint;
use crate::postgres::sql::frame;
use crate::world::{AuthCode, ResourceId};

/// Longest answer to a challenge, in bytes.
const ANSWER_BYTES_MAX: usize = 65_536;
/// Code 13's only algorithm, SHA-256.
const ALGORITHM_SHA256: u32 = 0;

/// What was asked; it checks the answer.
pub(super) enum Challenge {
    Cleartext,
    Md5 {
        salt: [u8; 4],
    },
    Digest {
        salt: [u8; 16],
        server_nonce: [u8; 16],
    },
}

/// Who may use which database, on whose behalf.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Role in PostgreSQL.
    pub(super) role: String,
    /// Name of the database where the data is.
    pub(super) database: String,
    /// Who owns the database.
    pub(super) owner: String,
    /// Where the data is.
    pub(super) at: ResourceId,
}

/// Lets somebody in to a Redshift cluster or workgroup who knows a minted password.
pub(super) async fn log_in(
    site: &Site,
    stream: &mut impl Stream,
    startup: &Startup,
    tls: bool,
) -> Result<Admitted, LoginError> {
    let terms = site.state.world().redshift_terms(&site.of);
    let terms = terms.ok_or_else(gone)?;
    if terms.require_ssl && !tls {
        let (user, database) = (startup.user(), startup.database());
        let message =
            format!("no pg_hba.conf entry for user \"{user}\", database \"{database}\", SSL off");
        return Err(Refusal::new("28000", message).into());
    }
    let mint = authenticate(site, stream, startup, terms.auth).await?;
    Ok(admit(site, startup, &mint)?)
}

fn gone() -> Refusal {
    Refusal::new("57P01", "the cluster was deleted")
}

/// Challenges the client and finds the minted password that it knows.
async fn authenticate(
    site: &Site,
    stream: &mut impl Stream,
    startup: &Startup,
    code: AuthCode,
) -> Result<Arc<Mint>, LoginError> {
    if startup.user().is_empty() {
        return Err(Refusal::new("28000", "no user name specified in startup packet").into());
    }
    let challenge = Challenge::new(code);
    let answer = challenge.put(stream).await?;
    let now = site.state.clock.now();
    let (user, database) = (startup.user(), startup.database());
    let valid = site.state.mints.valid(&site.of, user, database, now);
    let known = valid
        .into_iter()
        .find(|mint| challenge.is_answered(user, mint.password.expose(), &answer));
    let refused = || {
        let message = format!("password authentication failed for user \"{user}\"");
        Refusal::new("28000", message).into()
    };
    known.ok_or_else(refused)
}

/// Whether user and database exist; makes the user if the password was asked for with that.
fn admit(site: &Site, startup: &Startup, mint: &Mint) -> Result<Admitted, Refusal> {
    let mut world = site.state.world();
    let holder = world.holder(&site.of).ok_or_else(gone)?;
    let (grant, database) = (&mint.grant, startup.database());
    if !holder.databases.iter().any(|name| name == database) {
        return Err(Refusal::new(
            "3D000",
            format!("database \"{database}\" does not exist"),
        ));
    }
    if !holder.users.contains(&grant.role) {
        if !grant.creates_user {
            let message = format!("user \"{}\" does not exist", startup.user());
            return Err(Refusal::new("28000", message));
        }
        world.add_redshift_user(&site.of, &grant.role);
    }
    Ok(Admitted {
        role: grant.role.clone(),
        database: database.to_owned(),
        owner: holder.master,
        at: holder.at,
    })
}

async fn read_answer(stream: &mut impl Stream) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    let length = length
        .checked_sub(4)
        .filter(|length| *length <= ANSWER_BYTES_MAX);
    let mut body = vec![0; length.ok_or_else(|| malformed("invalid length of password message"))?];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

impl Challenge {
    /// Asks, and reads the answer.
    pub(super) async fn put(&self, stream: &mut impl Stream) -> Result<Vec<u8>, LoginError> {
        stream.write_all(&frame(Some(b'R'), &self.body())).await?;
        stream.flush().await?;
        let (kind, answer) = read_answer(stream).await?;
        if kind != self.answer_kind() {
            let message = "expected an answer to the password request";
            return Err(Refusal::new("08P01", message).into());
        }
        Ok(answer)
    }

    pub(super) fn new(code: AuthCode) -> Self {
        match code {
            AuthCode::Cleartext => Self::Cleartext,
            AuthCode::Md5 => Self::Md5 {
                salt: random_bytes(),
            },
            AuthCode::Sha256Digest => Self::Digest {
                salt: random_bytes(),
                server_nonce: random_bytes(),
            },
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Cleartext => body.extend(3_u32.to_be_bytes()),
            Self::Md5 { salt } => {
                body.extend(5_u32.to_be_bytes());
                body.extend(salt);
            }
            Self::Digest { salt, server_nonce } => {
                body.extend(13_u32.to_be_bytes());
                body.extend(ALGORITHM_SHA256.to_be_bytes());
                for part in [salt, server_nonce] {
                    body.extend(16_u32.to_be_bytes());
                    body.extend(part);
                }
            }
        }
        body
    }

    fn answer_kind(&self) -> u8 {
        match self {
            Self::Cleartext | Self::Md5 { .. } => b'p',
            Self::Digest { .. } => b'd',
        }
    }

    fn is_answered(&self, user: &str, password: &str, answer: &[u8]) -> bool {
        let text = answer.strip_suffix(&[0]);
        match self {
            Self::Cleartext => text == Some(password.as_bytes()),
            Self::Md5 { salt } => {
                let (user, password) = (user.as_bytes(), password.as_bytes());
                let hash = postgres_protocol::authentication::md5_hash(user, password, *salt);
                text == Some(hash.as_bytes())
            }
            Self::Digest { salt, server_nonce } => {
                let Some((digest, client_nonce)) = parse_digest(answer) else {
                    return false;
                };
                let inner = sha256(&[password.as_bytes(), salt].concat());
                digest == sha256(&[inner.as_slice(), server_nonce, client_nonce].concat())
            }
        }
    }
}

/// Digest and client nonce, each behind its length.
fn parse_digest(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digest, rest) = split_counted(answer)?;
    let (nonce, rest) = split_counted(rest)?;
    rest.is_empty().then_some((digest, nonce))
}

fn split_counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_covers_password_salt_and_both_nonces() {
        let challenge = Challenge::Digest {
            salt: [1; 16],
            server_nonce: [2; 16],
        };
        let answer = |password: &str, nonce: &[u8]| {
            let inner = sha256(&[password.as_bytes(), &[1; 16]].concat());
            let digest = sha256(&[inner.as_slice(), &[2; 16], b"nonce"].concat());
            let count = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
            [&count(&digest), digest.as_slice(), &count(nonce), nonce].concat()
        };
        let is_answered = |a: Vec<u8>| challenge.is_answered("IAM:a", "secret", &a);
        assert!(is_answered(answer("secret", b"nonce")));
        assert!(!is_answered(answer("wrong", b"nonce")));
        assert!(!is_answered(answer("secret", b"other")));
        assert!(!is_answered(vec![0, 0, 0, 9]));
    }

    #[test]
    fn a_cleartext_password_ends_with_a_zero_byte() {
        assert!(Challenge::Cleartext.is_answered("u", "pw", b"pw\0"));
        assert!(!Challenge::Cleartext.is_answered("u", "pw", b"pw"));
    }
}
