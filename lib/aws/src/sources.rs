//! Where this process's own AWS credentials come from: each source of the SDK's default chain, asked one by one, and what
//! it said.
//!
//! The chain takes the first source that has something, and stops at one that is set up and fails; it tells the last
//! word alone. Here every word is kept, so that a host without credentials can be told why it has none. Nothing is kept
//! for calls: [`crate::factory`] goes through the SDK's own chain.
//!
//! Source: AWS SDKs and tools reference guide, "Standardized credential providers"; the order is that of the SDK for
//! Rust.

mod instance;

use std::{fmt, time::SystemTime};

use aws_config::{
    ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    imds::credentials::ImdsCredentialsProvider, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig, web_identity_token::WebIdentityTokenCredentialsProvider,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use jiff::Timestamp;

pub use instance::InstanceAnswer;

use crate::error::told;

/// A source of credentials, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Environment,
    /// A profile of `~/.aws/config` and `~/.aws/credentials`.
    Profile,
    /// A token of an identity provider, as Kubernetes gives for a service account (IRSA).
    WebIdentity,
    /// The container's agent: ECS, EKS Pod Identity.
    Container,
    /// The instance's metadata service.
    Instance,
}

impl Source {
    /// For people.
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::Environment => "environment variables",
            Self::Profile => "profile files",
            Self::WebIdentity => "web identity token",
            Self::Container => "container credentials",
            Self::Instance => "instance metadata",
        }
    }
}

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It gave credentials.
    Gave {
        /// Their id, which is no secret.
        key_id: String,
        /// When they end; `None` when they do not.
        expires_at: Option<Timestamp>,
    },
    /// It is not set up here.
    Nothing(String),
    /// It is set up and failed: no other source is asked.
    Failed(String),
}

/// A source and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Which.
    pub source: Source,
    /// What it said.
    pub said: Said,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source.described())?;
        match &self.said {
            Said::Gave { key_id, expires_at } => {
                write!(f, "gave access key {key_id}")?;
                match expires_at {
                    Some(at) => write!(f, ", good until {at:.0}"),
                    None => Ok(()),
                }
            }
            Said::Nothing(why) => write!(f, "nothing ({why})"),
            Said::Failed(why) => write!(f, "failed ({why})"),
        }
    }
}

/// All sources that were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Up to the first that gave something, or failed.
    pub tried: Vec<Tried>,
    /// What the instance's metadata service answers, where the SDK got nothing from it.
    pub instance: Option<InstanceAnswer>,
}

impl Sources {
    /// The source that gave credentials.
    #[must_use]
    pub fn giver(&self) -> Option<&Tried> {
        self.tried
            .last()
            .filter(|tried| matches!(tried.said, Said::Gave { .. }))
    }

    /// The source that ended the search by failing.
    #[must_use]
    pub fn failed(&self) -> Option<&Tried> {
        self.tried
            .last()
            .filter(|tried| matches!(tried.said, Said::Failed(_)))
    }
}

/// Asks the sources of the SDK's default chain in turn, as it does, and says what each said. Each call asks anew; a
/// repeat does no harm. Takes up to some 15 s where a metadata service does not answer.
pub async fn ask_sources() -> Sources {
    let config = ProviderConfig::with_default_region().await;
    let mut sources = Sources::default();
    let environment = EnvironmentVariableCredentialsProvider::new();
    if ask(&mut sources, Source::Environment, &environment).await {
        return sources;
    }
    let profile = ProfileFileCredentialsProvider::builder().configure(&config);
    if ask(&mut sources, Source::Profile, &profile.build()).await {
        return sources;
    }
    let web = WebIdentityTokenCredentialsProvider::builder().configure(&config);
    if ask(&mut sources, Source::WebIdentity, &web.build()).await {
        return sources;
    }
    let container = EcsCredentialsProvider::builder().configure(&config);
    if ask(&mut sources, Source::Container, &container.build()).await {
        return sources;
    }
    let instance = ImdsCredentialsProvider::builder().configure(&config);
    ask(&mut sources, Source::Instance, &instance.build()).await;
    if sources.giver().is_none() {
        sources.instance = instance::ask().await;
    }
    sources
}

/// Whether the search is over.
async fn ask(sources: &mut Sources, source: Source, provider: &impl ProvideCredentials) -> bool {
    let said = read(provider.provide_credentials().await);
    let is_over = !matches!(said, Said::Nothing(_));
    sources.tried.push(Tried { source, said });
    is_over
}

fn read(answer: Result<Credentials, CredentialsError>) -> Said {
    match answer {
        Ok(keys) => Said::Gave {
            key_id: keys.access_key_id().to_owned(),
            expires_at: keys.expiry().and_then(timestamp),
        },
        Err(error @ CredentialsError::CredentialsNotLoaded(_)) => Said::Nothing(cause(&error)),
        Err(error) => Said::Failed(cause(&error)),
    }
}

/// What the error says below the SDK's own opening, which is the same for all.
fn cause(error: &CredentialsError) -> String {
    let behind = std::error::Error::source(error);
    behind.map_or_else(|| error.to_string(), told)
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_not_set_up_passes_on_and_one_that_fails_does_not() {
        let nothing = read(Err(CredentialsError::not_loaded("AWS_X is not set")));
        assert_eq!(nothing, Said::Nothing("AWS_X is not set".to_owned()));
        let failed = read(Err(CredentialsError::provider_error("503")));
        assert_eq!(failed, Said::Failed("503".to_owned()));
    }

    #[test]
    fn the_secret_of_credentials_is_told_to_nobody() {
        let keys = Credentials::new("AKIA1", "hunter2", Some("token9".to_owned()), None, "test");
        let said = read(Ok(keys));
        let tried = Tried {
            source: Source::Environment,
            said,
        };
        assert_eq!(
            tried.to_string(),
            "environment variables: gave access key AKIA1"
        );
        assert!(!format!("{tried:?}").contains("hunter2"));
        assert!(!format!("{tried:?}").contains("token9"));
    }
}
