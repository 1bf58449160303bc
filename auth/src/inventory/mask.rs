//! Read masks: which fields of a row are sent.
//!
//! A path is a field of the message; `labels.KEY` is one label, and `database.…` of a database server one field of its
//! database. No mask, and the path `*`, are all fields.

use std::collections::BTreeSet;

use prost_types::FieldMask;
use tidegate_proto::{Invalid, v1};

use super::order::nearest;

/// Most paths of one mask.
const PATHS_MAX: usize = 128;
/// The prefix of one label.
const LABEL: &str = "labels.";
/// The prefix of a field of a server's database.
const DATABASE: &str = "database.";

/// A field of a message, and what takes it away.
type Field<M> = (&'static str, fn(&mut M));

const DATABASE_FIELDS: &[Field<v1::Database>] = &[
    ("name", |database| database.name.clear()),
    ("description", |database| database.description.clear()),
    ("labels", |database| database.labels.clear()),
    ("origin", |database| database.origin = 0),
    ("protocol", |database| database.protocol.clear()),
    ("uri", |database| database.uri.clear()),
    ("tls", |database| database.tls = None),
    ("aws", |database| database.aws = None),
    ("kind", |database| database.kind.clear()),
    ("identity", |database| database.identity.clear()),
    ("discovered_name", |database| {
        database.discovered_name.clear()
    }),
    ("unavailable", |database| database.unavailable.clear()),
    ("revision", |database| database.revision = 0),
    ("scope_id", |database| database.scope_id.clear()),
];

const SERVER_FIELDS: &[Field<v1::DatabaseServer>] = &[
    ("host_id", |server| server.host_id.clear()),
    ("hostname", |server| server.hostname.clear()),
    ("version", |server| server.version.clear()),
    ("database", |server| server.database = None),
    ("effective_role", |server| server.effective_role = None),
    ("role_source", |server| server.role_source = 0),
    ("target_health", |server| server.target_health = None),
    ("revision", |server| server.revision = 0),
    ("role_reason", |server| server.role_reason.clear()),
    ("remarks", |server| server.remarks.clear()),
    ("conflict", |server| server.conflict.clear()),
];

/// Which fields of a database are sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseMask {
    /// `None` is all.
    kept: Option<BTreeSet<&'static str>>,
    labels: BTreeSet<String>,
}

/// Which fields of a database server are sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerMask {
    kept: Option<BTreeSet<&'static str>>,
    /// When only some fields of its database are sent.
    database: Option<DatabaseMask>,
}

impl DatabaseMask {
    /// Reads a mask.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a path that is no field.
    pub(crate) fn new(mask: Option<FieldMask>) -> Result<Self, Invalid> {
        let mut read = Self::default();
        for path in paths(mask)? {
            read.keep(&path)?;
        }
        Ok(read)
    }

    fn keep(&mut self, path: &str) -> Result<(), Invalid> {
        if path == "*" {
            all_of(&mut self.kept, DATABASE_FIELDS);
            return Ok(());
        }
        let kept = self.kept.get_or_insert_default();
        match path.strip_prefix(LABEL) {
            Some(key) => drop(self.labels.insert(key.to_owned())),
            None => drop(kept.insert(field(DATABASE_FIELDS, path)?)),
        }
        Ok(())
    }

    /// Takes away what is not asked for.
    pub(crate) fn apply(&self, mut database: v1::Database) -> v1::Database {
        let Some(kept) = &self.kept else {
            return database;
        };
        if !kept.contains("labels") && !self.labels.is_empty() {
            database.labels.retain(|key, _| self.labels.contains(key));
        }
        for (name, clear) in DATABASE_FIELDS {
            if !(kept.contains(name) || *name == "labels" && !self.labels.is_empty()) {
                clear(&mut database);
            }
        }
        database
    }
}

impl ServerMask {
    /// Reads a mask.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a path that is no field.
    pub(crate) fn new(mask: Option<FieldMask>) -> Result<Self, Invalid> {
        let mut read = Self::default();
        for path in paths(mask)? {
            match path.strip_prefix(DATABASE) {
                _ if path == "*" => all_of(&mut read.kept, SERVER_FIELDS),
                Some(inner) => {
                    read.kept.get_or_insert_default();
                    let database = read.database.get_or_insert_default();
                    database.keep(inner).map_err(|invalid| {
                        Invalid::new(invalid.field, format!("in `database`: {}", invalid.problem))
                    })?;
                }
                None => {
                    let field = field(SERVER_FIELDS, &path)?;
                    read.kept.get_or_insert_default().insert(field);
                }
            }
        }
        Ok(read)
    }

    /// Takes away what is not asked for.
    pub(crate) fn apply(&self, mut server: v1::DatabaseServer) -> v1::DatabaseServer {
        let Some(kept) = &self.kept else {
            return server;
        };
        let part = self
            .database
            .as_ref()
            .filter(|_| !kept.contains("database"));
        if let Some(part) = part {
            server.database = server.database.map(|database| part.apply(database));
        }
        for (name, clear) in SERVER_FIELDS {
            if !(kept.contains(name) || *name == "database" && part.is_some()) {
                clear(&mut server);
            }
        }
        server
    }
}

fn paths(mask: Option<FieldMask>) -> Result<Vec<String>, Invalid> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.len() > PATHS_MAX {
        let problem = format!("holds more than {PATHS_MAX} paths");
        return Err(Invalid::new("read_mask", problem));
    }
    Ok(paths)
}

fn all_of<M>(kept: &mut Option<BTreeSet<&'static str>>, fields: &[Field<M>]) {
    kept.get_or_insert_default()
        .extend(fields.iter().map(|(name, _)| *name));
}

fn field<M>(fields: &'static [Field<M>], path: &str) -> Result<&'static str, Invalid> {
    let mut names = fields.iter().map(|(name, _)| *name);
    names.clone().find(|name| *name == path).ok_or_else(|| {
        let shown: String = path.chars().take(60).collect();
        let problem = format!("has no field `{shown}`: {}", nearest(path, &mut names));
        Invalid::new("read_mask", problem)
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn mask(paths: &[&str]) -> Option<FieldMask> {
        Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        })
    }

    fn database() -> v1::Database {
        v1::Database {
            name: "a".to_owned(),
            labels: [("env", "prod"), ("team", "bi")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            kind: "redshift".to_owned(),
            revision: 7,
            ..v1::Database::default()
        }
    }

    #[test]
    fn a_mask_keeps_what_it_names_and_nothing_else() {
        let kept = |paths| DatabaseMask::new(mask(paths)).unwrap().apply(database());
        assert_eq!(kept(&[]), database());
        assert_eq!(kept(&["name", "*"]), database());
        let some = kept(&["name", "labels.env", "labels.none"]);
        let expected = v1::Database {
            name: "a".to_owned(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            ..v1::Database::default()
        };
        assert_eq!(some, expected);
        assert_eq!(kept(&["labels", "labels.env"]).labels.len(), 2);

        let server = v1::DatabaseServer {
            host_id: "h".to_owned(),
            database: Some(database()),
            ..v1::DatabaseServer::default()
        };
        let kept = |paths| ServerMask::new(mask(paths)).unwrap().apply(server.clone());
        let part = kept(&["database.labels.team"]);
        assert_eq!(part.host_id, "");
        assert_eq!(part.database.unwrap().labels.len(), 1);
        assert_eq!(kept(&["database", "host_id"]), server);
        assert_eq!(kept(&["host_id"]).database, None);
    }

    #[test]
    fn a_path_that_is_no_field_is_refused_with_what_may_be_meant() {
        let invalid = DatabaseMask::new(mask(&["nmae"])).unwrap_err();
        assert_eq!(invalid.field, "read_mask");
        assert!(invalid.problem.contains("did you mean `name`"), "{invalid}");
        assert!(DatabaseMask::new(mask(&["aws.region"])).is_err());
        assert!(ServerMask::new(mask(&["database.nmae"])).is_err());
        assert!(DatabaseMask::new(mask(&["name"; 129])).is_err());
    }

    #[test]
    fn masks_know_every_field_of_the_contract() {
        let set = FileDescriptorSet::decode(tidegate_proto::DESCRIPTOR).unwrap();
        let fields = |wanted: &str| -> BTreeSet<String> {
            let messages = set.file.iter().flat_map(|file| &file.message_type);
            let message = messages
                .into_iter()
                .find(|message| message.name() == wanted);
            let fields = message.unwrap().field.iter();
            fields.map(|field| field.name().to_owned()).collect()
        };
        fn known<M>(fields: &[Field<M>]) -> BTreeSet<String> {
            fields.iter().map(|(name, _)| (*name).to_owned()).collect()
        }
        assert_eq!(fields("Database"), known(DATABASE_FIELDS));
        assert_eq!(fields("DatabaseServer"), known(SERVER_FIELDS));
    }
}
