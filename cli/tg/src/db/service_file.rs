//! The service file of libpq: a section for every database that the person logged in to, so that
//! `psql service=<cluster>-<database>` works.
//!
//! Other sections, comments and their order stay as they are.

use std::path::PathBuf;

use tidegate_console::{
    Failure,
    profile::{self, Profile},
};

use super::target::Target;

/// The variable that names another file than `~/.pg_service.conf`.
const VARIABLE: &str = "PGSERVICEFILE";
const FILE: &str = ".pg_service.conf";

/// Adds or replaces the section of a database, and tells its name.
pub(super) fn add(profile: &Profile, database: &str, target: &Target) -> Result<String, Failure> {
    let name = section_name(profile, database);
    let lines = target.service_lines();
    if let Some((keyword, _)) = lines
        .iter()
        .find(|(_, value)| value.contains(['\n', '\r']) || value.trim() != value)
    {
        return Err(Failure::new(format!(
            "the value of `{keyword}` cannot be written to a service file"
        )));
    }
    let path = path()?;
    let text = profile::read_private(&path)?.unwrap_or_default();
    profile::write_private(&path, with_section(&text, &name, &lines).as_bytes())?;
    Ok(name)
}

/// Removes the section of a database, if there is one.
pub(super) fn remove(profile: &Profile, database: &str) -> Result<(), Failure> {
    let path = path()?;
    let Some(text) = profile::read_private(&path)? else {
        return Ok(());
    };
    let without = without_section(&text, &section_name(profile, database));
    if without != text {
        profile::write_private(&path, without.as_bytes())?;
    }
    Ok(())
}

fn section_name(profile: &Profile, database: &str) -> String {
    format!("{}-{database}", profile.facts().cluster)
}

/// Where libpq looks; behind a link when it is one, so that the link stays.
fn path() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = match (set(VARIABLE), set("HOME")) {
        (Some(file), _) => PathBuf::from(file),
        (None, Some(home)) => PathBuf::from(home).join(FILE),
        (None, None) => {
            return Err(Failure::new(format!(
                "cannot tell where the service file is: neither {VARIABLE} nor HOME is set"
            )));
        }
    };
    Ok(path.canonicalize().unwrap_or(path))
}

fn with_section(text: &str, name: &str, lines: &[(&str, String)]) -> String {
    let mut text = without_section(text, name);
    if !text.is_empty() {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
    }
    text.push_str(&format!("[{name}]\n"));
    for (keyword, value) in lines {
        text.push_str(&format!("{keyword}={value}\n"));
    }
    text
}

fn without_section(text: &str, name: &str) -> String {
    let header = format!("[{name}]");
    let mut inside = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == header;
        }
        if !inside {
            kept.push_str(line);
        }
    }
    if kept.len() < text.len() {
        let end = kept.trim_end_matches('\n').len();
        kept.truncate(end);
        if end > 0 {
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: &str = "# mine\n[work]\nhost=a\n\n[home]\nhost=b\n";

    fn lines(host: &str) -> Vec<(&'static str, String)> {
        vec![("host", host.to_owned()), ("port", "3080".to_owned())]
    }

    #[test]
    fn a_section_is_added_after_what_is_there() {
        let text = with_section(OTHERS, "c-orders", &lines("x"));
        assert_eq!(text, format!("{OTHERS}\n[c-orders]\nhost=x\nport=3080\n"));
        assert_eq!(
            with_section("", "c-orders", &lines("x")),
            "[c-orders]\nhost=x\nport=3080\n"
        );
    }

    #[test]
    fn writing_a_section_twice_leaves_one() {
        let once = with_section(OTHERS, "c-orders", &lines("x"));
        let twice = with_section(&once, "c-orders", &lines("y"));
        assert_eq!(twice, format!("{OTHERS}\n[c-orders]\nhost=y\nport=3080\n"));
    }

    #[test]
    fn removing_a_section_leaves_the_others_as_they_were() {
        let text = with_section(OTHERS, "c-orders", &lines("x"));
        assert_eq!(without_section(&text, "c-orders"), OTHERS);
        assert_eq!(without_section(OTHERS, "c-orders"), OTHERS);
        let between = "[a]\nx=1\n[c-orders]\nhost=x\n[b]\ny=2\n";
        assert_eq!(without_section(between, "c-orders"), "[a]\nx=1\n[b]\ny=2\n");
    }

    #[test]
    fn a_name_that_begins_alike_is_another_section() {
        let text = "[c-orders-2]\nhost=x\n";
        assert_eq!(without_section(text, "c-orders"), text);
    }
}
