//! Which AWS identities may join with a token of method `iam`.
//!
//! Invariant: a rule names one account, by itself or in its ARN, so that no pattern opens the cluster to every account
//! of AWS.

use tidegate_core::AccountId;
use tidegate_proto::{Invalid, v1};

/// Most rules of a token.
const RULES_MAX: usize = 100;
/// Longest pattern: ARNs are no longer.
const PATTERN_CHARS_MAX: usize = 2048;

/// Who AWS says that somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallerIdentity {
    /// The account.
    pub(crate) account: String,
    /// The ARN, session included: `arn:aws:sts::<account>:assumed-role/<role>/<session>`.
    pub(crate) arn: String,
}

/// Which part of the rules an identity does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// No rule is for its account.
    Account,
    /// Some rule is for its account, and none for its ARN.
    Arn,
}

/// Checks the rules of a new token.
pub(super) fn check(rules: &[v1::TokenAllow]) -> Result<(), Invalid> {
    if rules.is_empty() || rules.len() > RULES_MAX {
        let problem =
            format!("must have 1 to {RULES_MAX} rules, one of which has to fit who joins");
        return Err(Invalid::new("allow", problem));
    }
    for (index, rule) in rules.iter().enumerate() {
        let invalid =
            |key: &str, problem: &str| Invalid::new(format!("allow[{index}].{key}"), problem);
        let account = &rule.aws_account;
        if !account.is_empty() && account.parse::<AccountId>().is_err() {
            return Err(invalid(
                "aws_account",
                "must be an AWS account id of 12 digits",
            ));
        }
        if rule.aws_arn.len() > PATTERN_CHARS_MAX || rule.aws_arn.chars().any(char::is_control) {
            let problem = format!("must be printable and at most {PATTERN_CHARS_MAX} characters");
            return Err(invalid("aws_arn", &problem));
        }
        if account.is_empty() && account_of(&rule.aws_arn).is_none() {
            let problem = "must name the account in full when `aws_account` does not, as in \
                           `arn:aws:sts::111122223333:assumed-role/agents/*`";
            return Err(invalid("aws_arn", problem));
        }
        if !account.is_empty() && account_of(&rule.aws_arn).is_some_and(|of_arn| of_arn != account)
        {
            return Err(invalid(
                "aws_arn",
                "names another account than `aws_account`",
            ));
        }
    }
    Ok(())
}

/// The account that an ARN, or a pattern of one, names in full.
pub(crate) fn account_of(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let is_arn = parts.next() == Some("arn");
    let account = parts
        .nth(3)
        .filter(|account| account.parse::<AccountId>().is_ok());
    account.filter(|_| is_arn && parts.next().is_some())
}

/// Whether one of the rules is for who asks.
pub(crate) fn admit(rules: &[v1::TokenAllow], caller: &CallerIdentity) -> Result<(), Misfit> {
    let of_account = |rule: &&v1::TokenAllow| {
        let account = Some(rule.aws_account.as_str()).filter(|account| !account.is_empty());
        account.or_else(|| account_of(&rule.aws_arn)) == Some(caller.account.as_str())
    };
    let mut misfit = Misfit::Account;
    for rule in rules.iter().filter(of_account) {
        if rule.aws_arn.is_empty() || fits(&rule.aws_arn, &caller.arn) {
            return Ok(());
        }
        misfit = Misfit::Arn;
    }
    Err(misfit)
}

/// Whether a pattern of `*` (any run of characters) and `?` (any one) is all of a text. Takes at most as many steps as the
/// product of their lengths.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Where the last `*` stood, and up to where it was taken to stand for.
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(account: &str, arn: &str) -> v1::TokenAllow {
        v1::TokenAllow {
            aws_account: account.to_owned(),
            aws_arn: arn.to_owned(),
        }
    }

    fn agent() -> CallerIdentity {
        CallerIdentity {
            account: "111122223333".to_owned(),
            arn: "arn:aws:sts::111122223333:assumed-role/agents/i-0abc".to_owned(),
        }
    }

    #[test]
    fn one_rule_that_fits_is_enough() {
        for rules in [
            vec![rule("111122223333", "")],
            vec![rule("", "arn:aws:sts::111122223333:assumed-role/agents/*")],
            vec![rule("111122223333", "*:assumed-role/agents/i-????")],
            vec![rule("444455556666", ""), rule("111122223333", &agent().arn)],
        ] {
            assert_eq!(admit(&rules, &agent()), Ok(()), "{rules:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_account_and_arn() {
        let other = "arn:aws:sts::111122223333:assumed-role/others/*";
        for (rules, misfit) in [
            (vec![], Misfit::Account),
            (vec![rule("444455556666", "")], Misfit::Account),
            (vec![rule("444455556666", "*")], Misfit::Account),
            (
                vec![rule("", "arn:aws:sts::444455556666:*")],
                Misfit::Account,
            ),
            (vec![rule("", "*")], Misfit::Account),
            (vec![rule("111122223333", other)], Misfit::Arn),
            (vec![rule("", other), rule("444455556666", "")], Misfit::Arn),
        ] {
            assert_eq!(admit(&rules, &agent()), Err(misfit), "{rules:?}");
        }
    }

    #[test]
    fn a_pattern_is_anchored_at_both_ends() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("a?c", "ac", false),
            ("**", "x", true),
            ("a", "ab", false),
            ("*ab", "aab", true),
            ("*é?", "aéb", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
        let (pattern, text) = (format!("{}b", "a*".repeat(1000)), "a".repeat(2000));
        assert!(!fits(&pattern, &text));
    }

    #[test]
    fn a_rule_names_one_account() {
        for good in [
            rule("111122223333", ""),
            rule("111122223333", "arn:aws:sts::*:assumed-role/agents/*"),
            rule("", "arn:aws:sts::111122223333:assumed-role/agents/*"),
        ] {
            assert!(check(std::slice::from_ref(&good)).is_ok(), "{good:?}");
        }
        for bad in [
            rule("", ""),
            rule("", "*"),
            rule("", "arn:aws:sts::*:assumed-role/agents/*"),
            rule("", "arn:aws:sts::111122223333"),
            rule("1111", ""),
            rule("111122223333", "arn:aws:sts::444455556666:*"),
            rule("111122223333", "a\nb"),
            rule("111122223333", &"a".repeat(PATTERN_CHARS_MAX + 1)),
        ] {
            assert!(check(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        assert!(check(&[]).is_err());
        assert!(check(&vec![rule("111122223333", ""); RULES_MAX + 1]).is_err());
    }
}
