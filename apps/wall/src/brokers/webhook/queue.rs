// SPDX-License-Identifier: MPL-2.0
//! Messages that wait to be posted, in a file: what is in it outlives the process, however that ends.

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Messages that may wait for one hook; the oldest leave when more come.
pub const BOUND: usize = 10_000;

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::brokers) struct Message {
    /// Its place in the file.
    pub number: i64,
    /// What the receiver knows it again by.
    pub id: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// The file, for all hooks.
pub(crate) struct Queue {
    connection: Mutex<Connection>,
    bound: usize,
}

impl Queue {
    /// Opens `path`, or makes it.
    ///
    /// # Errors
    ///
    /// Of the disk, or of a file that is something else.
    pub fn open(path: &Path, bound: usize) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS waiting (
                number INTEGER PRIMARY KEY AUTOINCREMENT,
                hook TEXT NOT NULL,
                id TEXT NOT NULL,
                body BLOB NOT NULL,
                UNIQUE (hook, id)
            );
            CREATE INDEX IF NOT EXISTS of_hook ON waiting (hook, number);",
        )?;
        Ok(Queue { connection: Mutex::new(connection), bound })
    }

    /// Puts a message behind the others of `hook`; returns how many older ones had to leave. One that waits
    /// already under this `id` is not there twice.
    pub fn put(&self, hook: &str, id: &str, body: &[u8]) -> rusqlite::Result<usize> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "INSERT OR IGNORE INTO waiting (hook, id, body) VALUES (?1, ?2, ?3)",
            params![hook, id, body],
        )?;
        let lost = transaction.execute(
            "DELETE FROM waiting WHERE number IN (
                SELECT number FROM waiting WHERE hook = ?1 ORDER BY number DESC LIMIT -1 OFFSET ?2)",
            params![hook, i64::try_from(self.bound).unwrap_or(i64::MAX)],
        )?;
        transaction.commit()?;
        Ok(lost)
    }

    /// The oldest message of `hook`.
    pub fn first(&self, hook: &str) -> rusqlite::Result<Option<Message>> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare(
            "SELECT number, id, body FROM waiting WHERE hook = ?1 ORDER BY number LIMIT 1",
        )?;
        let message = |row: &rusqlite::Row<'_>| {
            Ok(Message { number: row.get(0)?, id: row.get(1)?, body: row.get(2)? })
        };
        statement.query_row([hook], message).optional()
    }

    /// It need not wait any longer.
    pub fn done(&self, message: &Message) -> rusqlite::Result<()> {
        let connection = self.connection.lock();
        connection.execute("DELETE FROM waiting WHERE number = ?1", [message.number]).map(drop)
    }

    /// How many wait for `hook`.
    pub fn waiting(&self, hook: &str) -> rusqlite::Result<usize> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare("SELECT count(*) FROM waiting WHERE hook = ?1")?;
        statement
            .query_row([hook], |row| row.get::<_, i64>(0))
            .map(|count| usize::try_from(count).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_in_their_order_and_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("waiting.sqlite");
        let queue = Queue::open(&path, 10).unwrap();
        for id in ["a", "b", "b", "c"] {
            assert_eq!(queue.put("hall", id, id.as_bytes()).unwrap(), 0);
        }
        queue.put("yard", "a", b"other").unwrap();
        // As after kill -9: nothing is closed.
        std::mem::forget(queue);
        let queue = Queue::open(&path, 10).unwrap();
        assert_eq!(queue.waiting("hall").unwrap(), 3);
        for id in ["a", "b", "c"] {
            let first = queue.first("hall").unwrap().unwrap();
            assert_eq!((first.id.as_str(), first.body.as_slice()), (id, id.as_bytes()));
            queue.done(&first).unwrap();
        }
        assert_eq!(queue.first("hall").unwrap(), None);
        assert_eq!(queue.waiting("yard").unwrap(), 1);
    }

    #[test]
    fn the_oldest_leave_at_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::open(&folder.path().join("waiting.sqlite"), 3).unwrap();
        let lost: usize = (0..5).map(|id| queue.put("hall", &id.to_string(), b"").unwrap()).sum();
        assert_eq!((lost, queue.waiting("hall").unwrap()), (2, 3));
        assert_eq!(queue.first("hall").unwrap().unwrap().id, "2");
    }
}
