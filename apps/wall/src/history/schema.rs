// SPDX-License-Identifier: MPL-2.0
//! The database: what is in it, and how it is opened.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Its name in the data folder.
pub const FILE: &str = "wall.db";
/// Written into the file; another one is of another version of the wall.
const VERSION: i32 = 2;

const TABLES: &str = "
    CREATE TABLE entries (
        row INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        camera TEXT NOT NULL,
        standing INTEGER NOT NULL,
        at INTEGER NOT NULL,
        question TEXT NOT NULL,
        answer TEXT NOT NULL,
        json TEXT NOT NULL,
        size INTEGER NOT NULL
    );
    CREATE INDEX entries_when ON entries (at, row);
    CREATE INDEX entries_of ON entries (camera, at, row);
    CREATE VIRTUAL TABLE words USING fts5 (question, answer, content='entries', content_rowid='row');
    CREATE TRIGGER entries_in AFTER INSERT ON entries BEGIN
        INSERT INTO words (rowid, question, answer) VALUES (new.row, new.question, new.answer);
    END;
    CREATE TRIGGER entries_out AFTER DELETE ON entries BEGIN
        INSERT INTO words (words, rowid, question, answer) VALUES ('delete', old.row, old.question, old.answer);
    END;
    CREATE TABLE pictures (
        row INTEGER PRIMARY KEY,
        camera TEXT NOT NULL,
        at INTEGER NOT NULL,
        size INTEGER NOT NULL,
        jpeg BLOB NOT NULL
    );
    -- With the size in it, so that adding up sizes reads no pictures.
    CREATE UNIQUE INDEX pictures_of ON pictures (camera, at, size);
    CREATE INDEX pictures_when ON pictures (at, size);
    CREATE TABLE pins (
        entry INTEGER NOT NULL REFERENCES entries (row) ON DELETE CASCADE,
        picture INTEGER NOT NULL REFERENCES pictures (row),
        PRIMARY KEY (entry, picture)
    ) WITHOUT ROWID;
    CREATE INDEX pins_of ON pins (picture);
    CREATE TABLE standing (
        camera TEXT NOT NULL,
        id TEXT NOT NULL,
        json TEXT NOT NULL,
        PRIMARY KEY (camera, id)
    ) WITHOUT ROWID;
";

/// Since version 2.
const UNFINISHED: &str = "
    -- Questions that were taken and have no last word yet: the one that they get if the wall is killed.
    CREATE TABLE open (
        id TEXT PRIMARY KEY,
        json TEXT NOT NULL
    ) WITHOUT ROWID;
    -- The newest alert of each standing question, and when one was last told to have begun.
    CREATE TABLE alerts (
        camera TEXT NOT NULL,
        standing TEXT NOT NULL,
        json TEXT NOT NULL,
        began INTEGER,
        PRIMARY KEY (camera, standing)
    ) WITHOUT ROWID;
";

/// Opens it to write, and makes it where there is none. What a process that was killed had committed is there.
///
/// # Errors
/// SQLite's.
pub fn open(folder: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(folder.join(FILE))?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // A commit in the write-ahead log outlives the process; what a failing machine takes along is the last moments.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(TABLES)?;
    }
    if version < VERSION {
        transaction.execute_batch(UNFINISHED)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// Opens it to read.
///
/// # Errors
/// SQLite's.
pub fn open_to_read(folder: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join(FILE), flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

/// Whether the file is none of ours, or damaged: then it is of no use to try again.
pub fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Whether there is no room.
pub fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
