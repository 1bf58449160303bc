//! Which keys of a configuration file say something else than they did.
//!
//! Values are compared as they are written, by digests: nothing of them is kept, since some are secrets. A file that a
//! key names is not looked into here.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::yaml::{Node, Value};

/// Keys are told down to this depth (`tidegate.log.severity`); what is deeper counts as its key's value.
const DEPTH_MAX: usize = 3;

/// What a file says under each of its keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    digests: BTreeMap<String, u64>,
}

impl Said {
    /// Everything that a document says.
    pub(super) fn by(root: &Node) -> Self {
        let mut said = Self::default();
        said.read("", root, 0);
        said
    }

    /// Keys that only one of the two has, or that say other things, in order.
    pub(super) fn differences(&self, other: &Self) -> BTreeSet<String> {
        let here = self
            .digests
            .iter()
            .filter(|(key, digest)| other.digests.get(*key) != Some(digest));
        let there = other
            .digests
            .iter()
            .filter(|(key, _)| !self.digests.contains_key(*key));
        here.chain(there).map(|(key, _)| key.clone()).collect()
    }

    fn read(&mut self, path: &str, node: &Node, depth: usize) {
        match &node.value {
            Value::Mapping(entries) if depth < DEPTH_MAX => {
                for (key, value) in entries {
                    let name = match key.name.as_str() {
                        // The same section under Teleport's name.
                        "teleport" if depth == 0 => "tidegate",
                        name => name,
                    };
                    let path = if path.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{path}.{name}")
                    };
                    self.read(&path, value, depth + 1);
                }
            }
            value => {
                let mut hasher = DefaultHasher::new();
                digest(value, &mut hasher);
                self.digests.insert(path.to_owned(), hasher.finish());
            }
        }
    }
}

fn digest(value: &Value, into: &mut DefaultHasher) {
    std::mem::discriminant(value).hash(into);
    match value {
        Value::Null => {}
        Value::Text(text) => text.hash(into),
        Value::List(items) => {
            items.len().hash(into);
            items.iter().for_each(|item| digest(&item.value, into));
        }
        Value::Mapping(entries) => {
            entries.len().hash(into);
            for (key, item) in entries {
                key.name.hash(into);
                digest(&item.value, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::yaml, *};

    fn differences(before: &str, after: &str) -> Vec<String> {
        let said = |text: &str| Said::by(&yaml::documents(text).unwrap()[0]);
        said(before).differences(&said(after)).into_iter().collect()
    }

    #[test]
    fn keys_that_say_something_else_are_named_wherever_they_stand() {
        let before = "teleport: {log: {severity: info}, data_dir: /a}\ndb_service:\n  enabled: yes\n  resources: [{labels: {a: b}}]\n";
        let after = "db_service: {enabled: yes, resources: [{labels: {a: c}}]}\n\n# moved\ntidegate:\n  log: {severity: debug}\n  data_dir: /a\n  nodename: n\n";
        assert_eq!(
            differences(before, after),
            [
                "db_service.resources",
                "tidegate.log.severity",
                "tidegate.nodename"
            ]
        );
        assert_eq!(differences(before, before), [""; 0]);
    }

    #[test]
    fn a_section_that_came_or_went_is_named_by_its_keys() {
        assert_eq!(
            differences("a: {x: 1}", "a: {x: 1}\nb: {y: {z: 1}}"),
            ["b.y.z"]
        );
        assert_eq!(differences("a: {x: 1}\nb: 2", "a: {x: 1}"), ["b"]);
    }

    #[test]
    fn lists_and_what_is_in_them_do_not_run_into_each_other() {
        assert_eq!(differences("a: [b, [c]]", "a: [[b], c]"), ["a"]);
        assert_eq!(differences("a: {b: ~}", "a: {b: ''}"), ["a.b"]);
    }
}
