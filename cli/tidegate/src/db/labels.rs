//! `--labels env=prod,rate=[5s:cmd]`: fixed labels, and labels from commands. Pure.

/// A label as a flag gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// `key=value`.
    Fixed(String),
    /// `key=[period:command]`.
    Command {
        /// How often it runs.
        period: String,
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// A flag that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--labels: {part:?} {problem}, expected `key=value` or `key=[period:command]`, with commas between"
)]
pub(crate) struct InvalidLabels {
    part: String,
    problem: &'static str,
}

/// Reads the flag, in its order. A comma inside brackets is the command's.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Label)>, InvalidLabels> {
    let mut labels: Vec<(String, Label)> = Vec::new();
    for part in split(text) {
        let part = part.trim();
        let invalid = |problem| InvalidLabels {
            part: part.to_owned(),
            problem,
        };
        let (key, value) = part.split_once('=').ok_or_else(|| invalid("has no `=`"))?;
        if key.is_empty() {
            return Err(invalid("has no key"));
        }
        if labels.iter().any(|(earlier, _)| earlier == key) {
            return Err(invalid("gives a key for the second time"));
        }
        labels.push((key.to_owned(), label(value).map_err(invalid)?));
    }
    Ok(labels)
}

fn label(value: &str) -> Result<Label, &'static str> {
    let Some(inner) = value.strip_prefix('[') else {
        return Ok(Label::Fixed(value.to_owned()));
    };
    let inner = inner
        .strip_suffix(']')
        .ok_or("opens a bracket that nothing closes")?;
    let (period, command) = inner
        .split_once(':')
        .ok_or("has no `:` between period and command")?;
    let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return Err("has no command");
    }
    Ok(Label::Command {
        period: period.trim().to_owned(),
        command,
    })
}

/// At commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' => is_inside = true,
            ']' => is_inside = false,
            ',' if !is_inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_brackets_is_the_commands() {
        let fixed = |value: &str| Label::Fixed(value.to_owned());
        let command = Label::Command {
            period: "1h".to_owned(),
            command: ["echo", "a,b"].map(str::to_owned).to_vec(),
        };
        assert_eq!(
            parse("env=prod, x=[1h:echo a,b],note=a=b,empty=").unwrap(),
            [
                ("env".to_owned(), fixed("prod")),
                ("x".to_owned(), command),
                ("note".to_owned(), fixed("a=b")),
                ("empty".to_owned(), fixed("")),
            ]
        );
    }

    #[test]
    fn what_is_no_label_is_named() {
        for (text, problem) in [
            ("env", "\"env\" has no `=`"),
            ("a=1,=2", "\"=2\" has no key"),
            ("a=1,a=2", "for the second time"),
            ("a=[1h:ls", "nothing closes"),
            ("a=[ls]", "no `:`"),
            ("a=[1h: ]", "no command"),
            ("", "has no `=`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with("--labels: ") && error.contains(problem),
                "{error}"
            );
        }
    }
}
