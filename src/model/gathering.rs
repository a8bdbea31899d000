// SPDX-License-Identifier: MPL-2.0
//! Threads that want the same thing done, so that it is done for several at once: where cameras share
//! a model, their frames go through it together.
//!
//! Nobody waits for company. Who comes first begins at once; those who come meanwhile go together when
//! that is over, one of them leading. The lead is passed on whatever becomes of who has it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};

/// How often those who wait look whether they still want to.
const PATIENCE: Duration = Duration::from_millis(20);

/// What somebody wants done.
pub trait Job: Send {
    /// What members are told while it is done.
    type Word: Send;

    /// How much it is, in what [`Gathering::new`] bounds.
    fn size(&self) -> usize;

    /// Whether both can be done at once.
    fn goes_with(&self, other: &Self) -> bool;
}

/// Those who wait for one thing. The lock is held to look and to note, never over a message or work.
pub struct Gathering<J: Job> {
    queue: Mutex<Queue<J>>,
    most: usize,
}

struct Queue<J: Job> {
    /// Whether somebody leads.
    busy: bool,
    waiting: Vec<Member<J>>,
    tickets: u64,
}

/// Somebody who waits, or takes part without leading.
pub struct Member<J: Job> {
    ticket: u64,
    pub job: J,
    told: Sender<Told<J>>,
}

enum Told<J: Job> {
    Lead(Vec<Member<J>>),
    Word(J::Word),
}

impl<J: Job> Member<J> {
    /// Tells it something; whether it is still there to hear.
    pub fn tell(&self, word: J::Word) -> bool {
        self.told.send(Told::Word(word)).is_ok()
    }
}

/// How somebody comes in.
pub enum Entered<'a, J: Job> {
    /// Nobody else is there.
    First(Turn<'a, J>),
    Waits(Place<'a, J>),
}

/// What somebody who waits hears.
pub enum Heard<'a, J: Job> {
    /// Its turn has come, with these others.
    Lead(Turn<'a, J>, Vec<Member<J>>),
    Word(J::Word),
    /// Who led is gone without a word.
    Nothing,
}

/// The lead, which goes to those who wait when it is dropped.
pub struct Turn<'a, J: Job>(&'a Gathering<J>);

/// A place among those who wait.
pub struct Place<'a, J: Job> {
    gathering: &'a Gathering<J>,
    ticket: u64,
    hears: Receiver<Told<J>>,
}

impl<J: Job> Gathering<J> {
    /// `most`: the size of what is done at once, unless one alone is larger.
    pub fn new(most: usize) -> Self {
        let queue = Queue { busy: false, waiting: Vec::new(), tickets: 0 };
        Self { queue: Mutex::new(queue), most }
    }

    /// `job` is made only if it has to wait.
    pub fn enter(&self, job: impl FnOnce() -> J) -> Entered<'_, J> {
        let (told, hears) = channel();
        let mut queue = self.queue.lock();
        if !queue.busy {
            queue.busy = true;
            return Entered::First(Turn(self));
        }
        queue.tickets += 1;
        let ticket = queue.tickets;
        queue.waiting.push(Member { ticket, job: job(), told });
        Entered::Waits(Place { gathering: self, ticket, hears })
    }

    /// Those who go together next, who has waited longest first.
    fn next(&self) -> Option<(Member<J>, Vec<Member<J>>)> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.busy = false;
            return None;
        }
        let first = queue.waiting.remove(0);
        let mut room = self.most.saturating_sub(first.job.size());
        let mut others = Vec::new();
        let mut rest = Vec::new();
        for member in queue.waiting.drain(..) {
            if member.job.size() <= room && member.job.goes_with(&first.job) {
                room -= member.job.size();
                others.push(member);
            } else {
                rest.push(member);
            }
        }
        queue.waiting = rest;
        Some((first, others))
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    #[cfg(test)]
    pub fn is_busy(&self) -> bool {
        self.queue.lock().busy
    }
}

impl<J: Job> Drop for Turn<'_, J> {
    fn drop(&mut self) {
        while let Some((first, others)) = self.0.next() {
            let Err(unheard) = first.told.send(Told::Lead(others)) else { return };
            // It has gone; somebody else is to lead them.
            if let Told::Lead(others) = unheard.0 {
                self.0.queue.lock().waiting.splice(0..0, others);
            }
        }
    }
}

impl<'a, J: Job> Place<'a, J> {
    /// Waits for what comes next.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] once the flag is raised, unless its turn has come.
    pub fn hear(&self, cancel: &Cancel) -> Result<Heard<'a, J>> {
        loop {
            match self.hears.recv_timeout(PATIENCE) {
                Ok(Told::Lead(others)) => return Ok(Heard::Lead(Turn(self.gathering), others)),
                Ok(Told::Word(word)) => return Ok(Heard::Word(word)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Heard::Nothing),
                Err(RecvTimeoutError::Timeout) => {
                    if cancel.is_raised() && self.leave() {
                        return Err(EngineError::Cancelled);
                    }
                }
            }
        }
    }

    /// Whether it could be taken off the list: it has not been called yet.
    fn leave(&self) -> bool {
        let mut queue = self.gathering.queue.lock();
        let before = queue.waiting.len();
        queue.waiting.retain(|member| member.ticket != self.ticket);
        queue.waiting.len() < before
    }
}
