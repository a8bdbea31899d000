// SPDX-License-Identifier: MPL-2.0
//! What the page shows of a connection to another system.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::hub::{Broker, BrokerKind, BrokerState, Event, Hub};

/// Tells a hub how a connection is, whenever that has changed.
pub(crate) struct Link {
    hub: Hub,
    now: Mutex<Broker>,
}

impl Link {
    /// A connection that is being tried.
    pub fn new(hub: Hub, name: &str, kind: BrokerKind) -> Self {
        let now = Broker {
            name: name.into(),
            kind,
            state: BrokerState::Connecting,
            reason: None,
            next_try: None,
            waiting: 0,
        };
        hub.publish(Event::Broker(now.clone()));
        Link { hub, now: Mutex::new(now) }
    }

    /// Messages go out; `waiting` of them have not yet.
    pub fn connected(&self, waiting: usize) {
        self.change(|broker| {
            broker.state = BrokerState::Connected;
            broker.reason = None;
            broker.next_try = None;
            broker.waiting = waiting as u64;
        });
    }

    /// They do not, and it is tried again in `wait`.
    pub fn failed(&self, reason: impl Into<String>, wait: Duration, waiting: usize) {
        let wait = SignedDuration::try_from(wait).unwrap_or_default();
        self.change(|broker| {
            broker.state = BrokerState::Failed;
            broker.reason = Some(reason.into());
            broker.next_try = Timestamp::now().checked_add(wait).ok();
            broker.waiting = waiting as u64;
        });
    }

    /// One more thing to know of a connection that works, such as a message that was refused.
    pub fn remark(&self, reason: impl Into<String>) {
        self.change(|broker| broker.reason = Some(reason.into()));
    }

    /// So many messages have not gone out.
    pub fn waiting(&self, waiting: usize) {
        self.change(|broker| broker.waiting = waiting as u64);
    }

    fn change(&self, change: impl FnOnce(&mut Broker)) {
        let told = {
            let mut now = self.now.lock();
            let before = now.clone();
            change(&mut now);
            (*now != before).then(|| now.clone())
        };
        if let Some(broker) = told {
            self.hub.publish(Event::Broker(broker));
        }
    }
}
