//! What the control plane is made of: the state that is open before anything is served, and the services over it.

use std::sync::Arc;

use tidegate_service::{
    clock::SharedClock, metrics::Metrics, settings::AuthSettings, tasks::ShutdownToken,
};

use super::{
    AuthError, Timings, setup,
    storage::{self, Storage},
};
use crate::{
    access::{Access, AccessParts},
    audit::{AuditLog, Origin},
    authority::Authority,
    backup::{BackupParts, Backups, Restores},
    configs::DiscoveryConfigs,
    databases::Databases,
    diagnoses::Diagnoses,
    grpc::Services,
    health_configs::HealthConfigs,
    inventory::Inventory,
    ledger::{Ledger, LedgerParts},
    presence::{Conflicts, Presence},
    store::{BoxError, Store, Watch},
};

/// What is open before anything is served.
pub(super) struct State {
    pub(super) storage: Storage,
    pub(super) store: Arc<dyn Store>,
    pub(super) audit: AuditLog,
    pub(super) authority: Arc<Authority>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) watch: Watch,
    pub(super) clock: SharedClock,
}

impl State {
    pub(super) async fn open(
        settings: &AuthSettings,
        origin: Origin,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Result<Self, AuthError> {
        let place = storage::place(&settings.storage);
        let failed = |source: BoxError| AuthError::Store {
            place: place.clone(),
            source,
        };
        let storage = Storage::open(&settings.storage).await.map_err(failed)?;
        let audit = storage::audit_log(&settings.audit_dir, origin, clock.clone(), metrics)
            .map_err(|source| {
                let place = storage::folder(&settings.audit_dir);
                AuthError::Store { place, source }
            })?;
        let store = storage.store();
        let authority = Authority::load(
            &store,
            &settings.cluster_name,
            settings.ca_keys.as_ref(),
            clock.clone(),
            audit.clone(),
        )
        .await
        .map_err(|error| AuthError::Authority(error.into()))?;
        let (inventory, watch) = Inventory::load(store.clone())
            .await
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            storage,
            store,
            audit,
            authority: Arc::new(authority),
            inventory,
            watch,
            clock,
        })
    }

    pub(super) async fn services(
        &self,
        settings: &AuthSettings,
        timings: Timings,
        metrics: &Metrics,
        shutdown: ShutdownToken,
    ) -> Result<Arc<Services>, AuthError> {
        let access = Access::new(AccessParts {
            store: self.store.clone(),
            inventory: self.inventory.clone(),
            authority: self.authority.clone(),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
            static_tokens: settings.static_tokens.clone(),
            second_factor: settings.authentication.second_factor,
            sts_endpoint: settings.sts_endpoint.clone(),
        })
        .await
        .map_err(setup("access"))?;
        self.inventory
            .resources()
            .fix_tokens(access.static_tokens());
        let parts = LedgerParts {
            store: self.store.clone(),
            inventory: self.inventory.clone(),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
            timings,
        };
        let ledger = Ledger::open(parts, metrics)
            .await
            .map_err(setup("the discovery ledger"))?;
        let health = HealthConfigs::open(self.store.clone(), self.audit.clone()).await;
        let health = Arc::new(health.map_err(setup("how health is checked"))?);
        let restores = Restores::open(self.store.clone()).await;
        let restores = Arc::new(restores.map_err(setup("what is known of restores"))?);
        let backups = Backups::new(BackupParts {
            store: self.store.clone(),
            cluster: self.authority.cluster().clone(),
            restores: restores.clone(),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
            folder: settings.audit_dir.clone(),
        });
        Ok(Arc::new(Services {
            access,
            audit: self.audit.clone(),
            authority: self.authority.clone(),
            backups,
            clock: self.clock.clone(),
            configs: DiscoveryConfigs {
                store: self.store.clone(),
                inventory: self.inventory.clone(),
                audit: self.audit.clone(),
            },
            databases: Databases {
                store: self.store.clone(),
                inventory: self.inventory.clone(),
                audit: self.audit.clone(),
            },
            diagnoses: Arc::new(Diagnoses::new(
                self.store.clone(),
                self.inventory.clone(),
                self.audit.clone(),
            )),
            health,
            inventory: self.inventory.clone(),
            ledger,
            presence: Arc::new(Presence {
                store: self.store.clone(),
                inventory: self.inventory.clone(),
                clock: self.clock.clone(),
                audit: self.audit.clone(),
                conflicts: Conflicts::default(),
                lease: timings.presence_lease,
            }),
            restores,
            shutdown,
        }))
    }
}
