//! A role's trust policy as IAM tells it, and what it says to one caller. Pure.
//!
//! It is read as far as a diagnosis needs it: who is named, for which actions, and with which external id. Whatever else
//! decides in it (other condition keys, `NotPrincipal`, `NotAction`) is told as what could not be judged, and never
//! guessed.
//!
//! Source: IAM user guide, "AWS JSON policy elements: Principal", "IAM JSON policy elements: Condition operators",
//! "Policy evaluation logic".

use serde_json::Value;
use tidegate_core::ExternalId;

use super::blame::principal;

/// The one condition key that is judged, in lower case.
const EXTERNAL_ID: &str = "sts:externalid";
/// How ids of users and roles begin, which stand in trust policies for ones that were deleted.
const IDS: [&str; 2] = ["AIDA", "AROA"];

/// A trust policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPolicy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    denies: bool,
    /// Of `AWS`, or `*`; `None` where principals are named otherwise than by listing them.
    principals: Option<Vec<String>>,
    /// `None` where actions are named otherwise than by listing them.
    actions: Option<Vec<String>>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    operator: String,
    key: String,
    values: Vec<String>,
}

/// How far a policy names a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// Not at all.
    No,
    /// By the account that it is of, whose own policies decide then.
    Account,
    /// Itself, or everybody.
    Directly,
}

/// What a policy says to a caller about one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It lets the caller do it.
    Allows(Named),
    /// A statement denies it.
    Denies,
    /// It asks for another external id than the one that was sent, or for one where none was.
    ExternalId,
    /// It names the caller, and not for this action.
    NotTheAction,
    /// It does not name the caller.
    NotTheCaller,
    /// That depends on what is not judged here: these condition keys, or elements.
    Unclear(String),
}

/// Who asks a role to be assumed.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// ARN of a user, a role, or a session of one.
    pub arn: &'a str,
    /// What is sent along.
    pub external_id: Option<&'a ExternalId>,
}

impl TrustPolicy {
    /// Reads the JSON of one; `None` when it has not the form of one.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(json).ok()?;
        let statements = match document.get("Statement")? {
            Value::Array(statements) => statements.iter().map(Statement::read).collect(),
            one => Statement::read(one).map(|one| vec![one]),
        };
        statements.map(|statements| Self { statements })
    }

    /// What it says to a caller about one action.
    #[must_use]
    pub fn answer(&self, asker: Asker<'_>, action: &str) -> Answer {
        let judged = |denies: bool| {
            self.statements
                .iter()
                .filter(move |statement| statement.denies == denies)
                .map(|statement| statement.judge(asker, action))
        };
        let mut unclear = None;
        for denied in judged(true) {
            match denied {
                // A statement that denies all but one external id asks for that.
                Judged::Applies(_, ById::Yes) => return Answer::ExternalId,
                Judged::Applies(..) => return Answer::Denies,
                Judged::Unclear(why) => unclear = Some(Answer::Unclear(why)),
                _ => {}
            }
        }
        let mut best = Answer::NotTheCaller;
        for allowed in judged(false) {
            let said = match allowed {
                Judged::Applies(named, _) => Answer::Allows(named),
                Judged::Unclear(why) => Answer::Unclear(why),
                Judged::OtherId => Answer::ExternalId,
                Judged::OtherAction => Answer::NotTheAction,
                Judged::OtherCaller => Answer::NotTheCaller,
            };
            if rank(&said) > rank(&best) {
                best = said;
            }
        }
        match (best, unclear) {
            (Answer::Allows(_), Some(unclear)) => unclear,
            (best, _) => best,
        }
    }

    /// How far it names a caller at all, whatever for.
    #[must_use]
    pub fn names(&self, asker: Asker<'_>) -> Named {
        let allowing = self.statements.iter().filter(|one| !one.denies);
        let named = allowing.filter_map(|one| one.names(asker));
        named.max().unwrap_or(Named::No)
    }

    /// Whom it lets in, as it is written.
    #[must_use]
    pub fn principals(&self) -> Vec<&str> {
        let allowing = self.statements.iter().filter(|one| !one.denies);
        let listed = allowing.flat_map(|one| one.principals.iter().flatten());
        listed.map(String::as_str).collect()
    }

    /// Ids of users and roles that were deleted: AWS writes those in place of ARNs that lead nowhere any more.
    #[must_use]
    pub fn deleted(&self) -> Vec<&str> {
        let mut principals = self.principals();
        principals.retain(|one| IDS.iter().any(|id| one.starts_with(id)));
        principals
    }
}

/// Which of two statements that allow says more.
const fn rank(answer: &Answer) -> u8 {
    match answer {
        Answer::Allows(Named::Directly) => 6,
        Answer::Allows(_) => 5,
        Answer::Unclear(_) => 4,
        Answer::ExternalId => 3,
        Answer::NotTheAction => 2,
        Answer::NotTheCaller | Answer::Denies => 1,
    }
}

/// Whether an external id had a part in it that a statement applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ById {
    No,
    Yes,
}

/// One statement, one caller, one action.
enum Judged {
    Applies(Named, ById),
    OtherAction,
    OtherCaller,
    OtherId,
    Unclear(String),
}

impl Statement {
    fn read(statement: &Value) -> Option<Self> {
        let denies = match statement.get("Effect")?.as_str()? {
            "Allow" => false,
            "Deny" => true,
            _ => return None,
        };
        let principals = match statement.get("Principal") {
            Some(Value::String(one)) => Some(vec![one.clone()]),
            Some(Value::Object(kinds)) => Some(kinds.get("AWS").map_or_else(Vec::new, texts)),
            _ => None,
        };
        let mut conditions = Vec::new();
        if let Some(operators) = statement.get("Condition") {
            for (operator, keys) in operators.as_object()? {
                for (key, values) in keys.as_object()? {
                    conditions.push(Condition {
                        operator: operator.clone(),
                        key: key.clone(),
                        values: texts(values),
                    });
                }
            }
        }
        Some(Self {
            denies,
            principals,
            actions: statement.get("Action").map(texts),
            conditions,
        })
    }

    fn judge(&self, asker: Asker<'_>, action: &str) -> Judged {
        let Some(named) = self.names(asker) else {
            return Judged::Unclear("NotPrincipal".to_owned());
        };
        if named == Named::No {
            return Judged::OtherCaller;
        }
        let Some(actions) = &self.actions else {
            return Judged::Unclear("NotAction".to_owned());
        };
        let is_meant = |listed: &String| {
            matches_pattern(&listed.to_ascii_lowercase(), &action.to_ascii_lowercase())
        };
        if !actions.iter().any(is_meant) {
            return Judged::OtherAction;
        }
        let (ids, others): (Vec<_>, Vec<_>) = self
            .conditions
            .iter()
            .partition(|one| one.is_of_external_id());
        let sent = asker.external_id.map(ExternalId::as_str);
        let mut by_id = ById::No;
        for id in ids {
            match id.holds(sent) {
                Some(true) => by_id = ById::Yes,
                Some(false) => return Judged::OtherId,
                None => return Judged::Unclear(id.key.clone()),
            }
        }
        if !others.is_empty() {
            let mut keys: Vec<&str> = others.iter().map(|one| one.key.as_str()).collect();
            keys.dedup();
            return Judged::Unclear(keys.join(", "));
        }
        Judged::Applies(named, by_id)
    }

    fn names(&self, asker: Asker<'_>) -> Option<Named> {
        let listed = self.principals.as_ref()?.iter();
        Some(
            listed
                .map(|one| names(one, asker.arn))
                .max()
                .unwrap_or(Named::No),
        )
    }
}

impl Condition {
    fn is_of_external_id(&self) -> bool {
        self.key.eq_ignore_ascii_case(EXTERNAL_ID)
    }

    /// Whether it holds for what was sent; `None` for an operator, or a value, that is not judged here.
    fn holds(&self, sent: Option<&str>) -> Option<bool> {
        let operator = self.operator.as_str();
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator, false),
        };
        if self.values.iter().any(|value| value.contains("${")) {
            return None;
        }
        let is_any = |matches: fn(&str, &str) -> bool, sent: &str| {
            self.values.iter().any(|value| matches(value, sent))
        };
        let (matches, wanted): (fn(&str, &str) -> bool, bool) = match operator {
            "StringEquals" => (|value, sent| value == sent, true),
            "StringEqualsIgnoreCase" => (|value, sent| value.eq_ignore_ascii_case(sent), true),
            "StringLike" => (matches_pattern, true),
            "StringNotEquals" => (|value, sent| value == sent, false),
            "StringNotEqualsIgnoreCase" => (|value, sent| value.eq_ignore_ascii_case(sent), false),
            "StringNotLike" => (matches_pattern, false),
            "Null" => {
                let is_absent = sent.is_none();
                return Some(
                    self.values
                        .iter()
                        .any(|value| (value == "true") == is_absent),
                );
            }
            _ => return None,
        };
        Some(match sent {
            Some(sent) => is_any(matches, sent) == wanted,
            // A key that is not there fails what asks for a value, and passes what forbids one.
            None => if_exists || !wanted,
        })
    }
}

/// Text and lists of it, as policies write most things; numbers and truths as text.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(many) => many.iter().flat_map(texts).collect(),
        Value::String(one) => vec![one.clone()],
        Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
        Value::Null | Value::Object(_) => Vec::new(),
    }
}

/// How far one principal of a policy names a caller.
fn names(listed: &str, caller: &str) -> Named {
    let Some((partition, account)) = place(caller) else {
        return Named::No;
    };
    if listed == "*" || listed == caller {
        return Named::Directly;
    }
    if listed == account || listed == format!("arn:{partition}:iam::{account}:root") {
        return Named::Account;
    }
    // A session does not tell its role's path; names of roles are unique in an account whatever their path.
    let role = principal(caller);
    let of_role = |arn: &str| -> Option<(String, String)> {
        let (account, path) = arn.split_once(":role/")?;
        Some((account.to_owned(), path.rsplit('/').next()?.to_owned()))
    };
    match (of_role(listed), of_role(&role)) {
        (Some(listed), Some(ours)) if listed == ours => Named::Directly,
        _ => Named::No,
    }
}

/// Partition and account of an ARN of IAM or STS.
pub(super) fn place(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.split(':');
    let (partition, account) = (parts.nth(1)?, parts.nth(2)?);
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    is_account.then_some((partition, account))
}

/// `*` for any text, `?` for any character.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(one) if *one == '?' || *one == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((position, taken)) => {
                    star = Some((position, taken + 1));
                    at = position + 1;
                    seen = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|one| *one == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "arn:aws:sts::111111111111:assumed-role/agent/i-1";

    fn policy(statements: &str) -> TrustPolicy {
        TrustPolicy::read(&format!(
            r#"{{"Version":"2012-10-17","Statement":{statements}}}"#
        ))
        .unwrap()
    }

    fn says(statements: &str, external_id: Option<&str>) -> Answer {
        let id: Option<ExternalId> = external_id.map(|id| id.parse().unwrap());
        let asker = Asker {
            arn: SESSION,
            external_id: id.as_ref(),
        };
        policy(statements).answer(asker, "sts:AssumeRole")
    }

    fn allow(principal: &str, more: &str) -> String {
        format!(r#"{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"{more}}}"#)
    }

    #[test]
    fn a_session_is_named_by_itself_its_role_with_any_path_its_account_or_everybody() {
        for (principal, named) in [
            (format!(r#"{{"AWS":"{SESSION}"}}"#), Named::Directly),
            (
                r#"{"AWS":["x","arn:aws:iam::111111111111:role/a/path/agent"]}"#.to_owned(),
                Named::Directly,
            ),
            (r#""*""#.to_owned(), Named::Directly),
            (r#"{"AWS":"111111111111"}"#.to_owned(), Named::Account),
            (
                r#"{"AWS":"arn:aws:iam::111111111111:root"}"#.to_owned(),
                Named::Account,
            ),
        ] {
            assert_eq!(says(&allow(&principal, ""), None), Answer::Allows(named));
        }
        for principal in [
            r#"{"AWS":"arn:aws:iam::111111111111:role/other"}"#,
            r#"{"AWS":"arn:aws:iam::222222222222:role/agent"}"#,
            r#"{"AWS":"arn:aws:iam::111111111111:user/agent"}"#,
            r#"{"Service":"ec2.amazonaws.com"}"#,
        ] {
            assert_eq!(says(&allow(principal, ""), None), Answer::NotTheCaller);
        }
    }

    #[test]
    fn an_external_id_that_is_missing_or_other_is_the_gap_and_the_right_one_none() {
        let account = r#"{"AWS":"111111111111"}"#;
        for condition in [
            r#"{"StringEquals":{"sts:ExternalId":"ours"}}"#,
            r#"{"StringLike":{"sts:externalid":["x","ou*"]}}"#,
            r#"{"StringEqualsIgnoreCase":{"sts:ExternalId":"OURS"}}"#,
        ] {
            let statement = allow(account, &format!(r#","Condition":{condition}"#));
            assert_eq!(says(&statement, None), Answer::ExternalId, "{condition}");
            assert_eq!(says(&statement, Some("theirs")), Answer::ExternalId);
            assert_eq!(
                says(&statement, Some("ours")),
                Answer::Allows(Named::Account)
            );
        }
        let denied = format!(
            r#"[{},{{"Effect":"Deny","Principal":"*","Action":"sts:*",
                "Condition":{{"StringNotEquals":{{"sts:ExternalId":"ours"}}}}}}]"#,
            allow(account, "")
        );
        assert_eq!(says(&denied, None), Answer::ExternalId);
        assert_eq!(says(&denied, Some("ours")), Answer::Allows(Named::Account));
    }

    #[test]
    fn an_action_that_is_not_listed_and_one_that_is_denied_are_told() {
        let tags = r#"{"Effect":"Allow","Principal":"*","Action":["sts:TagSession"]}"#;
        assert_eq!(says(tags, None), Answer::NotTheAction);
        let denied = format!(
            r#"[{},{{"Effect":"Deny","Principal":{{"AWS":"{SESSION}"}},"Action":"STS:assume*"}}]"#,
            allow(r#""*""#, "")
        );
        assert_eq!(says(&denied, None), Answer::Denies);
    }

    #[test]
    fn what_is_not_judged_is_named_and_neither_allows_nor_hides_what_does() {
        let unclear = allow(
            r#""*""#,
            r#","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1","aws:SourceVpc":"v"}}"#,
        );
        assert_eq!(
            says(&unclear, None),
            Answer::Unclear("aws:PrincipalOrgID, aws:SourceVpc".to_owned())
        );
        let both = format!("[{unclear},{}]", allow(r#""*""#, ""));
        assert_eq!(says(&both, None), Answer::Allows(Named::Directly));
        let all_but = r#"{"Effect":"Deny","NotPrincipal":{"AWS":"x"},"Action":"sts:AssumeRole"}"#;
        let both = format!("[{all_but},{}]", allow(r#""*""#, ""));
        assert_eq!(
            says(&both, None),
            Answer::Unclear("NotPrincipal".to_owned())
        );
        let variable = allow(
            r#""*""#,
            r#","Condition":{"StringEquals":{"sts:ExternalId":"${aws:userid}"}}"#,
        );
        assert_eq!(
            says(&variable, Some("x-1")),
            Answer::Unclear("sts:ExternalId".to_owned())
        );
    }

    #[test]
    fn principals_that_were_deleted_are_seen() {
        let found = policy(&allow(r#"{"AWS":["AROAEXAMPLE","111111111111"]}"#, ""));
        assert_eq!(found.deleted(), ["AROAEXAMPLE"]);
        assert_eq!(found.principals(), ["AROAEXAMPLE", "111111111111"]);
    }

    #[test]
    fn what_is_no_policy_is_not_read() {
        for text in ["", "{}", r#"{"Statement":[{"Effect":"Maybe"}]}"#, "[]"] {
            assert_eq!(TrustPolicy::read(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_match_as_policies_mean_them() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "acb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*b", "abab", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), fits, "{pattern} {text}");
        }
    }
}
