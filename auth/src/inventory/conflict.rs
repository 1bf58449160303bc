//! Agents that serve different databases by one name.
//!
//! What comes from the inventory is the same everywhere but for the moment in which it changes, so agents can only differ
//! where one has the name in its own file. Nobody is stopped: which agent a session reaches goes by health and load, as
//! ever, so people would reach now the one and now the other. So it is said: to who looks at a database server, and once
//! to the log and the audit log (`crate::presence`).
//!
//! [`conflict`] is pure.

use tidegate_proto::v1;

use super::{
    Inventory, Viewer,
    tables::{Row as _, ServerRow, Tables},
};

/// Agents that are named; of others there is a count.
const NAMED_MAX: usize = 3;

/// What agents that serve one name have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition<'r> {
    /// The agent's host name.
    pub(crate) hostname: &'r str,
    /// How the database got to the agent.
    pub(crate) origin: v1::Origin,
    /// What is spoken with it.
    pub(crate) protocol: &'r str,
    /// Where it is.
    pub(crate) uri: &'r str,
}

impl Definition<'_> {
    fn is_of_file(&self) -> bool {
        self.origin == v1::Origin::Config
    }

    fn differs(&self, other: &Self) -> bool {
        let is_same = self.uri == other.uri && self.protocol == other.protocol;
        (self.is_of_file() || other.is_of_file())
            && (!is_same || self.is_of_file() != other.is_of_file())
    }

    fn text(&self) -> String {
        let source = if self.is_of_file() {
            "from its own file"
        } else {
            "from the inventory"
        };
        format!(
            "agent `{}` serves {} ({}) {source}",
            self.hostname, self.uri, self.protocol
        )
    }
}

/// What others say otherwise than `own`, in words; `None` when all agree.
pub(crate) fn conflict<'r>(
    own: Definition<'r>,
    others: impl IntoIterator<Item = Definition<'r>>,
) -> Option<String> {
    let others: Vec<Definition<'_>> = others
        .into_iter()
        .filter(|other| own.differs(other))
        .collect();
    let named: Vec<String> = others
        .iter()
        .take(NAMED_MAX)
        .map(Definition::text)
        .collect();
    if named.is_empty() {
        return None;
    }
    let more = match others.len() - named.len() {
        0 => String::new(),
        count => format!(", and {count} more differ"),
    };
    Some(format!("{}{more}", named.join(", ")))
}

impl Tables {
    /// What agents that `sees` lets through say otherwise of a database than this one does.
    pub(crate) fn conflict(
        &self,
        database: &str,
        host_id: &str,
        sees: impl Fn(&ServerRow) -> bool,
    ) -> Option<String> {
        let key = |host: &str| (database.to_owned(), host.to_owned());
        let own = self.servers.get(&key(host_id))?;
        let others = self
            .servers
            .range(key("")..)
            .take_while(|((name, _), _)| name == database)
            .filter(|((_, host), row)| host != host_id && sees(row))
            .map(|(_, row)| row.definition());
        conflict(own.definition(), others)
    }
}

impl Inventory {
    /// A database server with what other agents, as far as `viewer` may see them, say otherwise.
    pub(crate) fn compared(
        &self,
        mut server: v1::DatabaseServer,
        viewer: &Viewer,
    ) -> v1::DatabaseServer {
        let Some(database) = &server.database else {
            return server;
        };
        let roles = self.roles();
        let view = viewer.view(&roles.policy);
        let told = self
            .tables()
            .conflict(&database.name, &server.host_id, |row| {
                view.sees(row.labels())
            });
        server.conflict = told.unwrap_or_default();
        server
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent<'r>(hostname: &'r str, origin: v1::Origin, uri: &'r str) -> Definition<'r> {
        Definition {
            hostname,
            origin,
            protocol: "postgres",
            uri,
        }
    }

    use v1::Origin::{Cloud, Config, Dynamic};

    #[test]
    fn agents_that_write_different_databases_by_one_name_are_told_apart() {
        let own = agent("a", Config, "x:1");
        assert_eq!(
            conflict(own, [agent("b", Config, "y:1")]).unwrap(),
            "agent `b` serves y:1 (postgres) from its own file"
        );
        let mut mysql = agent("b", Config, "x:1");
        mysql.protocol = "mysql";
        assert!(conflict(own, [mysql]).is_some());
    }

    #[test]
    fn a_name_in_one_file_and_in_the_inventory_is_two_databases_even_at_one_address() {
        let (own, found) = (agent("a", Config, "x:1"), agent("b", Cloud, "x:1"));
        assert!(
            conflict(own, [found])
                .unwrap()
                .ends_with("from the inventory")
        );
        assert!(
            conflict(found, [own])
                .unwrap()
                .ends_with("from its own file")
        );
    }

    #[test]
    fn agents_that_agree_or_follow_one_inventory_differ_in_nothing() {
        let own = agent("a", Config, "x:1");
        assert_eq!(conflict(own, [agent("b", Config, "x:1")]), None);
        let moving = [agent("b", Cloud, "y:1"), agent("c", Dynamic, "z:1")];
        assert_eq!(conflict(agent("a", Cloud, "x:1"), moving), None);
        assert_eq!(conflict(own, []), None);
    }

    #[test]
    fn of_many_that_differ_some_are_named_and_the_rest_counted() {
        let others = ["b", "c", "d", "e", "f"].map(|name| agent(name, Config, "y:1"));
        let told = conflict(agent("a", Config, "x:1"), others).unwrap();
        assert!(told.contains("`d`") && !told.contains("`e`"), "{told}");
        assert!(told.ends_with(", and 2 more differ"), "{told}");
    }
}
