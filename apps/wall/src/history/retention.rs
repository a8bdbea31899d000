// SPDX-License-Identifier: MPL-2.0
//! What goes, and when: by age and by bytes, the oldest first. A picture that an entry shows stays as long as the
//! entry does.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use crate::config::HistoryConfig;

/// Deleted in one go, so that what is to be written meanwhile need not wait for long.
const CHUNK: i64 = 500;
const UNPINNED: &str = "row NOT IN (SELECT picture FROM pins)";

/// Deletes what is too old or too much.
pub fn sweep(connection: &mut Connection, config: &HistoryConfig) -> rusqlite::Result<()> {
    let kept = (config.keep_days * 86_400_000.0) as i64;
    let oldest = Timestamp::now().as_millisecond().saturating_sub(kept);
    while delete_entries(connection, "at < ?1", oldest)? {}
    while delete_pictures(connection, "at < ?1", oldest)? {}
    let bytes =
        |sql: &str| -> rusqlite::Result<i64> { connection.query_row(sql, [], |row| row.get(0)) };
    let entries = bytes("SELECT coalesce(sum(size), 0) FROM entries")?;
    let pictures = bytes(&format!("SELECT coalesce(sum(size), 0) FROM pictures WHERE {UNPINNED}"))?;
    shrink(connection, "entries", "1", entries, config.max_bytes)?;
    shrink(connection, "pictures", UNPINNED, pictures, config.max_picture_bytes)?;
    // What has been deleted leaves free pages behind, which new pictures take.
    Ok(())
}

/// Deletes a tenth of the pictures that no entry shows.
pub fn thin_pictures(connection: &mut Connection) -> rusqlite::Result<()> {
    let sql = format!(
        "DELETE FROM pictures WHERE row IN (SELECT row FROM pictures WHERE {UNPINNED} ORDER BY at \
         LIMIT (SELECT count(*) / 10 + 1 FROM pictures))"
    );
    connection.execute(&sql, []).map(drop)
}

fn delete_entries(connection: &Connection, which: &str, at: i64) -> rusqlite::Result<bool> {
    let sql = format!(
        "DELETE FROM entries WHERE row IN (SELECT row FROM entries WHERE {which} LIMIT {CHUNK})"
    );
    Ok(connection.execute(&sql, params![at])? > 0)
}

fn delete_pictures(connection: &Connection, which: &str, at: i64) -> rusqlite::Result<bool> {
    let sql = format!(
        "DELETE FROM pictures WHERE row IN (SELECT row FROM pictures WHERE {which} AND {UNPINNED} LIMIT {CHUNK})"
    );
    Ok(connection.execute(&sql, params![at])? > 0)
}

/// Deletes the oldest of a table until no more than `most` bytes are left of `bytes`.
fn shrink(
    connection: &Connection,
    table: &str,
    which: &str,
    bytes: i64,
    most: u64,
) -> rusqlite::Result<()> {
    let mut over = bytes.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
    while over > 0 {
        let select =
            format!("SELECT row, size FROM {table} WHERE {which} ORDER BY at, row LIMIT {CHUNK}");
        let oldest: Vec<(i64, i64)> = connection
            .prepare(&select)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        if oldest.is_empty() {
            return Ok(());
        }
        let mut delete = connection.prepare(&format!("DELETE FROM {table} WHERE row = ?1"))?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for (row, size) in oldest {
            if over <= 0 {
                break;
            }
            if let Err(error) = delete.execute([row]) {
                connection.execute_batch("ROLLBACK")?;
                return Err(error);
            }
            over -= size;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(())
}
