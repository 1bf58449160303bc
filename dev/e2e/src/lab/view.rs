//! What an administrator sees, and waiting for it.

use anyhow::{Context, Result};
use tidegate_proto::{
    scopes,
    v1::{
        self, audit_service_client::AuditServiceClient,
        discovery_service_client::DiscoveryServiceClient,
        inventory_service_client::InventoryServiceClient,
    },
};
use tidegate_service::rpc;
use tonic::transport::Channel;

use super::{Lab, Part};
use crate::wait;

impl Lab {
    /// A channel with an administrator's rights, over the auth host's socket.
    #[must_use]
    pub fn admin(&self) -> Channel {
        self.admin_of(self.auth())
    }

    /// The same at one instance of the control plane.
    #[must_use]
    pub fn admin_of(&self, part: Part) -> Channel {
        rpc::unix_channel(&self.data_dir(part).join("auth.sock"))
    }

    /// The inventory, for an administrator.
    #[must_use]
    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.admin())
    }

    /// All databases of the inventory, by name.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn databases(&self) -> Result<Vec<v1::Database>> {
        let request = v1::ListDatabasesRequest {
            page_size: 1000,
            ..v1::ListDatabasesRequest::default()
        };
        Ok(self
            .inventory()
            .list_databases(request)
            .await?
            .into_inner()
            .databases)
    }

    /// All database servers.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn database_servers(&self) -> Result<Vec<v1::DatabaseServer>> {
        let request = v1::ListDatabaseServersRequest {
            page_size: 1000,
            ..v1::ListDatabaseServersRequest::default()
        };
        Ok(self
            .inventory()
            .list_database_servers(request)
            .await?
            .into_inner()
            .database_servers)
    }

    /// What is known of each scan scope.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn scopes(&self) -> Result<Vec<v1::ScopeStatus>> {
        Ok(scopes::all(&mut DiscoveryServiceClient::new(self.admin())).await?)
    }

    /// The newest audit events of one kind.
    ///
    /// # Errors
    ///
    /// When the auth service does not answer.
    pub async fn audit(&self, event: &str) -> Result<Vec<v1::AuditEvent>> {
        let request = v1::ListEventsRequest {
            event: event.to_owned(),
            limit: 1000,
            ..v1::ListEventsRequest::default()
        };
        Ok(AuditServiceClient::new(self.admin())
            .list_events(request)
            .await?
            .into_inner()
            .events)
    }

    /// Waits until exactly these undecorated names are in the inventory.
    ///
    /// # Errors
    ///
    /// When that does not happen.
    pub async fn wait_for_databases(&self, wanted: &[&str]) -> Result<Vec<v1::Database>> {
        wait::until(&format!("databases {wanted:?}"), || async {
            let found = self
                .databases()
                .await
                .map_err(|error| format!("{error:#}"))?;
            let mut names: Vec<&str> = found
                .iter()
                .map(|database| database.discovered_name.as_str())
                .collect();
            names.sort_unstable();
            if names == wanted {
                Ok(found)
            } else {
                Err(format!("there are {names:?}"))
            }
        })
        .await
        .with_context(|| format!("{}\n{}", self.log(Part::Auth), self.log(Part::Discovery)))
    }

    /// Waits until every database of these undecorated names has so many healthy servers.
    ///
    /// # Errors
    ///
    /// When that does not happen.
    pub async fn wait_for_servers(
        &self,
        names: &[&str],
        servers_each: usize,
    ) -> Result<Vec<v1::DatabaseServer>> {
        wait::until(
            &format!("{servers_each} healthy servers of each of {names:?}"),
            || async {
                let found = self
                    .database_servers()
                    .await
                    .map_err(|error| format!("{error:#}"))?;
                let healthy = |name: &&str| {
                    let of_it = found.iter().filter(|server| {
                        server
                            .database
                            .as_ref()
                            .is_some_and(|database| database.discovered_name == **name)
                    });
                    of_it
                        .filter(|server| {
                            server
                                .target_health
                                .as_ref()
                                .is_some_and(|health| health.status == "healthy")
                        })
                        .count()
                };
                let counts: Vec<(&&str, usize)> =
                    names.iter().map(|name| (name, healthy(name))).collect();
                if counts.iter().all(|(_, count)| *count == servers_each) {
                    Ok(found)
                } else {
                    Err(format!("there are {counts:?}"))
                }
            },
        )
        .await
        .with_context(|| format!("{}\n{}", self.log(Part::AgentA), self.log(Part::AgentB)))
    }
}
