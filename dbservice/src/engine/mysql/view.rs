//! What is understood of a running session in MySQL's protocol.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tidegate_core::{ErrorCode, Problem};
use tidegate_wire::{
    SqlState,
    mysql::{
        Capabilities,
        command::{self, Code, Command, Text},
        conversation::{Conversation, Sent, Told},
    },
};

use super::{
    stopping::{Kill, Part, Running},
    words,
};
use crate::audit::{Kind, MysqlKind};
use crate::engine::view::{Counts, Malformed, Objection, STATEMENT_BYTES_MAX, Statement, View};

/// The state of one session.
#[derive(Debug)]
pub(crate) struct MysqlView {
    conversation: Conversation,
    counts: Counts,
    heard: Arc<AtomicU64>,
    running: Running,
    /// Stretches of statements that followed each other without a rest; the present one is the last.
    stretches: u64,
    was_running: bool,
    on_kill: OnKill,
}

/// Hears what a client asks to have killed.
struct OnKill(Box<dyn Fn(Kill) + Send + Sync>);

impl fmt::Debug for OnKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnKill")
    }
}

impl MysqlView {
    /// The view of a session whose client was just told OK. `running` is shared with whoever stops it, and `on_kill` hears
    /// what its client asks to have killed.
    pub(super) fn new(
        capabilities: Capabilities,
        running: Running,
        on_kill: impl Fn(Kill) + Send + Sync + 'static,
    ) -> Self {
        Self {
            // One byte more: the command's own.
            conversation: Conversation::new(capabilities, STATEMENT_BYTES_MAX + 1),
            counts: Counts::default(),
            heard: Arc::default(),
            running,
            stretches: 0,
            was_running: false,
            on_kill: OnKill(Box::new(on_kill)),
        }
    }

    /// Shares whether statements run, when that has changed.
    fn share(&mut self) {
        let is_running = self.conversation.is_running();
        if is_running == self.was_running {
            return;
        }
        self.was_running = is_running;
        self.stretches += u64::from(is_running);
        self.running
            .set(if is_running { self.stretches } else { 0 });
    }
}

impl View for MysqlView {
    fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heard)
    }

    fn sent_by_client(
        &mut self,
        bytes: &[u8],
        mut on_statement: impl FnMut(Statement<'_>),
    ) -> Result<(), Objection> {
        self.counts.client_bytes += count(bytes);
        self.heard
            .store(self.counts.client_bytes, Ordering::Relaxed);
        let (counts, on_kill) = (&mut self.counts, &self.on_kill.0);
        let mut changes_user = false;
        let looked = self.conversation.client_sent(bytes, |sent| {
            changes_user |= sent.command == Command::ChangeUser;
            if let Some(kill) = kill(&sent.command) {
                on_kill(kill);
            }
            if let Some(statement) = audited(&sent) {
                counts.statements += u64::from(is_statement(&statement));
                on_statement(statement);
            }
        });
        self.share();
        if changes_user {
            return Err(Objection::Refused(Box::new(change_user())));
        }
        looked.map_err(|error| Objection::Malformed(error.into()))
    }

    fn sent_by_database(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.counts.database_bytes += count(bytes);
        let counts = &mut self.counts;
        let looked = self.conversation.server_sent(bytes, |told| match told {
            Told::Error => counts.errors += 1,
            Told::Row => counts.rows += 1,
        });
        self.share();
        Ok(looked?)
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn is_idle(&self) -> bool {
        !self.conversation.is_running() && !self.conversation.in_transaction()
    }

    fn may_speak_to_client(&self) -> bool {
        self.conversation.may_speak_to_client()
    }

    fn may_speak_to_database(&self) -> bool {
        self.conversation.may_speak_to_server()
    }

    fn client_said_goodbye(&self) -> bool {
        self.conversation.said_goodbye()
    }

    fn database_gave_up(&self) -> bool {
        self.conversation.server_gave_up()
    }

    fn last_words(&self, state: SqlState, problem: &Problem) -> Bytes {
        words::error(self.conversation.next_sequence(), state, problem)
    }

    fn goodbye(&self) -> Bytes {
        command::quit()
    }
}

/// What a command asks to have killed.
fn kill(command: &Command<'_>) -> Option<Kill> {
    match command {
        Command::Kill(number) => Some(Kill {
            part: Part::Connection,
            number: *number,
        }),
        Command::Query(text) if !text.truncated => Kill::read(&text.text),
        _ => None,
    }
}

/// The session's user is who a role allowed; another one would have to be asked about.
fn change_user() -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        "the user of a session cannot be changed",
    )
    .because("the client sent COM_CHANGE_USER")
    .hint("connect again as the other user")
}

/// What audit is told of a command; `None` for what neither changes nor reads data.
fn audited<'s>(sent: &'s Sent<'_>) -> Option<Statement<'s>> {
    let mysql = |kind, fact| Statement {
        kind: Kind::Mysql(kind),
        text: "",
        truncated: false,
        body_bytes: usize::try_from(sent.bytes).unwrap_or(usize::MAX),
        prepared_as: None,
        fact,
    };
    let sql = |kind, text: &'s Text<'_>| Statement {
        kind,
        text: &text.text,
        truncated: text.truncated,
        ..mysql(MysqlKind::Prepare, None)
    };
    let schema =
        |kind, name: &Text<'_>| mysql(kind, Some(("schema_name", name.text.clone().into_owned())));
    match &sent.command {
        Command::CreateDatabase(name) => Some(schema(MysqlKind::CreateDatabase, name)),
        Command::Debug => Some(mysql(MysqlKind::Debug, None)),
        Command::DropDatabase(name) => Some(schema(MysqlKind::DropDatabase, name)),
        Command::Kill(id) => Some(mysql(MysqlKind::Kill, Some(("process_id", id.to_string())))),
        Command::OpenDatabase(name) => Some(schema(MysqlKind::InitDatabase, name)),
        Command::Prepare(text) => Some(sql(Kind::Mysql(MysqlKind::Prepare), text)),
        Command::Query(text) => Some(sql(Kind::Query, text)),
        Command::Refresh(bits) => Some(mysql(
            MysqlKind::Refresh,
            Some(("subcommand", format!("{bits:#04x}"))),
        )),
        Command::Replicate => Some(Statement {
            kind: Kind::Query,
            text: "COM_BINLOG_DUMP",
            ..mysql(MysqlKind::Debug, None)
        }),
        Command::Shutdown => Some(mysql(MysqlKind::Shutdown, None)),
        Command::Statement { code, id } => Some(mysql(
            match *code {
                Code::STMT_EXECUTE => MysqlKind::Execute,
                Code::STMT_SEND_LONG_DATA => MysqlKind::SendLongData,
                Code::STMT_CLOSE => MysqlKind::Close,
                Code::STMT_RESET => MysqlKind::Reset,
                Code::STMT_FETCH => MysqlKind::Fetch,
                _ => MysqlKind::BulkExecute,
            },
            Some(("statement_id", id.to_string())),
        )),
        _ => None,
    }
}

/// Whether it counts as a statement: something that runs, or is prepared to.
fn is_statement(statement: &Statement<'_>) -> bool {
    matches!(
        statement.kind,
        Kind::Query | Kind::Mysql(MysqlKind::Prepare | MysqlKind::Execute | MysqlKind::BulkExecute)
    )
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use tidegate_wire::mysql::packet::packet;

    use super::*;

    fn view() -> MysqlView {
        MysqlView::new(Capabilities::WATCHED, Running::default(), |_| ())
    }

    /// Kind, text and further fact of what was audited.
    type Audited = (Kind, String, Option<(&'static str, String)>);

    fn told(commands: &[Bytes]) -> Vec<Audited> {
        let mut view = view();
        let mut told = Vec::new();
        view.sent_by_client(&commands.concat(), |statement| {
            told.push((
                statement.kind,
                statement.text.to_owned(),
                statement.fact.clone(),
            ));
        })
        .unwrap();
        told
    }

    fn numbered(code: u8, number: u32) -> Bytes {
        packet(0, |out| {
            out.put_u8(code);
            out.put_u32_le(number);
        })
        .freeze()
    }

    #[test]
    fn what_reads_or_changes_something_is_audited_and_a_ping_is_not() {
        let got = told(&[
            command::command(Code::QUERY, "select 1"),
            command::command(Code::PING, ""),
            command::command(Code::INIT_DB, "app"),
            command::command(Code::STMT_PREPARE, "select ?"),
            numbered(Code::STMT_EXECUTE, 3),
            numbered(Code::PROCESS_KILL, 7),
        ]);
        let mysql = |kind, text: &str, fact: Option<(&'static str, &str)>| {
            let fact = fact.map(|(name, value)| (name, value.to_owned()));
            (Kind::Mysql(kind), text.to_owned(), fact)
        };
        assert_eq!(
            got,
            [
                (Kind::Query, "select 1".to_owned(), None),
                mysql(MysqlKind::InitDatabase, "", Some(("schema_name", "app"))),
                mysql(MysqlKind::Prepare, "select ?", None),
                mysql(MysqlKind::Execute, "", Some(("statement_id", "3"))),
                mysql(MysqlKind::Kill, "", Some(("process_id", "7"))),
            ]
        );
    }

    #[test]
    fn a_long_statement_is_cut_and_its_length_kept() {
        let mut view = view();
        let long = "x".repeat(3 * STATEMENT_BYTES_MAX);
        let mut seen = None;
        view.sent_by_client(&command::command(Code::QUERY, &long), |statement| {
            seen = Some((
                statement.text.len(),
                statement.truncated,
                statement.body_bytes,
            ));
        })
        .unwrap();
        assert_eq!(seen, Some((STATEMENT_BYTES_MAX, true, long.len() + 1)));
    }

    #[test]
    fn a_change_of_user_is_refused() {
        let mut view = view();
        let objection = view
            .sent_by_client(&command::command(Code::CHANGE_USER, "root\0"), |_| ())
            .unwrap_err();
        assert!(matches!(objection, Objection::Refused(_)));
    }

    #[test]
    fn a_kill_is_heard_as_statement_and_as_command_and_only_while_something_runs_is_there_a_stretch()
     {
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let running = Running::default();
        let hears = Arc::clone(&heard);
        let mut view = MysqlView::new(Capabilities::WATCHED, running.clone(), move |kill| {
            hears.lock().unwrap().push((kill.part, kill.number));
        });
        let kills = [
            command::command(Code::QUERY, "KILL QUERY 9"),
            numbered(Code::PROCESS_KILL, 7),
        ];
        view.sent_by_client(&kills.concat(), |_| ()).unwrap();
        assert_eq!(
            *heard.lock().unwrap(),
            [(Part::Statement, 9), (Part::Connection, 7)]
        );
        let first = running.now();
        view.sent_by_database(&tidegate_wire::mysql::reply::ok(1))
            .unwrap();
        assert_eq!(running.now(), first, "one is not answered yet");
        view.sent_by_database(&tidegate_wire::mysql::reply::ok(1))
            .unwrap();
        assert_eq!(running.now(), 0);
        view.sent_by_client(&command::command(Code::PING, ""), |_| ())
            .unwrap();
        assert!(![0, first].contains(&running.now()));
    }
}
