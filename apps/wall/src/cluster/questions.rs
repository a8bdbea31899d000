// SPDX-License-Identifier: MPL-2.0
//! Questions to cameras wherever they are. Each is a record, written before its asker is told that it is taken,
//! and it becomes answered by a write that names the revision without an answer: the first answer stands, and
//! there is no second. Whoever has the camera, now or later, finds the open ones and asks them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::clock::{self, Moment};
use super::records::Asked;
use super::store::{Store, Written, read, value, write};
use super::{Shared, pictures};
use crate::config;
use crate::hub::{Answer, AnswerId, Event, Question, Refused, new_id};

/// Answers that are remembered as told.
const TOLD: usize = 100_000;
/// For so long a question waits for a camera that cannot answer.
const LONGEST: Duration = Duration::from_secs(600);
/// In the place of a lease: this wall is ending the question.
const NOBODY: u64 = 0;
/// Between two tries to ask a camera that cannot answer yet.
const AGAIN: Duration = Duration::from_millis(300);

#[derive(Default)]
pub(super) struct Questions {
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// Without an answer.
    open: BTreeMap<AnswerId, Open>,
    /// Those that a camera here has been asked, or is about to be, with the lease.
    asking: BTreeMap<AnswerId, u64>,
    /// Those whose answers have been told here.
    told: BTreeSet<AnswerId>,
}

/// A question without an answer.
#[derive(Clone)]
struct Open {
    camera: String,
    /// Of its record.
    revision: u64,
    record: Asked,
    /// Since when this wall knows of it.
    since: Moment,
}

impl Questions {
    /// Questions without an answer.
    pub fn open(&self) -> usize {
        self.now.lock().open.len()
    }

    /// Whether this id is a question of the cluster's, and not a standing one's asking.
    pub fn knows(&self, id: &str) -> bool {
        let now = self.now.lock();
        now.open.contains_key(id) || now.asking.contains_key(id) || now.told.contains(id)
    }

    /// A camera here does not have these any more: whoever has it next asks them.
    pub fn leave(&self, camera: &str) {
        let mut now = self.now.lock();
        let Now { open, asking, .. } = &mut *now;
        asking.retain(|id, _| open.get(id).is_none_or(|open| open.camera != camera));
    }
}

/// Writes a question down; from then on it has an answer sooner or later.
pub(super) async fn ask(
    shared: &Shared,
    camera: &str,
    mut question: Question,
) -> Result<AnswerId, Refused> {
    config::check_question(&question.text, &question.choices).map_err(Refused::Bad)?;
    if question.from.zip(question.to).is_some_and(|(from, to)| from > to) {
        return Err(Refused::Bad("\"from\" is later than \"to\"".into()));
    }
    if !shared.view.lock().cameras.contains_key(camera) {
        // One does not know the list before the server has been there.
        shared.store()?;
        return Err(Refused::NoCamera(camera.to_owned()));
    }
    let store = shared.store()?;
    let id = question.id.get_or_insert_with(new_id).clone();
    if !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        || id.is_empty()
        || id.len() > 64
    {
        return Err(Refused::Bad("an id has up to 64 letters, digits, - and _".into()));
    }
    let asked = Asked { question, asked: Timestamp::now(), answer: None, by: None, life: None };
    match write(&store.questions, &format!("{camera}.{id}"), &asked, 0, shared.patience()).await {
        // The same question under the same id: it has been taken.
        Written::Yes(_) | Written::Late => Ok(id),
        Written::Unknown(reason) => {
            Err(Refused::NotNow(format!("the question could not be written down: {reason}")))
        }
    }
}

/// Follows all questions until the watch ends.
pub(super) async fn follow(shared: &Arc<Shared>, store: &Store) -> Result<(), String> {
    let watch = store.questions.watch_with_history(">").await;
    let mut watch = watch.map_err(|error| error.to_string())?;
    while let Some(entry) = watch.next().await {
        see(shared, &entry.map_err(|error| error.to_string())?);
        ask_open(shared, store);
    }
    Err("the watch of the questions ended".into())
}

fn see(shared: &Shared, entry: &kv::Entry) {
    let Some((camera, id)) = entry.key.split_once('.') else { return };
    let Some(asked) = value::<Asked>(entry) else {
        shared.questions.now.lock().open.remove(id);
        return;
    };
    let Some(answer) = asked.answer.clone() else {
        let mut now = shared.questions.now.lock();
        if !now.told.contains(id) {
            let since = now.open.get(id).map_or_else(clock::now, |open| open.since);
            let (camera, revision) = (camera.to_owned(), entry.revision);
            now.open.insert(id.to_owned(), Open { camera, revision, record: asked, since });
        }
        return;
    };
    {
        let mut now = shared.questions.now.lock();
        now.open.remove(id);
        now.asking.remove(id);
        if !now.told.insert(id.to_owned()) {
            return;
        }
        if now.told.len() > TOLD {
            now.told.pop_first();
        }
    }
    // Told from here alone, by every wall: so it is told once, whoever answered.
    let by_us = asked.life.as_deref() == Some(&shared.life);
    if by_us {
        shared.own.publish(Event::Answer(answer.clone()));
    }
    shared.all.publish(Event::Answer(answer));
}

/// Asks those of the open questions whose cameras are watched here, and ends those that nobody can ask.
pub(super) fn ask_open(shared: &Arc<Shared>, store: &Store) {
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    {
        let view = shared.view.lock();
        let mut now = shared.questions.now.lock();
        let Now { open, asking, .. } = &mut *now;
        for (id, Open { camera, record, since, .. }) in open.iter() {
            let Some(epoch) = shared.leases.keeps(camera) else {
                let (moment, lasts) = (clock::now(), shared.leases.lasts);
                let is_late = moment.saturating_sub(*since) > LONGEST;
                let why = if !view.cameras.contains_key(camera) && shared.knows_all() {
                    "the camera has left the wall"
                } else if is_late && view.holder(camera, moment, lasts).is_none() {
                    "no wall has watched the camera for ten minutes"
                } else {
                    continue;
                };
                if asking.insert(id.clone(), NOBODY) == Some(NOBODY) {
                    continue;
                }
                end.push(Answer::none(id.clone(), camera, &record.question, record.asked, why));
                continue;
            };
            if asking.get(id) != Some(&epoch) {
                asking.insert(id.clone(), epoch);
                begin.push((camera.clone(), epoch, record.question.clone()));
            }
        }
    }
    for answer in end {
        // Others may end it, too: the first word stands.
        tokio::spawn(write_answer(shared.clone(), store.clone(), answer, |_, _| true));
    }
    for (camera, epoch, question) in begin {
        tokio::spawn(ask_here(shared.clone(), store.clone(), camera, epoch, question));
    }
}

/// Asks a camera of this process as soon as it takes questions.
async fn ask_here(
    shared: Arc<Shared>,
    store: Store,
    camera: String,
    epoch: u64,
    question: Question,
) {
    let Some(id) = question.id.clone() else { return };
    let begin = clock::now();
    loop {
        let is_ours = shared.leases.keeps(&camera) == Some(epoch);
        let is_open = shared.questions.now.lock().open.contains_key(&id);
        if !is_ours || !is_open {
            let mut now = shared.questions.now.lock();
            if now.asking.get(&id) == Some(&epoch) {
                now.asking.remove(&id);
            }
            return;
        }
        let reason = match shared.local.ask(&camera, question.clone()).await {
            Ok(_) => return,
            Err(refused) if clock::now().saturating_sub(begin) > LONGEST => refused.to_string(),
            // It is being started.
            Err(Refused::NotNow(_) | Refused::NoCamera(_)) => {
                sleep(AGAIN).await;
                continue;
            }
            Err(refused) => refused.to_string(),
        };
        let answer = Answer::none(id, &camera, &question, Timestamp::now(), reason);
        return answered(shared, store, answer).await;
    }
}

/// A camera here has given its last word: it stands if the camera is still this wall's and nobody was faster.
pub(super) async fn answered(shared: Arc<Shared>, store: Store, mut answer: Answer) {
    pictures::name(&shared, &answer.camera, &mut answer.evidence).await;
    // A camera that is stopped because it goes elsewhere ends its questions with an error, which is not their
    // last word; nor is any of a wall whose lease is over.
    let may = |shared: &Shared, answer: &Answer| match &answer.error {
        Some(_) => shared.leases.keeps(&answer.camera).is_some(),
        None => shared.leases.holds(&answer.camera).is_some(),
    };
    write_answer(shared, store, answer, may).await;
}

async fn write_answer(
    shared: Arc<Shared>,
    store: Store,
    mut answer: Answer,
    may: fn(&Shared, &Answer) -> bool,
) {
    let key = format!("{}.{}", answer.camera, answer.id);
    loop {
        let open = shared.questions.now.lock().open.get(&answer.id).cloned();
        let Some(Open { revision, record: mut asked, .. }) = open else { return };
        if !may(&shared, &answer) {
            return;
        }
        answer.source = asked.question.source;
        asked.answer = Some(answer.clone());
        asked.by = Some(shared.host.clone());
        asked.life = Some(shared.life.clone());
        match write(&store.questions, &key, &asked, revision, shared.patience()).await {
            Written::Yes(_) => return,
            Written::Late => {
                // Somebody's answer stands, ours perhaps: the watch tells. Or it was taken away.
                match read::<Asked>(&store.questions, &key, shared.patience()).await {
                    Ok(Some((revision, Some(stands)))) if stands.answer.is_none() => {
                        let mut now = shared.questions.now.lock();
                        if let Some(open) = now.open.get_mut(&answer.id) {
                            open.revision = revision;
                        }
                    }
                    Ok(_) => return,
                    Err(_) => sleep(AGAIN).await,
                }
            }
            Written::Unknown(_) => sleep(AGAIN).await,
        }
    }
}
