//! The rules for new passwords. Pure.
//!
//! Length is what makes a password hard to guess, so there is no rule about kinds of characters. What is refused beside
//! short ones is what guessers try first: the person's own name, and well-known words and runs (`password`, `qwerty`,
//! `1234`) that fill a password up. Which words those are is in [`WORDS`]; a password may contain them, as long as
//! enough else is in it.
//!
//! Passwords that stand already are not looked at again.

use std::collections::HashSet;

/// Shortest password.
pub(crate) const CHARS_MIN: usize = 12;
/// Longest password.
pub(crate) const CHARS_MAX: usize = 128;
/// Fewest different characters.
const DISTINCT_MIN: usize = 5;
/// Fewest characters beside well-known words and runs.
const OWN_CHARS_MIN: usize = 6;
/// Shortest run of neighbours (`abcd`, `4321`, `aaaa`) that counts as one.
const RUN_CHARS_MIN: usize = 4;
/// Shortest part of a person's name that may not be in the password: shorter ones are in many words.
const NAME_PART_CHARS_MIN: usize = 4;

/// Words that guessers begin with, in lower case; longer ones before those that they contain.
const WORDS: [&str; 32] = [
    "administrator",
    "changeme",
    "dragon",
    "football",
    "hunter2",
    "iloveyou",
    "letmein",
    "passw0rd",
    "password",
    "passwort",
    "postgres",
    "princess",
    "qwertyuiop",
    "qwertzuiop",
    "asdfghjkl",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "redshift",
    "superman",
    "sunshine",
    "tidegate",
    "teleport",
    "trustno1",
    "welcome",
    "baseball",
    "batman",
    "monkey",
    "qwerty",
    "secret",
    "shadow",
    "zxcvbn",
    "admin",
];

/// Which rule a password breaks. The texts read after "the password ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Well-known words and runs, and little else.
    #[error(
        "is too common: beside well-known words and runs such as `password` and `1234` it needs at least {OWN_CHARS_MIN} characters"
    )]
    Common,
    /// The same few characters over and over.
    #[error("must have at least {DISTINCT_MIN} different characters")]
    FewDistinct,
    /// The person's name is in it.
    #[error("must not contain the user name or a part of it")]
    Name,
    /// Too long.
    #[error("must have at most {CHARS_MAX} characters")]
    TooLong,
    /// Too short.
    #[error("must have at least {CHARS_MIN} characters")]
    TooShort,
}

/// Whether a person of that name may set a password.
///
/// # Errors
///
/// The first rule that is broken, length first.
pub(crate) fn check(password: &str, user: &str) -> Result<(), Broken> {
    // Bytes bound characters from above, so that an endless text is not walked.
    if password.len() > CHARS_MAX * 4 {
        return Err(Broken::TooLong);
    }
    match password.chars().count() {
        0..CHARS_MIN => return Err(Broken::TooShort),
        CHARS_MIN..=CHARS_MAX => {}
        _ => return Err(Broken::TooLong),
    }
    let lower = password.to_lowercase();
    if parts_of(&user.to_lowercase()).any(|part| lower.contains(part)) {
        return Err(Broken::Name);
    }
    if lower.chars().collect::<HashSet<char>>().len() < DISTINCT_MIN {
        return Err(Broken::FewDistinct);
    }
    if own_chars(lower) < OWN_CHARS_MIN {
        return Err(Broken::Common);
    }
    Ok(())
}

/// The name itself, and its parts between dots and the like, as far as they are long enough to tell.
fn parts_of(user: &str) -> impl Iterator<Item = &str> {
    std::iter::once(user)
        .chain(user.split(['.', '-', '_', '@', '+']))
        .filter(|part| part.chars().count() >= NAME_PART_CHARS_MIN)
}

/// How many characters are left without well-known words and runs.
fn own_chars(mut lower: String) -> usize {
    for word in WORDS {
        if lower.contains(word) {
            // What stood around a word does not become a neighbour.
            lower = lower.replace(word, "\0");
        }
    }
    let chars: Vec<char> = lower.chars().collect();
    let mut own = 0;
    let mut from = 0;
    while from < chars.len() {
        let run = run_at(&chars[from..]);
        if run < RUN_CHARS_MIN {
            own += usize::from(chars[from] != '\0');
            from += 1;
        } else {
            from += run;
        }
    }
    own
}

/// How many characters from the first on are equal, or each the next up, or each the next down.
fn run_at(chars: &[char]) -> usize {
    let step = |pair: &[char]| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0]));
    let mut steps = chars.windows(2).map(step);
    match steps.next() {
        Some(first @ (-1..=1)) => 2 + steps.take_while(|step| *step == first).count(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(check("elevenchars", "bob"), Err(Broken::TooShort));
        assert_eq!(check("twelve chars", "bob"), Ok(()));
        assert_eq!(check("übergrößenhü", "bob"), Ok(()));
        let long: String = ('a'..='z').cycle().step_by(3).take(129).collect();
        assert_eq!(check(&long, "bob"), Err(Broken::TooLong));
        assert_eq!(check(&long[..128], "bob"), Ok(()));
        assert_eq!(check(&"x".repeat(100_000), "bob"), Err(Broken::TooLong));
    }

    #[test]
    fn no_part_of_the_person_s_name_is_in_it() {
        for password in ["my Alice rocks", "SMITHEREENS of it"] {
            let broken = check(password, "alice.smith@example.com");
            assert_eq!(broken, Err(Broken::Name), "{password}");
        }
        assert_eq!(
            check("commonplace tea", "alice@x.com"),
            Ok(()),
            "short part"
        );
    }

    #[test]
    fn well_known_words_and_runs_do_not_fill_a_password_up() {
        for password in [
            "Password1234",
            "password12345!",
            "passwordpassword",
            "qwertyuiop123",
            "123456789012",
            "abcdefghijklm",
            "4321dcba4321x",
            "letmein-welcome1",
            "adminadminadmin",
        ] {
            assert_eq!(check(password, "bob"), Err(Broken::Common), "{password}");
        }
        for password in [
            "correct horse battery",
            "my password is a tall tree",
            "zebra 1234 tractor",
        ] {
            assert_eq!(check(password, "bob"), Ok(()), "{password}");
        }
    }

    #[test]
    fn the_same_few_characters_are_no_password() {
        assert_eq!(check("abababababab", "bob"), Err(Broken::FewDistinct));
        assert_eq!(check("aaaaaaaaaaaaaaaa", "bob"), Err(Broken::FewDistinct));
    }
}
