// SPDX-License-Identifier: MPL-2.0
//! Looking back: entries by words, camera, kind and time; pictures by time and by name.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Entry, History, HistoryError, key, ms, schema};
use crate::config::StandingConfig;
use crate::hub::{Answer, LastAlert};

/// Connections that wait for readers.
const IDLE: usize = 4;
/// Moments in one answer.
const MOST_MOMENTS: usize = 120;

/// What is looked for; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Words that question and answer hold, or words that begin so.
    pub q: Option<String>,
    /// [`crate::hub::Camera::id`].
    pub camera: Option<String>,
    /// Answers or alerts; both where nothing is said.
    pub kind: Option<Kind>,
    /// Whether it is of a standing question; both where nothing is said.
    pub standing: Option<bool>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Not after.
    pub to: Option<Timestamp>,
    /// Older than this entry, or than this moment.
    pub before: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Questions and their answers.
    Answer,
    /// Alerts.
    Alert,
}

/// A picture of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Moment {
    /// When it was seen.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Its name.
    pub picture: String,
}

impl History {
    /// Entries, the newest first. Reads the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(&self, query: &Query) -> Result<Vec<Entry>, HistoryError> {
        let (sql, values) = select(query);
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows =
                statement.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
            rows.map(|json| Ok(serde_json::from_str(&json?)?)).collect()
        })
    }

    /// One entry.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entry(&self, id: &str) -> Result<Option<Entry>, HistoryError> {
        self.read(|connection| {
            let json = connection
                .prepare_cached("SELECT json FROM entries WHERE id = ?1")?
                .query_row([id], |row| row.get::<_, String>(0))
                .optional()?;
            Ok(json.map(|json| serde_json::from_str(&json)).transpose()?)
        })
    }

    /// A picture by its name. Reads the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn picture(&self, name: &str) -> Result<Option<Vec<u8>>, HistoryError> {
        let Some((camera, at)) = name.rsplit_once('-') else { return Ok(None) };
        let Ok(at) = at.parse::<i64>() else { return Ok(None) };
        self.read(|connection| {
            let select = "SELECT jpeg FROM pictures WHERE camera = ?1 AND at = ?2";
            Ok(connection
                .prepare_cached(select)?
                .query_row(params![camera, at], |row| row.get(0))
                .optional()?)
        })
    }

    /// Pictures of a camera around a moment, `around` seconds to both sides, evenly chosen where there are many.
    /// Reads the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn moments(
        &self,
        camera: &str,
        at: Timestamp,
        around: f64,
    ) -> Result<Vec<Moment>, HistoryError> {
        let around = (around.clamp(0.0, 86_400.0) * 1e3) as i64;
        let (from, to) = (ms(at) - around, ms(at) + around);
        let all: Vec<i64> = self.read(|connection| {
            let select =
                "SELECT at FROM pictures WHERE camera = ?1 AND at BETWEEN ?2 AND ?3 ORDER BY at";
            let mut statement = connection.prepare_cached(select)?;
            let rows = statement.query_map(params![camera, from, to], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let step = all.len().div_ceil(MOST_MOMENTS).max(1);
        let moment = |at: i64| {
            Some(Moment { at: Timestamp::from_millisecond(at).ok()?, picture: key(camera, at) })
        };
        Ok(all.into_iter().step_by(step).filter_map(moment).collect())
    }

    /// Questions that were taken and have no last word: the one that each gets if the wall that took it was killed.
    /// None where it cannot be read.
    pub fn left_open(&self) -> Vec<Answer> {
        let read = self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT json FROM open ORDER BY id")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|json| Ok(serde_json::from_str(&json?)?)).collect()
        });
        read.unwrap_or_else(|error| {
            tracing::warn!("the questions that were left open cannot be read: {error}");
            Vec::new()
        })
    }

    /// What was last told of a camera's alerts; nothing where it cannot be read.
    pub fn last_alerts(&self, camera: &str) -> Vec<LastAlert> {
        let read = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT json, began FROM alerts WHERE camera = ?1")?;
            let rows = statement.query_map([camera], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
            })?;
            rows.map(|row| {
                let (json, began) = row?;
                let began = began.and_then(|began| Timestamp::from_millisecond(began).ok());
                Ok(LastAlert { alert: serde_json::from_str(&json)?, began })
            })
            .collect()
        });
        read.unwrap_or_else(|error| {
            tracing::warn!("the alerts of {camera} cannot be read: {error}");
            Vec::new()
        })
    }

    /// The standing questions of a camera that are kept here; none where it cannot be read.
    pub fn standing(&self, camera: &str) -> Vec<StandingConfig> {
        let read = self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT json FROM standing WHERE camera = ?1 ORDER BY id")?;
            let rows = statement.query_map([camera], |row| row.get::<_, String>(0))?;
            rows.map(|json| Ok(serde_json::from_str(&json?)?)).collect()
        });
        read.unwrap_or_else(|error| {
            tracing::warn!("the standing questions of {camera} cannot be read: {error}");
            Vec::new()
        })
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let idle = self.inner.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_to_read(&self.inner.folder)?,
        };
        let found = look(&connection)?;
        let mut readers = self.inner.readers.lock();
        if readers.len() < IDLE {
            readers.push(connection);
        }
        Ok(found)
    }
}

fn select(query: &Query) -> (String, Vec<Value>) {
    let mut sql = "SELECT json FROM entries WHERE 1".to_string();
    let mut values: Vec<Value> = Vec::new();
    let mut and = |sql: &mut String, condition: &str, value: Value| {
        values.push(value);
        sql.push_str(" AND ");
        sql.push_str(&condition.replace('?', &format!("?{}", values.len())));
    };
    match query.q.as_deref().filter(|text| !text.trim().is_empty()).map(words) {
        Some(words) if words.is_empty() => sql.push_str(" AND 0"),
        Some(words) => {
            and(&mut sql, "row IN (SELECT rowid FROM words WHERE words MATCH ?)", words.into());
        }
        None => {}
    }
    if let Some(camera) = &query.camera {
        and(&mut sql, "camera = ?", camera.clone().into());
    }
    if let Some(kind) = query.kind {
        let kind = if kind == Kind::Answer { "answer" } else { "alert" };
        and(&mut sql, "kind = ?", kind.to_string().into());
    }
    match query.standing {
        Some(true) => sql.push_str(" AND standing"),
        Some(false) => sql.push_str(" AND NOT standing"),
        None => {}
    }
    if let Some(from) = query.from {
        and(&mut sql, "at >= ?", ms(from).into());
    }
    if let Some(to) = query.to {
        and(&mut sql, "at <= ?", ms(to).into());
    }
    match query.before.as_ref().map(|before| (before, before.parse::<Timestamp>())) {
        Some((_, Ok(moment))) => and(&mut sql, "at < ?", ms(moment).into()),
        Some((id, Err(_))) => {
            and(
                &mut sql,
                "(at, row) < (SELECT at, row FROM entries WHERE id = ?)",
                id.clone().into(),
            );
        }
        None => {}
    }
    sql.push_str(" ORDER BY at DESC, row DESC LIMIT ");
    sql.push_str(&query.limit.unwrap_or(50).to_string());
    (sql, values)
}

/// Every word, or one that begins so; whatever it is written with, it is no operator. Signs beside words are passed over.
fn words(text: &str) -> String {
    let apart = |c: char| c.is_whitespace() || c.is_control();
    let words = text.split(apart).filter(|word| word.contains(char::is_alphanumeric));
    let quoted = words.map(|word| format!("\"{}\"*", word.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(" ")
}
