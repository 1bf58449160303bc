//! What can happen to endpoints while they run: other certificates, manners, addresses, names.

use std::sync::Arc;

use super::address::{allocate, write_hosts};
use super::{Endpoint, Fleet, FleetError, Server, settle, withdraw};
use crate::front::Manner;
use crate::state::State;
use crate::tls::Certificate;
use crate::world::ResourceId;

impl Fleet {
    /// Makes the fronts of something show another certificate from the next connection on, for good.
    pub(crate) async fn show(
        &self,
        of: &ResourceId,
        certificate: &Certificate,
    ) -> Result<(), FleetError> {
        let mut places = self.places.lock().await;
        let unknown = || FleetError::Unknown(of.clone());
        for placed in places
            .by_owner
            .get_mut(of)
            .ok_or_else(unknown)?
            .values_mut()
        {
            let host = &placed.endpoint.host;
            match &placed.server {
                Server::Native(_) => return Err(FleetError::Native(of.clone())),
                Server::Front(front) => {
                    let leaf = self.ca.leaf(&placed.certificate_names(), certificate)?;
                    front.shows().replace(leaf.server_config(host)?);
                }
                Server::Down => {}
            }
            placed.certificate = certificate.clone();
        }
        Ok(())
    }

    /// Makes the fronts of something treat connections otherwise from the next one on, for good.
    pub(crate) async fn behave(&self, of: &ResourceId, manner: Manner) -> Result<(), FleetError> {
        let mut places = self.places.lock().await;
        let unknown = || FleetError::Unknown(of.clone());
        for placed in places
            .by_owner
            .get_mut(of)
            .ok_or_else(unknown)?
            .values_mut()
        {
            match &placed.server {
                Server::Native(_) => return Err(FleetError::Native(of.clone())),
                Server::Front(front) => front.manners().set(manner),
                Server::Down => {}
            }
            placed.manner = manner;
        }
        Ok(())
    }

    /// Puts the names of something into the hosts file, or takes them out.
    pub(crate) async fn set_named(&self, of: &ResourceId, named: bool) -> Result<(), FleetError> {
        {
            let mut places = self.places.lock().await;
            let unknown = || FleetError::Unknown(of.clone());
            for placed in places
                .by_owner
                .get_mut(of)
                .ok_or_else(unknown)?
                .values_mut()
            {
                placed.named = named;
            }
        }
        write_hosts(self).await
    }

    /// The endpoints whose names resolve.
    pub(super) async fn named_endpoints(&self) -> Vec<Endpoint> {
        let places = self.places.lock().await;
        let named = places.all().filter(|placed| placed.named);
        named.map(|placed| placed.endpoint.clone()).collect()
    }

    /// Takes the endpoints of something down and gives each another address; [`settle`] brings them up there.
    async fn move_away(&self, of: &ResourceId) -> Result<(), FleetError> {
        let mut places = self.places.lock().await;
        let unknown = || FleetError::Unknown(of.clone());
        let mut moving = places.by_owner.remove(of).ok_or_else(unknown)?;
        for placed in moving.values_mut() {
            placed.stop().await;
            // The old address is not given out again soon: see `Places::next`.
            let port = placed.endpoint.port;
            let (address, _listener) = allocate(&mut places, of, None, port).await?;
            placed.endpoint.address = address;
        }
        places.by_owner.insert(of.clone(), moving);
        Ok(())
    }
}

/// Moves the endpoints of something to other addresses, as AWS does when it replaces a node: names stay, the hosts
/// file says where they are now, and connections end.
pub(crate) async fn readdress(state: &Arc<State>, of: &ResourceId) -> Result<(), FleetError> {
    state.fleet.move_away(of).await?;
    settle(state, of).await
}

/// Follows a new name in the world: what has the old one goes down, its databases get names by the new one, and its
/// endpoints come up under theirs.
pub(crate) async fn rename(
    state: &Arc<State>,
    from: &ResourceId,
    to: &ResourceId,
) -> Result<(), FleetError> {
    withdraw(&state.fleet, from, &[]).await;
    {
        let mut servers = state.fleet.mariadb.lock().await;
        if let Some(server) = servers.remove(from) {
            servers.insert(to.clone(), server);
        }
    }
    let databases = state.world().holder(to).filter(|holder| holder.at == *to);
    let databases = databases.map(|holder| holder.databases).unwrap_or_default();
    state.fleet.rename_databases(from, to, &databases).await?;
    settle(state, from).await?;
    settle(state, to).await
}
