//! The tables of the embedded store, and how an older file becomes a current one.
//!
//! Invariant: a file's `user_version` says how many of [`MIGRATIONS`] it has; a migration that was released is never
//! changed. A file with more than we know is refused, since a newer program may have put meaning in it.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

/// How long a connection waits for another's lock; only a backup tool could hold one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Times that a taken lock is asked for, and the time between.
const LOCK_ATTEMPTS_MAX: u32 = 10;
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Statements that each connection keeps prepared.
const STATEMENTS_CACHED: usize = 32;

/// Pages of the write-ahead log at which it is moved into the file. Pages that are written again and again until then
/// are moved once.
const CHECKPOINT_PAGES: u32 = 8_000;
/// Memory for pages that the writer keeps at hand, in KiB: what a burst of new keys touches again and again.
const WRITER_CACHE_KIB: i32 = 16 * 1024;

/// The steps from an empty file to the current one, in order.
///
/// The second made the file what it is: `log` is every change in order, under [`super::log_id`], without a value when it
/// was a deletion. A value is stored once, and the file grows at its end; which change is a key's last is known in
/// memory ([`super::index`]). The value is the last column, so that the others are read without it.
pub(super) const MIGRATIONS: [&str; 2] = ["
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO meta VALUES ('revision', 0), ('compacted', 0);

    CREATE TABLE kv (
        key      BLOB PRIMARY KEY,
        value    BLOB NOT NULL,
        created  INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        lease    INTEGER
    );
    CREATE INDEX kv_of_lease ON kv (lease) WHERE lease IS NOT NULL;

    CREATE TABLE leases (
        id     INTEGER PRIMARY KEY AUTOINCREMENT,
        ttl_ms INTEGER NOT NULL
    );

    CREATE TABLE history (
        revision      INTEGER NOT NULL,
        place         INTEGER NOT NULL,
        key           BLOB NOT NULL,
        value         BLOB,
        created       INTEGER,
        lease         INTEGER,
        prev_value    BLOB,
        prev_created  INTEGER,
        prev_modified INTEGER,
        prev_lease    INTEGER,
        PRIMARY KEY (revision, place)
    ) WITHOUT ROWID;
", "
    CREATE TABLE log (
        id       INTEGER PRIMARY KEY,
        key      BLOB NOT NULL,
        created  INTEGER,
        lease    INTEGER,
        previous INTEGER,
        value    BLOB
    );
    INSERT INTO log (id, key, created, lease, value)
        SELECT modified * 1048576 + row_number() OVER (PARTITION BY modified ORDER BY key), key, created, lease, value
        FROM kv;
    UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'revision') WHERE name = 'compacted';
    DROP TABLE history;
    DROP TABLE kv;
"];

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The directory or file cannot be made or read.
    #[error("cannot open `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("`{}` is in use by another process", .path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// It was written by a newer program.
    #[error(
        "`{}` has format {found}, and this program knows up to {known}: start a newer one, or restore a backup", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: usize,
        /// The newest that we know.
        known: usize,
    },
    /// SQLite refused it.
    #[error("cannot use `{}` as a state store", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the thread that writes the state store")]
    Thread(#[source] std::io::Error),
}

/// Held while the store is open, so that no second process opens it.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

/// Makes the directory (mode 0700) and takes its lock.
///
/// A process that was just started by whoever had the store keeps the lock until it runs its own program, so a lock that
/// is taken is asked for again for a moment. Blocks meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "stores open once, before anything is served; nothing tells when a file lock is free"
)]
pub(crate) fn lock(directory: &Path) -> Result<StoreLock, OpenError> {
    let path = directory.join("lock");
    let failed = |source| OpenError::File {
        path: path.clone(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    let file = private_file(&path).map_err(failed)?;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(StoreLock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Err(OpenError::InUse { path })
}

/// Opens or makes a file that only its owner may read.
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// A writable connection to a file that has all of `migrations`.
///
/// `synchronous=FULL`: an acknowledged commit must survive a power cut. A lost one would let a revision be given
/// twice, and revisions fence discovery workers. Batching commits is what makes it affordable.
pub(crate) fn open_writer(path: &Path, migrations: &[&str]) -> Result<Connection, OpenError> {
    private_file(path).map_err(|source| OpenError::File {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let mut connection = connect(path).map_err(failed)?;
    let found: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    if found > migrations.len() {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: migrations.len(),
        });
    }
    migrate(&mut connection, found, migrations).map_err(failed)?;
    tune_for_writing(&connection).map_err(failed)?;
    Ok(connection)
}

/// As [`open_writer`], with the store's own tables.
pub(crate) fn open_store(path: &Path) -> Result<Connection, OpenError> {
    open_writer(path, &MIGRATIONS)
}

/// Lets the file grow to this many pages and no further.
pub(crate) fn limit(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let connection = connect(path).map_err(failed)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(failed)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn tune_for_writing(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)
}

fn migrate(connection: &mut Connection, found: usize, migrations: &[&str]) -> rusqlite::Result<()> {
    for (index, step) in migrations.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
