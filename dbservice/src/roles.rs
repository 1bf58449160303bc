//! The cluster's roles as this agent knows them: read live from the auth service, kept while it is away.
//!
//! A role that changes counts for sessions that begin later. Sessions that run keep what they were given; locks
//! ([`crate::locks`]) are what reaches them.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tidegate_core::{Policy, Role};
use tidegate_proto::v1::{self, access_service_client::AccessServiceClient};
use tidegate_service::{rpc::MESSAGE_BYTES_MAX, tasks::ShutdownToken};
use tonic::{Status, transport::Channel};
use tracing::{error, info, warn};

use crate::{offline::Told, retry};

/// The present policy; absent until the first answer of the auth service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roles {
    policy: Arc<ArcSwapOption<Policy>>,
}

impl Roles {
    /// Decides by these roles from here on.
    pub(crate) fn set(&self, roles: Vec<Role>) {
        self.policy.store(Some(Arc::new(Policy::new(roles))));
    }

    /// Decides by these roles while none were told; the policy that this makes, unless there is one already.
    pub(crate) fn stand_in(&self, roles: impl Iterator<Item = Role>) -> Option<Arc<Policy>> {
        let kept = Arc::new(Policy::new(roles.collect::<Vec<_>>()));
        let before = self
            .policy
            .compare_and_swap(&None::<Arc<Policy>>, Some(Arc::clone(&kept)));
        before.is_none().then_some(kept)
    }

    /// Forgets a policy that stood in, unless roles were told meanwhile.
    pub(crate) fn stand_down(&self, kept: &Arc<Policy>) {
        self.policy.compare_and_swap(&Some(Arc::clone(kept)), None);
    }

    /// The policy, if one is known.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }
}

/// Follows the roles until shutdown.
pub(crate) async fn follow(channel: Channel, roles: Roles, told: Told, shutdown: ShutdownToken) {
    retry::follow(
        &shutdown,
        || watch_once(channel.clone(), &roles, &told),
        |cause| {
            let has_roles = roles.policy().is_some();
            warn!(
                error = cause,
                has_roles, "cannot watch roles; deciding by what was last known"
            );
        },
    )
    .await;
}

async fn watch_once(channel: Channel, roles: &Roles, told: &Told) -> Result<(), Status> {
    let mut client = AccessServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = client
        .watch_roles(v1::WatchRolesRequest {})
        .await?
        .into_inner();
    while let Some(answer) = stream.message().await? {
        told.roles(&answer.roles);
        let understood: Vec<Role> = answer.roles.into_iter().map(understood).collect();
        info!(roles = understood.len(), "roles changed");
        roles.set(understood);
    }
    Ok(())
}

/// A role as it was sent. One that cannot be understood might forbid something, so its holders get nothing here.
pub(crate) fn understood(role: v1::Role) -> Role {
    let name = role.name.clone();
    Role::try_from(role).unwrap_or_else(|invalid| {
        error!(role = name, error = %invalid, "a role cannot be understood; whoever holds it is refused everything");
        Role::unreadable(&name)
    })
}

#[cfg(test)]
mod tests {
    use tidegate_core::{Request, Subject};

    use super::*;
    use crate::testing::redshift;

    #[test]
    fn roles_that_were_kept_never_replace_what_was_told_and_are_forgotten_alone() {
        let roles = Roles::default();
        let kept = roles.stand_in(Vec::new().into_iter()).unwrap();
        assert!(Arc::ptr_eq(&roles.policy().unwrap(), &kept));
        roles.set(Role::builtin());
        let told = roles.policy().unwrap();
        roles.stand_down(&kept);
        assert!(Arc::ptr_eq(&roles.policy().unwrap(), &told));
        assert!(roles.stand_in(Vec::new().into_iter()).is_none());
        assert!(Arc::ptr_eq(&roles.policy().unwrap(), &told));

        let roles = Roles::default();
        let kept = roles.stand_in(Vec::new().into_iter()).unwrap();
        roles.stand_down(&kept);
        assert!(roles.policy().is_none());
    }

    #[test]
    fn a_role_that_cannot_be_understood_forbids_everything() {
        let mut broken: v1::Role = Role::builtin().remove(0).into();
        broken.name = "broken".to_owned();
        if let Some(labels) = broken
            .allow
            .as_mut()
            .and_then(|allow| allow.db_labels.as_mut())
        {
            labels.labels.insert(
                "env".to_owned(),
                v1::LabelValues {
                    values: vec!["^(a$".to_owned()],
                },
            );
        }
        let mut roles = Role::builtin();
        roles.push(understood(broken));
        let subject = Subject {
            user: "alice".to_owned(),
            roles: vec!["access".to_owned(), "broken".to_owned()],
            traits: [
                ("db_users".to_owned(), vec!["*".to_owned()]),
                ("db_names".to_owned(), vec!["*".to_owned()]),
            ]
            .into(),
        };
        let request = Request {
            database: &redshift("orders", &[]),
            db_user: "reader",
            db_name: "dev",
        };
        assert!(Policy::new(roles).check(&subject, request).is_err());
    }
}
