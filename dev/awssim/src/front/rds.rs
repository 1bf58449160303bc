//! Log-ins to RDS: IAM tokens as passwords, and what RDS and RDS Proxy say when they are no good.
//!
//! Users with IAM authentication (those that the world lists, as if granted `rds_iam`) are asked for the token in clear,
//! inside TLS. Everybody else is asked for a password, as RDS does, and has none here. RDS says the same words for every
//! wrong token; the journal has the reason.
//!
//! Source: RDS user guide, "IAM database authentication" and "Troubleshooting RDS Proxy for PostgreSQL"; PostgreSQL's
//! `auth_failed` for the SQLSTATEs.

use super::auth::{Admitted, Challenge};
use super::startup::{Refusal, Startup};
use super::{LoginError, Site, Stream};
use crate::presigned::{self, Shown};
use crate::world::{AuthCode, Holder, RdsTerms, Speaks};

/// Lets somebody in whose token opens this endpoint.
pub(super) async fn log_in(
    site: &Site,
    stream: &mut impl Stream,
    startup: &Startup,
    tls: bool,
) -> Result<Admitted, LoginError> {
    let (terms, holder) = {
        let world = site.state.world();
        (world.rds_terms(&site.of), world.holder(&site.of))
    };
    let terms = terms.ok_or_else(|| Refusal::new("57P01", "the database was deleted"))?;
    let user = startup.user();
    if user.is_empty() {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Refusal::new("28000", message).into());
    }
    let words = match site.speaks {
        Speaks::PostgresProxy => Words::Proxy,
        Speaks::Mysql | Speaks::MysqlProxy | Speaks::Postgres | Speaks::Redshift => Words::Postgres,
    };
    if terms.require_tls && !tls {
        return Err(words.no_tls(startup).into());
    }
    let knows = |holder: &Holder| holder.users.contains(user);
    let Some(holder) = holder.filter(knows) else {
        return Err(words.no_iam_user(stream, user).await?.into());
    };
    if !tls {
        return Err(words.iam_needs_tls(startup).into());
    }
    let answer = Challenge::new(AuthCode::Cleartext).put(stream).await?;
    verify(site, &terms, user, &answer)
        .map_err(|why| words.bad_token(user, &terms).because(why))?;
    let database = startup.database();
    if !holder.is_up {
        return Err(words.target_is_down().into());
    }
    if !holder.databases.iter().any(|name| name == database) {
        let message = format!("database \"{database}\" does not exist");
        return Err(Refusal::new("3D000", message).into());
    }
    Ok(Admitted {
        role: user.to_owned(),
        database: database.to_owned(),
        owner: holder.master,
        at: holder.at,
    })
}

/// Fails with the reason, for the journal.
pub(super) fn verify(
    site: &Site,
    terms: &RdsTerms,
    user: &str,
    answer: &[u8],
) -> Result<(), String> {
    if !terms.iam {
        return Err("IAM authentication is not enabled".to_owned());
    }
    let token = answer.strip_suffix(&[0]).map(std::str::from_utf8);
    let Some(Ok(token)) = token else {
        return Err("the password is no text".to_owned());
    };
    let shown = Shown {
        host: &site.host,
        port: site.port,
        account: &site.of.id.account,
        region: &site.of.id.region,
        resource_id: &terms.resource_id,
        user,
    };
    presigned::verify(&site.state, &shown, token)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Whose words are used.
#[derive(Clone, Copy)]
enum Words {
    Postgres,
    Proxy,
}

impl Words {
    fn no_tls(self, startup: &Startup) -> Refusal {
        match self {
            Self::Postgres => no_entry(startup),
            Self::Proxy => Refusal::new("28000", "This RDS Proxy requires TLS connections"),
        }
    }

    fn iam_needs_tls(self, startup: &Startup) -> Refusal {
        match self {
            Self::Postgres => no_entry(startup),
            Self::Proxy => Refusal::new("28000", "IAM is allowed only with SSL connections."),
        }
    }

    /// What somebody hears who is no user with IAM authentication.
    async fn no_iam_user(
        self,
        stream: &mut impl Stream,
        user: &str,
    ) -> Result<Refusal, LoginError> {
        match self {
            Self::Postgres => {
                Challenge::new(AuthCode::Md5).put(stream).await?;
                let message = format!("password authentication failed for user \"{user}\"");
                Ok(Refusal::new("28P01", message).because("no such user with rds_iam"))
            }
            Self::Proxy => Ok(Refusal::new(
                "28000",
                format!(
                    "This RDS proxy has no credentials for the role {user}. Check the credentials for \
                     this role and try again."
                ),
            )),
        }
    }

    fn bad_token(self, user: &str, terms: &RdsTerms) -> Refusal {
        match self {
            Self::Postgres => Refusal::new(
                "28000",
                format!("PAM authentication failed for user \"{user}\""),
            ),
            Self::Proxy if !terms.iam => Refusal::new(
                "28P01",
                format!("The password that was provided for the role {user} is wrong."),
            ),
            Self::Proxy => Refusal::new(
                "28000",
                format!(
                    "The IAM authentication failed for the role {user}. Check the IAM token for this \
                     role and try again."
                ),
            ),
        }
    }

    /// A proxy is up while its target is not; the database itself was stopped in between.
    fn target_is_down(self) -> Refusal {
        match self {
            Self::Postgres => Refusal::new("57P03", "the database system is shutting down"),
            Self::Proxy => {
                Refusal::new("08000", "Timed-out waiting to acquire database connection")
            }
        }
    }
}

fn no_entry(startup: &Startup) -> Refusal {
    let (user, database) = (startup.user(), startup.database());
    let message = format!(
        "no pg_hba.conf entry for host \"127.0.0.1\", user \"{user}\", database \"{database}\", no \
         encryption"
    );
    Refusal::new("28000", message)
}
