// SPDX-License-Identifier: MPL-2.0
//! What is written of a question, an answer, an alert, a picture, a standing question.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::{Entry, at_of, key, ms};
use crate::config::StandingConfig;
use crate::hub::{Alert, AlertState, Answer, Event, Evidence, Hub};
use crate::picture::Picture;

/// A picture belongs to a stretch if it is not farther away, in milliseconds.
const NEAR: i64 = 2000;

/// An answer or an alert on its way to whoever listens.
#[derive(Clone)]
pub struct Record {
    pub event: Event,
    pub hub: Hub,
    /// It was there already: who listens has heard of it.
    pub is_known: bool,
}

/// All or nothing; evidence gets its pictures.
pub fn commit(
    connection: &mut Connection,
    records: &mut [Record],
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
    for record in records.iter_mut() {
        record.is_known = !insert(&transaction, &mut record.event)?;
    }
    transaction.commit()?;
    Ok(true)
}

/// Whether it was not there yet.
fn insert(transaction: &Transaction, event: &mut Event) -> rusqlite::Result<bool> {
    let (camera, evidence) = match event {
        Event::Answer(answer) => (&answer.camera, &mut answer.evidence),
        Event::Alert(alert) => (&alert.camera, &mut alert.evidence),
        _ => return Ok(true),
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
    let Some(entry) = Entry::of(event) else { return Ok(true) };
    let json = json(&entry)?;
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
        return Ok(false);
    }
    let row = transaction.last_insert_rowid();
    for picture in pins {
        let pin = "INSERT OR IGNORE INTO pins (entry, picture) VALUES (?1, ?2)";
        transaction.prepare_cached(pin)?.execute(params![row, picture])?;
    }
    match &entry {
        Entry::Answer(answer) => close_question(transaction, &answer.id)?,
        Entry::Alert(alert) => last_alert(transaction, alert)?,
    }
    Ok(true)
}

fn last_alert(connection: &Connection, alert: &Alert) -> rusqlite::Result<()> {
    let began = (alert.state == AlertState::On).then(|| ms(Timestamp::now()));
    let upsert = "INSERT INTO alerts (camera, standing, json, began) VALUES (?1, ?2, ?3, ?4) \
                  ON CONFLICT DO UPDATE SET json = excluded.json, began = coalesce(excluded.began, began)";
    connection
        .prepare_cached(upsert)?
        .execute(params![alert.camera, alert.standing, json(alert)?, began])
        .map(drop)
}

/// Nobody has been told of an alert of this question.
pub fn forget_alert(connection: &Connection, camera: &str, standing: &str) -> rusqlite::Result<()> {
    let delete = "DELETE FROM alerts WHERE camera = ?1 AND standing = ?2";
    connection.prepare_cached(delete)?.execute(params![camera, standing]).map(drop)
}

/// A question is taken; `last` is what it comes to if nothing else does.
pub fn open_question(connection: &Connection, last: &Answer) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO open (id, json) VALUES (?1, ?2)";
    connection.prepare_cached(insert)?.execute(params![last.id, json(last)?]).map(drop)
}

/// It has its last word, or was not taken.
pub fn close_question(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM open WHERE id = ?1")?.execute([id]).map(drop)
}

fn json(what: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(what)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
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
    let json = json(standing)?;
    let id = standing.id.as_deref().unwrap_or("");
    let insert = "INSERT OR REPLACE INTO standing (camera, id, json) VALUES (?1, ?2, ?3)";
    connection.execute(insert, params![camera, id, json]).map(drop)
}

/// Forgets one, and what was told of it.
pub fn forget_standing(connection: &Connection, camera: &str, id: &str) -> rusqlite::Result<()> {
    let delete = "DELETE FROM standing WHERE camera = ?1 AND id = ?2";
    connection.execute(delete, params![camera, id])?;
    forget_alert(connection, camera, id)
}
