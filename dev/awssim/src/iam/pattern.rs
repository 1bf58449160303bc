//! Wildcard patterns of policies: `*` any text, `?` one character, `${key}` a context value.

use super::Context;

/// Longest pattern that is looked at, in characters; longer ones match nothing.
const PATTERN_CHARS_MAX: usize = 4096;

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Any,
    One,
    Char(char),
}

/// Whether `text` matches; a value put in for a variable is taken literally.
///
/// A variable without a value makes the pattern match nothing, as in AWS.
pub(crate) fn matches(pattern: &str, text: &str, context: &Context) -> bool {
    let Some(tokens) = tokens(pattern, context) else {
        return false;
    };
    let text: Vec<char> = text.chars().collect();
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match tokens.get(p) {
            Some(Token::Any) => {
                retry = Some((t, p + 1));
                p += 1;
            }
            Some(Token::One) => (t, p) = (t + 1, p + 1),
            Some(Token::Char(c)) if *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match retry {
                Some((at, after)) => {
                    (t, p) = (at + 1, after);
                    retry = Some((at + 1, after));
                }
                None => return false,
            },
        }
    }
    tokens[p..].iter().all(|token| *token == Token::Any)
}

fn tokens(pattern: &str, context: &Context) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if tokens.len() > PATTERN_CHARS_MAX {
            return None;
        }
        if let Some((key, after)) = rest.strip_prefix("${").and_then(|r| r.split_once('}')) {
            match key {
                "*" | "?" | "$" => tokens.extend(key.chars().map(Token::Char)),
                _ => tokens.extend(context.get(key)?.chars().map(Token::Char)),
            }
            rest = after;
            continue;
        }
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            c => Token::Char(c),
        });
        rest = &rest[c.len_utf8()..];
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, text: &str) -> bool {
        matches(pattern, text, &Context::default())
    }

    #[test]
    fn wildcards_cover_any_text_and_one_character() {
        assert!(
            glob("*", "") && glob("a*c", "abbc") && glob("a*b*c", "axbxbxc") && glob("a?c", "abc")
        );
        assert!(!glob("a?c", "ac") && !glob("a*c", "abcd") && !glob("", "a"));
    }

    #[test]
    fn variables_are_replaced_and_never_widen() {
        let mut context = Context::default();
        context.set("redshift:DbUser", "a*");
        assert!(matches("*:${redshift:DbUser}", "x:a*", &context));
        assert!(!matches("*:${redshift:DbUser}", "x:abc", &context));
        assert!(!matches("${aws:userid}", "", &context));
        assert!(matches("${*}", "*", &context) && !matches("${*}", "x", &context));
    }
}
