//! Databases and roles on the servers behind clusters.

use std::collections::HashSet;

use super::address::Places;
use super::{Fleet, FleetError, Server};
use crate::crypto::{hex, sha256};
use crate::mariadb::MariadbError;
use crate::mint::Mint;
use crate::postgres::sql::{Client, Rows, ident, literal};
use crate::postgres::{Postgres, PostgresError};
use crate::state::State;
use crate::world::ResourceId;

/// Longest name in PostgreSQL, in bytes.
const PG_NAME_BYTES_MAX: usize = 63;

/// How long a session is waited for that was told to end, in milliseconds.
const BACKEND_END_MS_MAX: u32 = 5_000;

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

    /// Makes sure that a database behind a front exists; its name on the shared server.
    pub(crate) async fn ensure_database(
        &self,
        of: &ResourceId,
        database: &str,
        owner: &str,
    ) -> Result<String, FleetError> {
        let name = pg_name(of, database);
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
        let Some(server) = native_in(&places, &mint.grant.at) else {
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

    /// Gives databases that were made the names that they have behind another front; whoever uses them is cut off.
    pub(super) async fn rename_databases(
        &self,
        from: &ResourceId,
        to: &ResourceId,
        databases: &[String],
    ) -> Result<(), FleetError> {
        let Some(shared) = self.shared.get() else {
            return Ok(());
        };
        let mut client = shared.connect("postgres").await?;
        let mut made = self.made.lock().await;
        for database in databases {
            let (old, new) = (pg_name(from, database), pg_name(to, database));
            if !made.databases.remove(&old) {
                continue;
            }
            let end = format!(
                "SELECT pg_terminate_backend(pid, {BACKEND_END_MS_MAX}) FROM pg_stat_activity WHERE datname = {}",
                literal(&old)
            );
            client.run(&end).await.map_err(PostgresError::from)?;
            let sql = format!("ALTER DATABASE {} RENAME TO {}", ident(&old), ident(&new));
            client.run(&sql).await.map_err(PostgresError::from)?;
            made.databases.insert(new);
        }
        Ok(())
    }

    /// Drops the databases behind a front.
    pub(super) async fn drop_databases(&self, of: &ResourceId) -> Result<(), FleetError> {
        let (prefix, Some(shared)) = (pg_prefix(of), self.shared.get()) else {
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

/// The server of a native cluster.
fn native_in<'a>(places: &'a Places, of: &ResourceId) -> Option<&'a Postgres> {
    let mut placed = places.by_owner.get(of)?.values();
    placed.find_map(|placed| match &placed.server {
        Server::Native(server) => Some(&**server),
        Server::Down | Server::Front(_) => None,
    })
}

/// Runs SQL as superuser in a database behind something, the first one if none is named.
pub(crate) async fn sql(
    state: &State,
    of: &ResourceId,
    database: Option<&str>,
    sql: &str,
) -> Result<Rows, FleetError> {
    let holder = state.world().holder(of);
    let holder = holder.ok_or_else(|| FleetError::Unknown(of.clone()))?;
    let first = holder.databases.first().map(String::as_str);
    if state.world().speaks_mysql(&holder.at) {
        let server = state.fleet.mariadb(&holder.at).await?;
        server.ensure(&holder.databases, &holder.users).await?;
        let mut client = server.connect().await?;
        if let Some(database) = database.or(first) {
            client.open(database).await.map_err(MariadbError::from)?;
        }
        return Ok(client.run(sql).await.map_err(MariadbError::from)?);
    }
    let database = database.or(first).unwrap_or("postgres");
    let places = state.fleet.places.lock().await;
    let client = if let Some(server) = native_in(&places, &holder.at) {
        let mut client = server.connect("postgres").await?;
        for user in &holder.users {
            create_role(&mut client, user).await?;
        }
        server.connect(database).await?
    } else {
        drop(places);
        let name = state
            .fleet
            .ensure_database(&holder.at, database, &holder.master)
            .await?;
        for user in &holder.users {
            state.fleet.ensure_role(user).await?;
        }
        state.fleet.shared().await?.connect(&name).await?
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

/// Distinguishes what databases belong to in their names, which hold 63 bytes only.
pub(super) fn pg_prefix(of: &ResourceId) -> String {
    let digest = hex(&sha256(of.to_string().as_bytes()));
    format!("{}_{}_", &digest[..12], of.id.account)
}

fn pg_name(of: &ResourceId, database: &str) -> String {
    let name = format!("{}{}_{database}", pg_prefix(of), of.id.id);
    if name.len() <= PG_NAME_BYTES_MAX {
        return name;
    }
    let digest = hex(&sha256(name.as_bytes()));
    format!("{}_{}", &name[..PG_NAME_BYTES_MAX - 13], &digest[..12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ClusterId;

    #[test]
    fn database_names_fit_and_tell_clusters_apart() {
        let cluster =
            |region, name: &str| ResourceId::cluster(&ClusterId::new("111111111111", region, name));
        let long = cluster("us-east-1", &"c".repeat(63));
        let names = ["a", "b"].map(|db| pg_name(&long, db));
        assert!(names.iter().all(|name| name.len() <= PG_NAME_BYTES_MAX) && names[0] != names[1]);
        let [east, west] =
            ["us-east-1", "us-west-2"].map(|region| pg_name(&cluster(region, "c"), "dev"));
        assert_ne!(east, west);
    }
}
