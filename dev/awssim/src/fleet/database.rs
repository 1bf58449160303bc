//! Databases and roles on the servers behind clusters.

use std::collections::HashSet;

use super::{Fleet, FleetError, Placed, Server};
use crate::crypto::{hex, sha256};
use crate::mint::Mint;
use crate::postgres::PostgresError;
use crate::postgres::sql::{Client, Rows, ident, literal};
use crate::state::State;
use crate::world::ClusterId;

/// Longest name in PostgreSQL, in bytes.
const PG_NAME_BYTES_MAX: usize = 63;

/// What is known to exist on the shared server.
#[derive(Debug, Default)]
pub(super) struct Made {
    databases: HashSet<String>,
    roles: HashSet<String>,
}

impl Fleet {
    /// Makes sure that a role exists on the shared server.
    pub(crate) async fn ensure_role(&self, role: &str) -> Result<(), FleetError> {
        if self.made.lock().await.roles.contains(role) {
            return Ok(());
        }
        let mut client = self.shared().await?.connect("postgres").await?;
        create_role(&mut client, role).await?;
        self.made.lock().await.roles.insert(role.to_owned());
        Ok(())
    }

    /// Makes sure that a database of a front's cluster exists; its name on the shared server.
    pub(crate) async fn ensure_database(
        &self,
        id: &ClusterId,
        database: &str,
        owner: &str,
    ) -> Result<String, FleetError> {
        let name = pg_name(id, database);
        if self.made.lock().await.databases.contains(&name) {
            return Ok(name);
        }
        self.ensure_role(owner).await?;
        let mut client = self.shared().await?.connect("postgres").await?;
        // Held over the making, so that two first log-ins do not make it twice.
        let mut made = self.made.lock().await;
        if !made.databases.contains(&name) {
            create_database(&mut client, &name, owner).await?;
            made.databases.insert(name.clone());
        }
        Ok(name)
    }

    /// Sets a minted password on the cluster's own server, if it is native and running.
    pub(crate) async fn set_native_password(
        &self,
        mint: &Mint,
        seconds: u32,
    ) -> Result<(), FleetError> {
        let places = self.places.lock().await;
        let placed = places.by_cluster.get(&mint.grant.cluster);
        let Some(Placed {
            server: Server::Native(server),
            ..
        }) = placed
        else {
            return Ok(());
        };
        let mut client = server.connect("postgres").await?;
        let (login, role) = (&mint.grant.login, &mint.grant.role);
        create_role(&mut client, role).await?;
        create_role(&mut client, login).await?;
        let until = jiff::Timestamp::now().as_second() + i64::from(seconds);
        let until = jiff::Timestamp::from_second(until).unwrap_or(jiff::Timestamp::MAX);
        let (password, until) = (literal(mint.password.expose()), literal(&until.to_string()));
        let name = ident(login);
        let mut sql = format!("ALTER ROLE {name} PASSWORD {password} VALID UNTIL {until};");
        if login != role {
            let role = ident(role);
            sql.push_str(&format!(
                "GRANT {role} TO {name}; ALTER ROLE {name} SET role = {role}"
            ));
        }
        client.run(&sql).await.map_err(PostgresError::from)?;
        Ok(())
    }

    /// Drops the databases of a front's cluster.
    pub(super) async fn drop_databases(&self, id: &ClusterId) -> Result<(), FleetError> {
        let (prefix, Some(shared)) = (pg_prefix(id), self.shared.get()) else {
            return Ok(());
        };
        let mut client = shared.connect("postgres").await?;
        let listing = format!(
            "SELECT datname FROM pg_database WHERE starts_with(datname, {})",
            literal(&prefix)
        );
        let gone = client.run(&listing).await.map_err(PostgresError::from)?;
        let mut made = self.made.lock().await;
        for name in gone.into_iter().flatten().flatten() {
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(&name));
            client.run(&sql).await.map_err(PostgresError::from)?;
            made.databases.remove(&name);
        }
        Ok(())
    }
}

/// Runs SQL as superuser in a database of a cluster.
pub(crate) async fn sql(
    state: &State,
    id: &ClusterId,
    database: Option<&str>,
    sql: &str,
) -> Result<Rows, FleetError> {
    let cluster = state.world().cluster(id).cloned();
    let cluster = cluster.ok_or_else(|| FleetError::Unknown(id.clone()))?;
    let database = database.unwrap_or(&cluster.db_name);
    let places = state.fleet.places.lock().await;
    let client = match places.by_cluster.get(id).map(|placed| &placed.server) {
        Some(Server::Native(server)) => {
            let mut client = server.connect("postgres").await?;
            for user in &cluster.db_users {
                create_role(&mut client, user).await?;
            }
            server.connect(database).await?
        }
        _ => {
            drop(places);
            let name = state
                .fleet
                .ensure_database(id, database, &cluster.master_username)
                .await?;
            for user in &cluster.db_users {
                state.fleet.ensure_role(user).await?;
            }
            state.fleet.shared().await?.connect(&name).await?
        }
    };
    Ok(client.run_once(sql).await.map_err(PostgresError::from)?)
}

pub(super) async fn create_role(client: &mut Client, role: &str) -> Result<(), PostgresError> {
    match client
        .run(&format!("CREATE ROLE {} LOGIN", ident(role)))
        .await
    {
        Err(error) if !error.is_duplicate() => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) async fn create_database(
    client: &mut Client,
    name: &str,
    owner: &str,
) -> Result<(), PostgresError> {
    let sql = format!("CREATE DATABASE {} OWNER {}", ident(name), ident(owner));
    match client.run(&sql).await {
        Err(error) if !error.is_duplicate() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Distinguishes clusters in names of databases, which hold 63 bytes only.
pub(super) fn pg_prefix(id: &ClusterId) -> String {
    let digest = hex(&sha256(id.to_string().as_bytes()));
    format!("{}_{}_", &digest[..12], id.account)
}

fn pg_name(id: &ClusterId, database: &str) -> String {
    let name = format!("{}{}_{database}", pg_prefix(id), id.id);
    if name.len() <= PG_NAME_BYTES_MAX {
        return name;
    }
    let digest = hex(&sha256(name.as_bytes()));
    format!("{}_{}", &name[..PG_NAME_BYTES_MAX - 13], &digest[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names_fit_and_tell_clusters_apart() {
        let long = ClusterId::new("111111111111", "us-east-1", &"c".repeat(63));
        let names = ["a", "b"].map(|db| pg_name(&long, db));
        assert!(names.iter().all(|name| name.len() <= PG_NAME_BYTES_MAX) && names[0] != names[1]);
        let [east, west] = ["us-east-1", "us-west-2"]
            .map(|r| pg_name(&ClusterId::new("111111111111", r, "c"), "dev"));
        assert_ne!(east, west);
    }
}
