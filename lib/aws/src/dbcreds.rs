//! Short-lived passwords for a login to Redshift, provisioned and serverless.
//!
//! Each function makes one attempt: whoever repeats calls has to count them (see [`crate::budget`]).
//!
//! Source: Amazon Redshift API reference, `GetClusterCredentials`, `GetClusterCredentialsWithIAM`; Amazon Redshift
//! Serverless API reference, `GetCredentials`.

use std::{ops::RangeInclusive, time::Duration};

use aws_smithy_types::{DateTime, retry::RetryConfig};
use jiff::Timestamp;
use secrecy::SecretString;

use crate::{
    error::{AwsErrorClass, AwsFailure, classify},
    login::{
        GET_CLUSTER_CREDENTIALS, GET_CLUSTER_CREDENTIALS_WITH_IAM, GET_SERVERLESS_CREDENTIALS,
        NewUser, Workgroup,
    },
};

/// How long a password may be asked to live, in seconds.
pub const TTL_SECONDS: RangeInclusive<u64> = 900..=3600;

/// A database login that expires. The password does not print, and is wiped when it is dropped.
#[derive(Clone, Debug)]
pub struct DbCredentials {
    /// The name to log in with, as AWS rewrote it (`IAM:alice` for `alice`).
    pub user: String,
    /// Good for new logins until `expires_at`; sessions outlive it.
    pub password: SecretString,
    /// As AWS stated it.
    pub expires_at: Timestamp,
}

/// Asks for a password for a database user.
///
/// With `create` Redshift makes the user at its first login if there is none, with that name and no password of its own,
/// and puts it into the groups for the session; without, a user that is missing fails at login. `ttl` is sent in whole
/// seconds and must lie within [`TTL_SECONDS`]. Each call gives a new password and leaves earlier ones valid, so a repeat
/// does no harm.
///
/// # Errors
///
/// [`AwsFailure`]: of class `InvalidRequest` without any call when `ttl` is out of range, else what
/// AWS answered. A database user that does not exist is no error here; the login fails later.
pub async fn redshift_cluster_credentials(
    client: &aws_sdk_redshift::Client,
    cluster_id: &str,
    db_user: &str,
    db_name: &str,
    create: Option<&NewUser>,
    ttl: Duration,
) -> Result<DbCredentials, AwsFailure> {
    let action = GET_CLUSTER_CREDENTIALS;
    let seconds = checked_ttl(action, ttl)?;
    let groups = create.map(|new| new.groups.clone());
    let answer = client
        .get_cluster_credentials()
        .cluster_identifier(cluster_id)
        .db_user(db_user)
        .db_name(db_name)
        .auto_create(create.is_some())
        .set_db_groups(groups.filter(|groups| !groups.is_empty()))
        .duration_seconds(seconds)
        .customize()
        .config_override(
            aws_sdk_redshift::config::Config::builder().retry_config(RetryConfig::disabled()),
        )
        .send()
        .await
        .map_err(|error| classify(action, error))?;
    read(
        action,
        answer.db_user,
        answer.db_password,
        answer.expiration,
    )
}

/// Asks for a password for the database user that belongs to the calling role (`IAMR:role`), which
/// Redshift makes at its first login.
///
/// # Errors
///
/// As [`redshift_cluster_credentials`].
pub async fn redshift_cluster_credentials_with_iam(
    client: &aws_sdk_redshift::Client,
    cluster_id: &str,
    db_name: &str,
    ttl: Duration,
) -> Result<DbCredentials, AwsFailure> {
    let action = GET_CLUSTER_CREDENTIALS_WITH_IAM;
    let seconds = checked_ttl(action, ttl)?;
    let answer = client
        .get_cluster_credentials_with_iam()
        .cluster_identifier(cluster_id)
        .db_name(db_name)
        .duration_seconds(seconds)
        .customize()
        .config_override(
            aws_sdk_redshift::config::Config::builder().retry_config(RetryConfig::disabled()),
        )
        .send()
        .await
        .map_err(|error| classify(action, error))?;
    read(
        action,
        answer.db_user,
        answer.db_password,
        answer.expiration,
    )
}

/// Asks for a password for the database user that belongs to the calling role in a workgroup of Redshift Serverless,
/// which makes the user at its first login.
///
/// # Errors
///
/// As [`redshift_cluster_credentials`].
pub async fn redshift_serverless_credentials(
    client: &aws_sdk_redshiftserverless::Client,
    workgroup: &Workgroup,
    db_name: &str,
    ttl: Duration,
) -> Result<DbCredentials, AwsFailure> {
    let action = GET_SERVERLESS_CREDENTIALS;
    let seconds = checked_ttl(action, ttl)?;
    let asked = client
        .get_credentials()
        .db_name(db_name)
        .duration_seconds(seconds);
    let asked = match workgroup {
        Workgroup::CustomDomain(domain) => asked.custom_domain_name(domain),
        Workgroup::Named { name, .. } => asked.workgroup_name(name),
    };
    let answer = asked
        .customize()
        .config_override(
            aws_sdk_redshiftserverless::config::Config::builder()
                .retry_config(RetryConfig::disabled()),
        )
        .send()
        .await
        .map_err(|error| classify(action, error))?;
    read(
        action,
        answer.db_user,
        answer.db_password,
        answer.expiration,
    )
}

fn checked_ttl(action: &'static str, ttl: Duration) -> Result<i32, AwsFailure> {
    let seconds = ttl.as_secs();
    i32::try_from(seconds)
        .ok()
        .filter(|_| TTL_SECONDS.contains(&seconds))
        .ok_or_else(|| {
            let (least, most) = (TTL_SECONDS.start(), TTL_SECONDS.end());
            let problem =
                format!("a password life of {seconds} s; it must be {least} s to {most} s");
            AwsFailure::new(AwsErrorClass::InvalidRequest, action, problem)
        })
}

fn read(
    action: &'static str,
    user: Option<String>,
    password: Option<String>,
    expires_at: Option<DateTime>,
) -> Result<DbCredentials, AwsFailure> {
    let missing = |field: &str| {
        AwsFailure::new(
            AwsErrorClass::Malformed,
            action,
            format!("answer without {field}"),
        )
    };
    Ok(DbCredentials {
        user: user.ok_or_else(|| missing("DbUser"))?,
        password: password.ok_or_else(|| missing("DbPassword"))?.into(),
        expires_at: expires_at
            .and_then(timestamp)
            .ok_or_else(|| missing("a usable Expiration"))?,
    })
}

fn timestamp(time: DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_password_life_out_of_range_is_refused_without_a_call() {
        for (seconds, valid) in [
            (899, false),
            (900, true),
            (3600, true),
            (3601, false),
            (u64::MAX, false),
        ] {
            assert_eq!(
                checked_ttl(GET_CLUSTER_CREDENTIALS, Duration::from_secs(seconds)).is_ok(),
                valid,
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_password_does_not_print() {
        let credentials = read(
            GET_CLUSTER_CREDENTIALS,
            Some("IAM:alice".into()),
            Some("hunter2".into()),
            Some(DateTime::from_secs(1_800_000_000)),
        )
        .unwrap();

        assert_eq!(credentials.password.expose_secret(), "hunter2");
        assert_eq!(
            credentials.expires_at,
            Timestamp::from_second(1_800_000_000).unwrap()
        );
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn an_answer_without_a_password_is_malformed() {
        let failure = read(
            GET_CLUSTER_CREDENTIALS_WITH_IAM,
            Some("IAMR:x".into()),
            None,
            None,
        )
        .unwrap_err();

        assert_eq!(
            (failure.class, failure.action),
            (AwsErrorClass::Malformed, GET_CLUSTER_CREDENTIALS_WITH_IAM)
        );
        assert!(failure.to_string().contains("DbPassword"));
    }
}
