//! What can be changed in a running simulation, as methods of [`Sim`]. Each takes effect before it returns.

use std::collections::BTreeMap;

use super::Sim;
use crate::fleet::{Endpoint, sql};
use crate::front::Manner;
use crate::iam::IdentityPolicy;
use crate::machines;
use crate::postgres::sql::Rows;
use crate::tls::Certificate;
use crate::verbs::{self, ClusterPatch, SimError};
use crate::world::{
    Cluster, ClusterId, DbCluster, DbInstance, DbProxy, Kind, Machine, OidcProvider, RateLimit,
    Resource, ResourceId, Role, User, Workgroup,
};

impl Sim {
    /// Adds a cluster to an account of the world, enabling its region, and starts its server.
    ///
    /// # Errors
    ///
    /// [`SimError`]; the cluster does not exist then.
    pub async fn add_cluster(
        &self,
        id: &ClusterId,
        cluster: Cluster,
    ) -> Result<Endpoint, SimError> {
        verbs::add_cluster(&self.state, id, cluster).await
    }

    /// Deletes a cluster: its connections end, its databases and passwords are gone.
    ///
    /// # Errors
    ///
    /// [`SimError::UnknownCluster`], or its server could not be stopped.
    pub async fn remove_cluster(&self, id: &ClusterId) -> Result<(), SimError> {
        verbs::remove_cluster(&self.state, id).await
    }

    /// Changes a cluster.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such cluster, a rule broken, or its server could not follow.
    pub async fn change_cluster(
        &self,
        id: &ClusterId,
        patch: ClusterPatch,
    ) -> Result<Endpoint, SimError> {
        verbs::change_cluster(&self.state, id, patch).await
    }

    /// Replaces a cluster's tags.
    ///
    /// # Errors
    ///
    /// As [`Sim::change_cluster`].
    pub async fn set_tags(
        &self,
        id: &ClusterId,
        tags: BTreeMap<String, String>,
    ) -> Result<Endpoint, SimError> {
        let patch = ClusterPatch {
            tags: Some(tags),
            ..ClusterPatch::default()
        };
        self.change_cluster(id, patch).await
    }

    /// Sets a cluster's status; pausing ends its connections and refuses TCP.
    ///
    /// # Errors
    ///
    /// As [`Sim::change_cluster`].
    pub async fn set_status(&self, id: &ClusterId, status: &str) -> Result<Endpoint, SimError> {
        let patch = ClusterPatch {
            status: Some(status.to_owned()),
            ..ClusterPatch::default()
        };
        self.change_cluster(id, patch).await
    }

    /// Makes the endpoints of something show another certificate from the next connection on, also after a pause.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such thing, or a native cluster.
    pub async fn show_certificate(
        &self,
        of: &ResourceId,
        certificate: &Certificate,
    ) -> Result<(), SimError> {
        verbs::show_certificate(&self.state, of, certificate).await
    }

    /// Makes the endpoints of something treat connections otherwise from the next one on, also after a pause.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such thing, a native cluster, or a delay beyond the bound.
    pub async fn behave(&self, of: &ResourceId, manner: Manner) -> Result<(), SimError> {
        verbs::behave(&self.state, of, manner).await
    }

    /// Lets the host names of something resolve, or not.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such thing, or the hosts file cannot be written.
    pub async fn set_named(&self, of: &ResourceId, named: bool) -> Result<(), SimError> {
        Ok(self.state.fleet.set_named(of, named).await?)
    }

    /// Sets the status of anything; what listens follows at once. Paused and stopped things refuse TCP.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such thing, or its fronts could not follow.
    pub async fn set_status_of(
        &self,
        of: &ResourceId,
        status: &str,
    ) -> Result<Vec<Endpoint>, SimError> {
        verbs::set_status(&self.state, of, status).await
    }

    /// Gives something another name: its data, ids and tags stay, its host names are others, and passwords minted for it
    /// are gone.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such thing, the name is taken or breaks a rule.
    pub async fn rename(&self, of: &ResourceId, name: &str) -> Result<Vec<Endpoint>, SimError> {
        verbs::rename(&self.state, of, name).await
    }

    /// Moves the endpoints of something to other addresses: names stay, connections end, the hosts file follows.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such thing, or no address is free.
    pub async fn readdress(&self, of: &ResourceId) -> Result<Vec<Endpoint>, SimError> {
        verbs::readdress(&self.state, of).await
    }

    /// Adds or replaces a role; sessions of it follow its new policies at once.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken.
    pub fn put_role(&self, account: &str, name: &str, role: Role) -> Result<(), SimError> {
        self.state.put_role(account, name, role)
    }

    /// Deletes a role: what its sessions have is of no use from then on, also when a role of that name is made anew.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account or role.
    pub fn remove_role(&self, account: &str, name: &str) -> Result<(), SimError> {
        self.state.remove_role(account, name)
    }

    /// Adds or replaces an OIDC provider of an account, by issuer without `https://`.
    ///
    /// # Errors
    ///
    /// [`SimError::UnknownAccount`].
    pub fn put_oidc_provider(
        &self,
        account: &str,
        issuer: &str,
        provider: OidcProvider,
    ) -> Result<(), SimError> {
        self.state.put_oidc_provider(account, issuer, provider)
    }

    /// Replaces the service control policies of an account.
    ///
    /// # Errors
    ///
    /// [`SimError::UnknownAccount`].
    pub fn put_service_control_policies(
        &self,
        account: &str,
        policies: Vec<IdentityPolicy>,
    ) -> Result<(), SimError> {
        self.state.put_service_control_policies(account, policies)
    }

    /// Adds or replaces a machine; what it handed out before is good until it ends.
    ///
    /// # Errors
    ///
    /// [`SimError::World`].
    pub fn put_machine(&self, name: &str, machine: Machine) -> Result<(), SimError> {
        self.state.put_machine(name, machine)
    }

    /// The variables that lead a program on a machine to its credentials. What a pod or service account has in a file is written
    /// anew by each call, as a kubelet does from time to time.
    ///
    /// # Errors
    ///
    /// [`SimError::UnknownMachine`], [`SimError::Token`].
    pub fn environment_of(&self, machine: &str) -> Result<BTreeMap<String, String>, SimError> {
        machines::environment(&self.state, machine)
    }

    /// Adds or replaces an IAM user.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken.
    pub fn put_user(&self, account: &str, name: &str, user: User) -> Result<(), SimError> {
        self.state.put_user(account, name, user)
    }

    /// Adds or replaces a workgroup, enabling its region.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken.
    pub async fn put_workgroup(
        &self,
        id: &ClusterId,
        workgroup: Workgroup,
    ) -> Result<Vec<Endpoint>, SimError> {
        self.put(id, workgroup).await
    }

    /// Adds or replaces an RDS instance; the cluster that it names must be there.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken.
    pub async fn put_db_instance(
        &self,
        id: &ClusterId,
        instance: DbInstance,
    ) -> Result<Vec<Endpoint>, SimError> {
        self.put(id, instance).await
    }

    /// Adds or replaces an RDS cluster; its members are put as instances.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken.
    pub async fn put_db_cluster(
        &self,
        id: &ClusterId,
        cluster: DbCluster,
    ) -> Result<Vec<Endpoint>, SimError> {
        self.put(id, cluster).await
    }

    /// Adds or replaces an RDS proxy.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken.
    pub async fn put_db_proxy(
        &self,
        id: &ClusterId,
        proxy: DbProxy,
    ) -> Result<Vec<Endpoint>, SimError> {
        self.put(id, proxy).await
    }

    /// Adds or replaces anything but a Redshift cluster; its endpoints, which are up when this returns.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such account, or a rule broken, or its fronts could not follow.
    pub async fn put(
        &self,
        id: &ClusterId,
        resource: impl Into<Resource>,
    ) -> Result<Vec<Endpoint>, SimError> {
        verbs::put_resource(&self.state, id, resource.into()).await
    }

    /// Deletes a workgroup.
    ///
    /// # Errors
    ///
    /// [`SimError::Unknown`].
    pub async fn remove_workgroup(&self, id: &ClusterId) -> Result<(), SimError> {
        verbs::remove_resource(&self.state, id, Kind::Workgroup).await
    }

    /// Deletes an RDS instance.
    ///
    /// # Errors
    ///
    /// [`SimError::Unknown`].
    pub async fn remove_db_instance(&self, id: &ClusterId) -> Result<(), SimError> {
        verbs::remove_resource(&self.state, id, Kind::DbInstance).await
    }

    /// Deletes an RDS cluster and its members.
    ///
    /// # Errors
    ///
    /// [`SimError::Unknown`].
    pub async fn remove_db_cluster(&self, id: &ClusterId) -> Result<(), SimError> {
        verbs::remove_resource(&self.state, id, Kind::DbCluster).await
    }

    /// Deletes an RDS proxy.
    ///
    /// # Errors
    ///
    /// [`SimError::Unknown`].
    pub async fn remove_db_proxy(&self, id: &ClusterId) -> Result<(), SimError> {
        verbs::remove_resource(&self.state, id, Kind::DbProxy).await
    }

    /// Enables or disables a region of an account; what is in it stays.
    ///
    /// # Errors
    ///
    /// [`SimError::UnknownAccount`], [`SimError::UnknownRegion`].
    pub fn set_region_enabled(
        &self,
        account: &str,
        region: &str,
        enabled: bool,
    ) -> Result<(), SimError> {
        self.state.set_region_enabled(account, region, enabled)
    }

    /// Puts request rates in force, by `service:Operation`; every bucket is full then. As
    /// [`World::rate_limits`].
    ///
    /// # Errors
    ///
    /// [`SimError::World`]: a name or rate that makes no sense.
    pub fn set_rate_limits(&self, limits: BTreeMap<String, RateLimit>) -> Result<(), SimError> {
        self.state.set_rate_limits(limits)
    }

    /// Runs SQL as superuser in a cluster's first database, to seed it; the rows of all its
    /// statements. Several statements are one transaction. As in Redshift, database users see
    /// only what they are granted.
    ///
    /// # Errors
    ///
    /// [`SimError`]: no such cluster, or what PostgreSQL said.
    pub async fn sql(&self, id: &ClusterId, text: &str) -> Result<Rows, SimError> {
        self.sql_of(&ResourceId::cluster(id), None, text).await
    }

    /// As [`Sim::sql`], of anything that has data behind it, in one of its databases or the first.
    ///
    /// # Errors
    ///
    /// As [`Sim::sql`].
    pub async fn sql_of(
        &self,
        of: &ResourceId,
        database: Option<&str>,
        text: &str,
    ) -> Result<Rows, SimError> {
        Ok(sql(&self.state, of, database, text).await?)
    }

    /// As [`Sim::sql`], in one of the cluster's databases.
    ///
    /// # Errors
    ///
    /// As [`Sim::sql`].
    pub async fn sql_in(
        &self,
        id: &ClusterId,
        database: &str,
        text: &str,
    ) -> Result<Rows, SimError> {
        self.sql_of(&ResourceId::cluster(id), Some(database), text)
            .await
    }
}
