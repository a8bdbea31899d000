// SPDX-License-Identifier: MPL-2.0
//! What is written of an answer, an alert, a picture, a standing question.

use rusqlite::{Connection, Transaction, params};

use super::{Entry, at_of, key, ms};
use crate::config::StandingConfig;
use crate::hub::{Event, Evidence, Hub};
use crate::picture::Picture;

/// A picture belongs to a stretch if it is not farther away, in milliseconds.
const NEAR: i64 = 2000;

/// All or nothing; evidence gets its pictures.
pub fn commit(
    connection: &mut Connection,
    events: &mut [(Event, Hub)],
    pictures: &[(String, Picture)],
) -> rusqlite::Result<bool> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for (camera, picture) in pictures {
        let insert =
            "INSERT OR IGNORE INTO pictures (camera, at, size, jpeg) VALUES (?1, ?2, ?3, ?4)";
        let size = picture.jpeg.len() as i64;
        transaction.prepare_cached(insert)?.execute(params![
            camera,
            ms(picture.at),
            size,
            &picture.jpeg[..]
        ])?;
    }
    for (event, _) in events.iter_mut() {
        insert(&transaction, event)?;
    }
    transaction.commit()?;
    Ok(true)
}

fn insert(transaction: &Transaction, event: &mut Event) -> rusqlite::Result<()> {
    let (camera, evidence) = match event {
        Event::Answer(answer) => (&answer.camera, &mut answer.evidence),
        Event::Alert(alert) => (&alert.camera, &mut alert.evidence),
        _ => return Ok(()),
    };
    let mut pins = Vec::new();
    let mut pinned = 0;
    for evidence in evidence.iter_mut() {
        if let Some((row, at, size)) = picture_of(transaction, camera, evidence)? {
            evidence.picture = Some(key(camera, at));
            pins.push(row);
            pinned += size;
        }
    }
    let Some(entry) = Entry::of(event) else { return Ok(()) };
    let json = serde_json::to_string(&entry)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let (kind, camera, standing, question, answer) = match &entry {
        Entry::Answer(answer) => {
            let standing = answer.standing.is_some();
            ("answer", &answer.camera, standing, &answer.question, &answer.text)
        }
        Entry::Alert(alert) => ("alert", &alert.camera, true, &alert.question, &alert.answer),
    };
    let size = json.len() as i64 + pinned;
    let insert = "INSERT OR IGNORE INTO entries (id, kind, camera, standing, at, question, answer, json, size) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let is_new = transaction.prepare_cached(insert)?.execute(params![
        entry.id(),
        kind,
        camera,
        standing,
        ms(entry.at()),
        question,
        answer,
        json,
        size
    ])?;
    if is_new == 0 {
        return Ok(());
    }
    let row = transaction.last_insert_rowid();
    for picture in pins {
        let pin = "INSERT OR IGNORE INTO pins (entry, picture) VALUES (?1, ?2)";
        transaction.prepare_cached(pin)?.execute(params![row, picture])?;
    }
    Ok(())
}

/// The picture in the middle of a stretch, or near it.
fn picture_of(
    transaction: &Transaction,
    camera: &str,
    evidence: &Evidence,
) -> rusqlite::Result<Option<(i64, i64, i64)>> {
    use rusqlite::OptionalExtension;
    let (mut from, mut to) = (ms(evidence.from) - NEAR, ms(evidence.to) + NEAR);
    // One that has been told already, or that another machine has.
    if let Some(key) = &evidence.picture {
        let Some(at) = at_of(key, camera) else { return Ok(None) };
        (from, to) = (at, at);
    }
    let nearest = "SELECT row, at, size FROM pictures WHERE camera = ?1 AND at BETWEEN ?2 AND ?3 \
                   ORDER BY abs(at - ?4) LIMIT 1";
    let middle = from / 2 + to / 2;
    transaction
        .prepare_cached(nearest)?
        .query_row(params![camera, from, to, middle], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()
}

/// Keeps a standing question, in the place of another of its name.
pub fn keep_standing(
    connection: &Connection,
    camera: &str,
    standing: &StandingConfig,
) -> rusqlite::Result<()> {
    let json = serde_json::to_string(standing)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let id = standing.id.as_deref().unwrap_or("");
    let insert = "INSERT OR REPLACE INTO standing (camera, id, json) VALUES (?1, ?2, ?3)";
    connection.execute(insert, params![camera, id, json]).map(drop)
}

/// Forgets one.
pub fn forget_standing(connection: &Connection, camera: &str, id: &str) -> rusqlite::Result<()> {
    let delete = "DELETE FROM standing WHERE camera = ?1 AND id = ?2";
    connection.execute(delete, params![camera, id]).map(drop)
}
