//! Values and names as error messages say them, and what was probably meant.

/// Longest piece of a value that an error quotes.
const QUOTED_CHARS_MAX: usize = 80;

/// A value for an error: one line, not too long.
pub(super) fn quote(text: &str) -> String {
    format!("`{}`", shortened(text))
}

pub(super) fn shortened(text: &str) -> String {
    let mut quoted: String = text
        .chars()
        .take(QUOTED_CHARS_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if quoted.len() < text.len() && text.chars().count() > QUOTED_CHARS_MAX {
        quoted.push('…');
    }
    quoted
}

/// `a`, `b` or `c`.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// The name that was probably meant, if any is near.
pub(super) fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    if text.len() > QUOTED_CHARS_MAX {
        return None;
    }
    let typed = text.to_ascii_lowercase().replace('-', "_");
    let distance_max = (typed.len() / 3).max(1);
    names
        .map(|name| {
            let known = name.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&typed, &known), name)
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}
