//! One hop of a role chain as the SDK's source of credentials.
//!
//! The SDK has such a provider of its own; this one can also set a source identity, and marks its
//! failures with the role, so that [`crate::error`] can tell which hop of a chain failed.

use std::{sync::Arc, time::SystemTime};

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_sts::{Client, operation::assume_role::AssumeRoleOutput, types::Tag};
use tidegate_core::{AssumeRole, RoleArn};

use crate::{
    error::class_of,
    identity::{OwnIdentity, Renewed},
    session::SessionTag,
};

const PROVIDER_NAME: &str = "tidegate-role-chain";

/// A role that could not be assumed; the SDK's error is its source.
#[derive(Debug, thiserror::Error)]
#[error("could not assume {role}")]
pub(crate) struct HopError {
    pub(crate) role: RoleArn,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Assumes one role with the identity of `sts`. Calls STS each time; the SDK's identity cache above
/// it makes that once per session life.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) sts: Client,
    pub(crate) role: AssumeRole,
    pub(crate) session: SessionTag,
    pub(crate) is_first: bool,
    /// The credentials of `sts`.
    pub(crate) caller: Caller,
}

/// Whose credentials a role is assumed with.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// This process's own.
    Own(Arc<OwnIdentity>),
    /// Those of the role before.
    Role(Renewed),
}

impl Caller {
    /// AWS says that they expired.
    pub(crate) fn refused(&self) {
        match self {
            Self::Own(own) => own.refused(),
            Self::Role(role) => role.refused(),
        }
    }
}

impl Hop {
    async fn credentials(&self) -> provider::Result {
        let source_identity = self.session.source_identity().filter(|_| self.is_first);
        let assumed = self
            .sts
            .assume_role()
            .role_arn(self.role.role_arn.as_str())
            .role_session_name(self.session.name())
            .set_external_id(
                self.role
                    .external_id
                    .as_ref()
                    .map(|id| id.as_str().to_owned()),
            )
            .set_source_identity(source_identity.map(str::to_owned))
            .set_tags(self.tags())
            .send()
            .await
            .map_err(|error| {
                if class_of(&error).is_of_credentials() {
                    self.caller.refused();
                }
                self.failed(error)
            })?;
        read(assumed).ok_or_else(|| self.failed("STS answered without usable credentials"))
    }

    /// The session tags; `None` where there are none, for then no permission for them is asked.
    fn tags(&self) -> Option<Vec<Tag>> {
        let tags = self.session.tags();
        let tag = |(key, value): (&String, &String)| {
            let tag = Tag::builder().key(key).value(value).build();
            tag.expect("key and value are set")
        };
        (!tags.is_empty()).then(|| tags.iter().map(tag).collect())
    }

    fn failed(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CredentialsError {
        CredentialsError::provider_error(HopError {
            role: self.role.role_arn.clone(),
            source: source.into(),
        })
    }
}

impl ProvideCredentials for Hop {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

fn read(assumed: AssumeRoleOutput) -> Option<Credentials> {
    let keys = assumed.credentials?;
    let expiry = SystemTime::try_from(keys.expiration).ok()?;
    Some(
        Credentials::builder()
            .access_key_id(keys.access_key_id)
            .secret_access_key(keys.secret_access_key)
            .session_token(keys.session_token)
            .expiry(expiry)
            .provider_name(PROVIDER_NAME)
            .build(),
    )
}
