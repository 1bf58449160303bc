//! Text for a POSIX shell.

/// A word that a shell reads back as `text`: as it is when no character means anything to a shell, else in single
/// quotes.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b));
    if plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_a_meaning_is_quoted() {
        assert_eq!(quote("proxy.example.com:3080"), "proxy.example.com:3080");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("$(x)"), "'$(x)'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
