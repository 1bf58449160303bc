//! Events of MySQL's own commands, by the names and codes under which they are known elsewhere.

/// A command of MySQL's protocol that is audited beside statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MysqlKind {
    /// A prepared statement ran with many rows of parameters.
    BulkExecute,
    /// A prepared statement was forgotten.
    Close,
    /// A database was made.
    CreateDatabase,
    /// The server was asked to write what it is doing.
    Debug,
    /// A database was removed.
    DropDatabase,
    /// A prepared statement ran.
    Execute,
    /// Rows of a cursor were asked for.
    Fetch,
    /// A database was chosen.
    InitDatabase,
    /// Another connection was to be ended.
    Kill,
    /// A statement was prepared.
    Prepare,
    /// Caches were to be emptied, or logs rotated.
    Refresh,
    /// What was sent for a prepared statement was forgotten.
    Reset,
    /// A part of a parameter was sent.
    SendLongData,
    /// The server was to stop.
    Shutdown,
}

impl MysqlKind {
    pub(super) const fn name_and_code(self) -> (&'static str, &'static str) {
        match self {
            Self::Prepare => ("db.session.mysql.statements.prepare", "TMY00I"),
            Self::Execute => ("db.session.mysql.statements.execute", "TMY01I"),
            Self::SendLongData => ("db.session.mysql.statements.send_long_data", "TMY02I"),
            Self::Close => ("db.session.mysql.statements.close", "TMY03I"),
            Self::Reset => ("db.session.mysql.statements.reset", "TMY04I"),
            Self::Fetch => ("db.session.mysql.statements.fetch", "TMY05I"),
            Self::BulkExecute => ("db.session.mysql.statements.bulk_execute", "TMY06I"),
            Self::InitDatabase => ("db.session.mysql.init_db", "TMY07I"),
            Self::CreateDatabase => ("db.session.mysql.create_db", "TMY08I"),
            Self::DropDatabase => ("db.session.mysql.drop_db", "TMY09I"),
            Self::Shutdown => ("db.session.mysql.shut_down", "TMY10I"),
            Self::Kill => ("db.session.mysql.process_kill", "TMY11I"),
            Self::Debug => ("db.session.mysql.debug", "TMY12I"),
            Self::Refresh => ("db.session.mysql.refresh", "TMY13I"),
        }
    }
}
