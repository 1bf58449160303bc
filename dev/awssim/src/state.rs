//! Everything the simulation knows while it runs.
//!
//! The world is behind one lock that is never held across an await; each other part guards
//! itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::crypto::Secret;
use crate::faults::Faults;
use crate::fleet::{Fleet, FleetError};
use crate::iam::{Context, Denial};
use crate::journal::{Call, Journal, Login};
use crate::lag::Lag;
use crate::limits::Limits;
use crate::machines::Machines;
use crate::mint::{Mint, Mints};
use crate::sessions::{Caller, Sessions};
use crate::world::{Kind, World};

#[derive(Debug)]
pub(crate) struct State {
    world: Mutex<World>,
    pub(crate) clock: Clock,
    pub(crate) sessions: Sessions,
    pub(crate) mints: Mints,
    pub(crate) machines: Machines,
    pub(crate) faults: Faults,
    pub(crate) lag: Lag,
    pub(crate) limits: Limits,
    pub(crate) calls: Journal<Call>,
    pub(crate) logins: Journal<Login>,
    pub(crate) fleet: Fleet,
    pub(crate) endpoint_url: String,
    /// Ends every task of the simulation.
    pub(crate) cancel: CancellationToken,
}

impl State {
    pub(crate) fn new(world: World, fleet: Fleet, endpoint_url: String) -> Self {
        let limits = Limits::default();
        limits.set(world.rate_limits.clone());
        Self {
            world: Mutex::new(world),
            clock: Clock::default(),
            sessions: Sessions::default(),
            mints: Mints::default(),
            machines: Machines::default(),
            faults: Faults::default(),
            lag: Lag::default(),
            limits,
            calls: Journal::default(),
            logins: Journal::default(),
            fleet,
            endpoint_url,
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user of a long-lived access key, and the key's secret.
    pub(crate) fn find_user(&self, access_key: &str) -> Option<(Caller, Secret)> {
        let world = self.world();
        for (account, in_account) in &world.accounts {
            for (name, user) in &in_account.users {
                if let Some(key) = user.access_keys.iter().find(|key| key.id == access_key) {
                    let caller = Caller::User {
                        partition: in_account.partition(),
                        account: account.clone(),
                        name: name.clone(),
                    };
                    return Some((caller, Secret::new(key.secret.clone())));
                }
            }
        }
        None
    }

    /// What all policies that limit a caller say together.
    pub(crate) fn decide(
        &self,
        caller: &Caller,
        action: &str,
        arn: &str,
        context: &Context,
    ) -> Result<(), Denial> {
        let world = self.world();
        let mut layers = world.layers(caller.account(), &caller.principal());
        if let Caller::Session(session) = caller {
            layers.session = session.spec.policy.as_ref();
        }
        layers.decide(action, arn, context)
    }

    /// Sets a minted password in the cluster's own PostgreSQL, if it has one.
    pub(crate) async fn tell_native(&self, mint: &Mint, seconds: u32) -> Result<(), FleetError> {
        let exists = {
            let world = self.world();
            let at = &mint.grant.at;
            let cluster = world.cluster(&at.id).filter(|_| at.kind == Kind::Cluster);
            cluster.is_some_and(|c| mint.grant.creates_user || c.has_user(&mint.grant.role))
        };
        if exists {
            self.fleet.set_native_password(mint, seconds).await
        } else {
            Ok(())
        }
    }
}
