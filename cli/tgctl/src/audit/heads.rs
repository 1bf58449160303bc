//! Ends of chains that somebody remembers, in a JSON file: log, source, sequence and hash.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tidegate_console::{Failure, output};
use tidegate_proto::audit::{Head, hex, read_hash};

/// Heads by log and source.
pub(super) type Heads = BTreeMap<(String, String), Head>;

/// A head as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    sequence: u64,
    hash: String,
}

/// Reads a file; one that is not there remembers nothing.
pub(super) fn read(path: &Path) -> Result<Heads, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(format!(
            "cannot read the heads in `{}`: {why}",
            path.display()
        ))
        .hint("a file that `tgctl audit verify --heads` wrote")
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Heads::new()),
        Err(error) => return Err(failed(&error)),
    };
    let logs: BTreeMap<String, BTreeMap<String, Written>> =
        serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let mut heads = Heads::new();
    for (log, sources) in logs {
        for (source, Written { sequence, hash }) in sources {
            let hash = read_hash(&hash)
                .ok_or_else(|| failed(&format!("the hash of `{source}` is not one")))?;
            heads.insert((log.clone(), source), Head { sequence, hash });
        }
    }
    Ok(heads)
}

/// Replaces a file.
pub(super) fn write(path: &Path, heads: &Heads) -> Result<(), Failure> {
    let mut logs: BTreeMap<&str, BTreeMap<&str, Written>> = BTreeMap::new();
    for ((log, source), head) in heads {
        let written = Written {
            sequence: head.sequence,
            hash: hex(&head.hash),
        };
        logs.entry(log).or_default().insert(source, written);
    }
    replace(path, output::json(&logs)?.as_bytes())
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))
}

/// Writes a file beside the old one and puts it in its place, so that there is always a whole one.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_read_back_and_what_is_none_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("heads.json");
        assert!(read(&path).unwrap().is_empty());
        let head = Head {
            sequence: 7,
            hash: [171; 32],
        };
        let heads = Heads::from([(("log".to_owned(), "host".to_owned()), head)]);
        write(&path, &heads).unwrap();
        assert_eq!(read(&path).unwrap(), heads);
        std::fs::write(
            &path,
            "{\"log\":{\"host\":{\"sequence\":7,\"hash\":\"ab\"}}}",
        )
        .unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .message()
                .contains("the hash of `host`")
        );
    }
}
