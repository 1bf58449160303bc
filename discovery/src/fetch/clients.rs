//! Clients of the services that the factory keeps none for, each made once per role chain and region.
//!
//! A client is made from the factory's configuration, so that all of a chain share credentials and connections.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidegate_aws::{AwsFactory, RoleChain, SessionTag};
use tidegate_core::Region;

/// Clients kept of each service; beyond it all are forgotten and made again as they are needed, which costs no call.
const CLIENTS_MAX: usize = 256;

/// Clients by service.
#[derive(Debug, Default)]
pub(super) struct Clients {
    rds: Kept<aws_sdk_rds::Client>,
    serverless: Kept<aws_sdk_redshiftserverless::Client>,
    tagging: Kept<aws_sdk_resourcegroupstagging::Client>,
}

impl Clients {
    pub(super) async fn rds(
        &self,
        factory: &AwsFactory,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> aws_sdk_rds::Client {
        if let Some(client) = self.rds.get(chain, region) {
            return client;
        }
        let config = factory.config(chain, region, session).await;
        self.rds
            .keep(chain, region, aws_sdk_rds::Client::new(&config))
    }

    pub(super) async fn serverless(
        &self,
        factory: &AwsFactory,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> aws_sdk_redshiftserverless::Client {
        if let Some(client) = self.serverless.get(chain, region) {
            return client;
        }
        let config = factory.config(chain, region, session).await;
        let client = aws_sdk_redshiftserverless::Client::new(&config);
        self.serverless.keep(chain, region, client)
    }

    pub(super) async fn tagging(
        &self,
        factory: &AwsFactory,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
    ) -> aws_sdk_resourcegroupstagging::Client {
        if let Some(client) = self.tagging.get(chain, region) {
            return client;
        }
        let config = factory.config(chain, region, session).await;
        let client = aws_sdk_resourcegroupstagging::Client::new(&config);
        self.tagging.keep(chain, region, client)
    }
}

#[derive(Debug)]
struct Kept<C> {
    clients: Mutex<HashMap<(RoleChain, Region), C>>,
}

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self {
            clients: Mutex::default(),
        }
    }
}

impl<C: Clone> Kept<C> {
    fn get(&self, chain: &RoleChain, region: &Region) -> Option<C> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(&(chain.clone(), region.clone())).cloned()
    }

    fn keep(&self, chain: &RoleChain, region: &Region, client: C) -> C {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert((chain.clone(), region.clone()), client.clone());
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_kept_per_chain_and_region_and_not_without_bound() {
        let kept = Kept::<usize>::default();
        let chain = RoleChain::default();
        let region = |n: usize| -> Region {
            let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
            let word: String = [n / 676, n / 26, n].map(letter).into_iter().collect();
            format!("xx-{word}-1").parse().unwrap()
        };
        for n in 0..=CLIENTS_MAX {
            kept.keep(&chain, &region(n), n);
        }
        assert_eq!(kept.get(&chain, &region(CLIENTS_MAX)), Some(CLIENTS_MAX));
        assert!(kept.clients.lock().unwrap().len() <= CLIENTS_MAX);
    }
}
