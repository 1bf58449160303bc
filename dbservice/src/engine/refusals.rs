//! Why a session does not come about, in words for the client and words for the operator. Pure.

use tidegate_core::{ErrorCode, Problem, access::Explanation};

use super::{identify::Asked, terms::Breach};
use crate::{metrics::Cause, places::NoPlace, wanted::Wanted};

/// Lines of a decision's reasons that log and audit carry; `tgctl access explain` prints them all.
const REASON_LINES_MAX: usize = 12;

/// What somebody who is not let in may know: not which role said what, but what to ask for. The operator reads the
/// first lines of the reasons.
pub(crate) fn denied(asked: &Asked, database: &str, why: &Explanation) -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        format!(
            "access to database `{database}` denied for `{}`",
            asked.user.name
        ),
    )
    .because(first_lines(why))
    .hint(format!(
        "ask an administrator for a role that allows database user `{}` and database name `{}` there",
        asked.db_user, asked.db_name
    ))
}

/// The beginning of the tree of reasons, in one line.
fn first_lines(why: &Explanation) -> String {
    let lines = why.lines();
    let more = lines.len().saturating_sub(REASON_LINES_MAX);
    let mut told: Vec<String> = lines
        .iter()
        .take(REASON_LINES_MAX)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if more > 0 {
        told.push(format!("and {more} more lines"));
    }
    told.join(" / ")
}

/// What ends a session, or keeps one from beginning, whatever roles allow.
pub(crate) fn breach(breach: &Breach, database: &str) -> (Cause, Problem) {
    match breach {
        Breach::CertificateExpired => (
            Cause::CertificateExpired,
            Problem::new(
                ErrorCode::ClientCertificate,
                "the certificate that opened this session has expired",
            )
            .hint("log in again with `tg login`, then connect again"),
        ),
        Breach::Locked { name, message } => {
            let told = if message.is_empty() {
                format!("access to database `{database}` is locked")
            } else {
                format!("access to database `{database}` is locked: {message}")
            };
            let problem = Problem::new(ErrorCode::Locked, told)
                .because(format_args!("lock `{name}`"))
                .hint(format!("an administrator can lift lock `{name}`"));
            (Cause::Locked, problem)
        }
        Breach::LoginEnded { message } => (
            Cause::Locked,
            Problem::new(
                ErrorCode::ClientCertificate,
                format!("the login that your certificate comes from has ended: {message}"),
            )
            .hint("log in again with `tg login`, then connect again"),
        ),
        Breach::LocksUnknown => (
            Cause::LocksUnknown,
            Problem::new(
                ErrorCode::AgentUnavailable,
                "the database service does not know which locks are in force, and your roles allow no session then",
            )
            .hint("try again later; an operator has to let the database service reach the auth service"),
        ),
    }
}

/// The answer where a session that cannot be audited may not be.
pub(crate) fn not_audited() -> Problem {
    Problem::new(
        ErrorCode::AgentUnavailable,
        "this session cannot be audited, and your roles allow none that is not",
    )
    .hint("try again later; an operator has to let the database service reach the auth service")
}

/// The answer to one session more than roles allow.
pub(crate) fn too_many(NoPlace { most }: NoPlace) -> Problem {
    Problem::new(
        ErrorCode::TooMany,
        format!("you have {most} sessions on this database service, the most that your roles allow"),
    )
    .hint("end another session, or ask an administrator for a role with a larger `max_db_connections`")
}

/// Whether the database can be connected to, as far as AWS says.
pub(crate) fn available(wanted: &Wanted) -> Result<(), Problem> {
    let database = &wanted.database;
    if database.unavailable.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::DatabaseNotAvailable,
        format!(
            "database `{}` cannot be connected to now: {}",
            database.name, database.unavailable
        ),
    )
    .hint("connect again when it is available"))
}

/// A problem on the way to a database with what was tried, and the command that explains it; any other as it is.
pub(crate) fn with_the_way(
    mut problem: Problem,
    wanted: &Wanted,
    db_user: Option<&str>,
) -> Problem {
    let is_on_the_way = match problem.code {
        ErrorCode::AwsAccessDenied
        | ErrorCode::AwsCredentials
        | ErrorCode::AwsUnavailable
        | ErrorCode::DatabaseLogin
        | ErrorCode::DatabaseTls
        | ErrorCode::DatabaseUnreachable => true,
        ErrorCode::AccessDenied
        | ErrorCode::AgentUnavailable
        | ErrorCode::ClientCertificate
        | ErrorCode::DatabaseNotAvailable
        | ErrorCode::Internal
        | ErrorCode::Locked
        | ErrorCode::ProtocolViolation
        | ErrorCode::TooMany
        | ErrorCode::UnknownDatabase => false,
    };
    let Some(db_user) = db_user.filter(|_| is_on_the_way) else {
        return problem;
    };
    let name = &wanted.database.name;
    problem.detail.get_or_insert_with(|| {
        let role = wanted.effective.role.as_ref();
        let role = role.map_or_else(
            || "the database service's own AWS identity".to_owned(),
            |role| format!("AWS role {}", role.role_arn),
        );
        let whose = wanted
            .database
            .kind
            .map_or_else(String::new, |_| format!(", with {role}"));
        format!("tried: to log in to database `{name}` as database user `{db_user}`{whose}")
    });
    let explains = format!(
        "an operator reads what was seen on the way with: tidegate db doctor {name} --db-user={}",
        quoted(db_user)
    );
    problem.hint = Some(match problem.hint {
        Some(hint) => format!("{hint}; {explains}"),
        None => explains,
    });
    problem
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The answer while the auth service has not told any roles.
pub(crate) fn roles_unknown() -> Problem {
    Problem::new(
        ErrorCode::AgentUnavailable,
        "the database service does not know the cluster's roles yet",
    )
    .hint("try again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wanted_as;

    #[test]
    fn a_failure_on_the_way_says_what_was_tried_and_which_command_explains_it() {
        let wanted = wanted_as(Some("agent"));
        let problem = Problem::new(ErrorCode::AwsAccessDenied, "sts:AssumeRole was denied")
            .because("10.0.0.1 said no")
            .hint("an AWS administrator has to act");
        let told = with_the_way(problem, &wanted, Some("it's me"));
        assert_eq!(
            told.detail.as_deref(),
            Some(
                "tried: to log in to database `orders` as database user `it's me`, with AWS role \
                 arn:aws:iam::123456789012:role/agent"
            )
        );
        assert_eq!(
            told.hint.as_deref(),
            Some(
                "an AWS administrator has to act; an operator reads what was seen on the way with: \
                 tidegate db doctor orders --db-user='it'\\''s me'"
            )
        );
        assert!(!told.detail.unwrap().contains("10.0.0.1"));
    }

    #[test]
    fn a_refusal_by_a_role_stays_as_it_is() {
        let denied = Problem::new(ErrorCode::AccessDenied, "no").hint("ask");
        let told = with_the_way(denied.clone(), &wanted_as(None), Some("reader"));
        assert_eq!(told, denied);
        let early = Problem::new(ErrorCode::DatabaseUnreachable, "no");
        assert_eq!(with_the_way(early.clone(), &wanted_as(None), None), early);
    }
}
