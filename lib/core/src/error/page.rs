//! What each code means, who acts, and how: the reference page of errors is made from it.

use super::{ErrorCode, Layer};
use crate::doctor::Who;

/// What a code tells to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What happened.
    pub what: &'static str,
    /// Who can put it right.
    pub who: Who,
    /// What they do.
    pub remedy: &'static str,
}

impl ErrorCode {
    /// What it means to people.
    #[must_use]
    pub const fn meaning(self) -> Meaning {
        let (what, who, remedy) = match self {
            Self::AccessDenied => (
                "no role allows this person this database, database user or database name",
                Who::Administrator,
                "give the person a role with fitting `db_labels`, `db_users` and `db_names`; `tgctl access explain` says what \
                 each clause of each role says",
            ),
            Self::AgentUnavailable => (
                "no agent serves the database now, or the one that does may not begin a session",
                Who::Operator,
                "`tgctl db ls` lists who serves what; start an agent whose `db_service.resources` match the database's \
                 labels, or let it reach the auth service",
            ),
            Self::AwsAccessDenied => (
                "AWS refused a call on the way to a login: assuming a role, or asking for a password",
                Who::AwsAdministrator,
                "add the statement in the hint to the policy that it names; `tidegate db doctor` prints it ready to paste",
            ),
            Self::AwsCredentials => (
                "the agent has no AWS credentials, or AWS does not take them: expired, deleted, of another clock",
                Who::Operator,
                "`tidegate db doctor` on the agent's host says which sources were asked and what each said",
            ),
            Self::AwsUnavailable => (
                "AWS did not answer, or throttled to the last attempt",
                Who::Wait,
                "try again; if it lasts, look at the agent's way to AWS's endpoints",
            ),
            Self::ClientCertificate => (
                "the client showed no certificate of this cluster, or one that has expired or is for something else",
                Who::User,
                "`tg login`, then connect again by `tg db connect` or with what `tg db config` prints",
            ),
            Self::DatabaseLogin => (
                "the database refused the login",
                Who::DatabaseAdministrator,
                "make the database user, and let it log in by IAM where the kind of database asks for that",
            ),
            Self::DatabaseNotAvailable => (
                "the database is paused, stopped, being made or gone",
                Who::Operator,
                "resume or start it; the label `status` and `tgctl get db/NAME` tell what AWS says",
            ),
            Self::DatabaseUnreachable => (
                "the database's address does not resolve, takes no connection, or the connection broke",
                Who::Operator,
                "let the network of the database (security groups, routes, DNS) take connections from the agent",
            ),
            Self::DatabaseTls => (
                "the database's certificate cannot be verified, or it speaks no TLS",
                Who::Operator,
                "give the agent the CA of the database (`tls.ca_cert_file`) or the name in its certificate \
                 (`tls.server_name`), or have the certificate renewed",
            ),
            Self::Locked => (
                "a lock shuts out the person, a role, the agent or the database, whatever roles allow",
                Who::Administrator,
                "`tgctl get lock` lists locks and why they were made; `tgctl rm lock/NAME` lifts one",
            ),
            Self::ProtocolViolation => (
                "the client sent what its protocol does not allow",
                Who::User,
                "use a driver that speaks the protocol; the message says what was sent",
            ),
            Self::TooMany => (
                "a bound was reached: sessions of a person, of an agent or of a proxy",
                Who::User,
                "end a session; an administrator raises `max_db_connections` in a role, an operator adds agents or proxies",
            ),
            Self::UnknownDatabase => (
                "no database of that name, or the connection does not name one",
                Who::User,
                "`tg db ls` lists names; clients name the database by the host that they connect to, over TLS with SNI",
            ),
            Self::Internal => (
                "a fault of ours",
                Who::Operator,
                "report it with the agent's log of that time",
            ),
        };
        Meaning { what, who, remedy }
    }

    /// The status that a gRPC call gets, by the name of its code.
    ///
    /// Source: gRPC, "Status codes and their use".
    #[must_use]
    pub const fn grpc_code(self) -> &'static str {
        match self {
            Self::AccessDenied | Self::AwsAccessDenied | Self::Locked => "PERMISSION_DENIED",
            Self::AgentUnavailable
            | Self::AwsUnavailable
            | Self::DatabaseUnreachable
            | Self::DatabaseTls => "UNAVAILABLE",
            Self::AwsCredentials | Self::DatabaseLogin | Self::DatabaseNotAvailable => {
                "FAILED_PRECONDITION"
            }
            Self::ClientCertificate => "UNAUTHENTICATED",
            Self::ProtocolViolation => "INVALID_ARGUMENT",
            Self::TooMany => "RESOURCE_EXHAUSTED",
            Self::UnknownDatabase => "NOT_FOUND",
            Self::Internal => "INTERNAL",
        }
    }
}

impl Layer {
    /// The word for it in the reference.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Aws => "aws",
            Self::Rbac => "rbac",
            Self::Database => "database",
            Self::Internal => "internal",
        }
    }
}

const OPENING: &str = "# Errors\n\n<!-- Written by `cargo xtask gen` from lib/core/src/error/page.rs. -->\n\n\
    Every failure of a session has one of these codes. They are stable and never used again for something else. A Postgres\n\
    client reads SQLSTATE, message, DETAIL (what was tried, on what) and HINT (who acts, and how); the agent's log and the\n\
    event `db.session.start` hold the cause behind it, which clients do not see. The doctor's verdict\n\
    ([guide](../guides/doctor.md)) has the same codes.\n\n\
    A MySQL client reads a number and SQLSTATE that a MySQL server would use, and one text: message, hint, and the code.\n\n\
    What a database itself answers, such as `28P01` for a wrong password or `42P01` for a table that does not exist, goes to\n\
    the client as it came and has no code here.\n\n\
    | code | layer | SQLSTATE | MySQL | gRPC | what happened | who acts | how |\n|---|---|---|---|---|---|---|---|\n";

const CLOSING: &str = "\n## Configuration\n\n\
    A configuration file that is wrong is refused as a whole, with all of its mistakes at once, each as\n\
    `FILE:LINE:COLUMN: KEY: what is wrong, what is expected`. Flags of `tidegate db start` are told by the flag's name. The\n\
    program exits with 1 and has touched nothing.\n\n\
    ## Exit codes\n\n\
    | program | code | when |\n|---|---|---|\n\
    | `tg`, `tgctl` | 0 | done |\n\
    | | 1 | understood, and not carried out |\n\
    | | 2 | the command line is wrong |\n\
    | | 3 | carried out, and what was to be checked is not well: `--check`, `tgctl db doctor` |\n\
    | | 4 | carried out, and what was to be checked could not be seen in full |\n\
    | `tidegate` | 0 | done, or ended by SIGTERM or SIGINT |\n\
    | | 1 | everything else |\n\
    | `tidegate db doctor` | 0 | every step passed |\n\
    | | 1 | a step failed |\n\
    | | 2 | no step was taken: the command line, the configuration, or the question is wrong |\n";

/// The reference page of errors, in Markdown; `cargo xtask gen` writes it. `mysql` gives the number and SQLSTATE that a
/// MySQL client reads for a code, which is known where the protocol is.
#[must_use]
pub fn reference(mysql: impl Fn(ErrorCode) -> (u16, String)) -> String {
    let rows = ErrorCode::ALL.iter().map(|code| {
        let meaning = code.meaning();
        let (number, state) = mysql(*code);
        format!(
            "| `{code}` | {} | `{}` | {number} `{state}` | `{}` | {} | {} | {} |\n",
            code.layer().as_str(),
            code.sqlstate(),
            code.grpc_code(),
            meaning.what,
            meaning.who.described(),
            meaning.remedy
        )
    });
    let rows: String = rows.collect();
    format!("{OPENING}{rows}{CLOSING}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_for_every_code_and_no_cell_breaks_its_row() {
        let page = reference(|_| (1045, "28000".to_owned()));
        for code in ErrorCode::ALL {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{code}` |")))
                .unwrap_or_else(|| panic!("{code}"));
            assert_eq!(row.matches('|').count(), 9, "{row}");
        }
    }

    #[test]
    fn who_acts_does_not_contradict_the_code() {
        for code in ErrorCode::ALL {
            assert_ne!(code.meaning().who, Who::Nobody, "{code}");
        }
    }
}
