// SPDX-License-Identifier: MPL-2.0
//! Messages on their way to a broker: kept until it has acknowledged them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

/// A message, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
    /// Handed to the connection.
    sent: bool,
    /// A newer one of its topic does not take its place.
    stays: bool,
    /// The number under which the broker acknowledges it.
    packet: Option<u16>,
}

/// What waits, in the order in which it came. Of what a broker retains only the newest counts, so there are as
/// many of these as topics; of all else at most `bound` wait, and the oldest leave.
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    retained: BTreeMap<String, Bytes>,
    bound: usize,
    /// Messages that had to leave.
    pub lost: u64,
}

impl Outbox {
    pub fn new(bound: usize) -> Self {
        Outbox { waiting: VecDeque::new(), retained: BTreeMap::new(), bound, lost: 0 }
    }

    /// A message that happens once.
    pub fn tell(&mut self, topic: String, payload: impl Into<Bytes>) {
        self.push(topic, payload.into(), false);
        let once = self.waiting.iter().filter(|message| !message.retain).count();
        if once > self.bound
            && let Some(oldest) = self.waiting.iter().position(|message| !message.retain)
        {
            self.waiting.remove(oldest);
            self.lost += 1;
        }
    }

    /// What is so from now on, which the broker tells whoever comes later. Not sent if it is so already.
    pub fn set(&mut self, topic: String, payload: impl Into<Bytes>) {
        let payload = payload.into();
        if self.retained.get(&topic) == Some(&payload) {
            return;
        }
        self.retained.insert(topic.clone(), payload.clone());
        self.put_retained(topic, payload);
    }

    /// Whether something is so there.
    pub fn is_set(&self, topic: &str) -> bool {
        self.retained.contains_key(topic)
    }

    /// Nothing is so there any longer.
    pub fn clear(&mut self, topic: &str) {
        self.retained.remove(topic);
        self.put_retained(topic.to_owned(), Bytes::new());
    }

    /// Clears every topic that begins so.
    pub fn clear_below(&mut self, prefix: &str) {
        self.clear_except(prefix, &BTreeSet::new());
    }

    /// Clears every topic that begins so, but for those in `kept`.
    pub fn clear_except(&mut self, prefix: &str, kept: &BTreeSet<String>) {
        let of_it = |topic: &&String| topic.starts_with(prefix) && !kept.contains(*topic);
        let gone: Vec<String> = self.retained.keys().filter(of_it).cloned().collect();
        for topic in gone {
            self.clear(&topic);
        }
    }

    /// Has a message retained that the next [`Outbox::set`] replaces, and that is sent all the same.
    pub fn tell_retained(&mut self, topic: String, payload: impl Into<Bytes>) {
        self.retained.remove(&topic);
        self.push(topic, payload.into(), true);
        if let Some(message) = self.waiting.back_mut() {
            message.stays = true;
        }
    }

    /// What the broker is told about these topics is no longer this wall's to say.
    pub fn forget_below(&mut self, prefix: &str) {
        self.retained.retain(|topic, _| !topic.starts_with(prefix));
        self.waiting.retain(|message| {
            !(message.retain && !message.sent && message.topic.starts_with(prefix))
        });
    }

    fn put_retained(&mut self, topic: String, payload: Bytes) {
        let unsent = |message: &&mut Message| {
            message.retain && !message.sent && !message.stays && message.topic == topic
        };
        match self.waiting.iter_mut().find(unsent) {
            Some(message) => message.payload = payload,
            None => self.push(topic, payload, true),
        }
    }

    fn push(&mut self, topic: String, payload: Bytes, retain: bool) {
        self.waiting.push_back(Message {
            topic,
            payload,
            retain,
            sent: false,
            stays: false,
            packet: None,
        });
    }

    /// A new connection: nothing is on its way, and the broker may have forgotten what it retained.
    pub fn connected(&mut self) {
        for message in &mut self.waiting {
            message.sent = false;
            message.packet = None;
        }
        let retained = self.retained.clone();
        for (topic, payload) in retained {
            self.put_retained(topic, payload);
        }
    }

    /// The next message to send while fewer than `window` are on their way.
    pub fn next(&mut self, window: usize) -> Option<&mut Message> {
        let on_their_way = self.waiting.iter().filter(|message| message.sent).count();
        if on_their_way >= window {
            return None;
        }
        self.waiting.iter_mut().find(|message| !message.sent)
    }

    /// The connection has given this number to the oldest message it was handed that has none.
    pub fn numbered(&mut self, packet: u16) {
        if let Some(message) =
            self.waiting.iter_mut().find(|message| message.sent && message.packet.is_none())
        {
            message.packet = Some(packet);
        }
    }

    /// The broker has it.
    pub fn acknowledged(&mut self, packet: u16) {
        if let Some(place) = self.waiting.iter().position(|message| message.packet == Some(packet))
        {
            self.waiting.remove(place);
        }
    }

    /// How many the broker does not have yet.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Message {
    /// It has been handed to the connection.
    pub fn sent(&mut self) {
        self.sent = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send_all(outbox: &mut Outbox) -> Vec<(String, String)> {
        let mut sent = Vec::new();
        while let Some(message) = outbox.next(usize::MAX) {
            message.sent();
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            sent.push((message.topic.clone(), text));
        }
        sent
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(topic, text)| ((*topic).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_its_order() {
        let mut outbox = Outbox::new(10);
        for text in ["1", "2", "3"] {
            outbox.tell("t".into(), text);
        }
        assert_eq!(send_all(&mut outbox).len(), 3);
        for packet in 1..=3 {
            outbox.numbered(packet);
        }
        outbox.acknowledged(2);
        assert_eq!(send_all(&mut outbox), []);
        outbox.connected();
        assert_eq!(send_all(&mut outbox), pairs(&[("t", "1"), ("t", "3")]));
    }

    #[test]
    fn of_what_is_retained_the_newest_counts_and_a_new_connection_is_told_all_of_it() {
        let mut outbox = Outbox::new(10);
        outbox.set("a/x".into(), "1");
        outbox.set("a/x".into(), "2");
        outbox.set("b".into(), "3");
        assert_eq!(send_all(&mut outbox), pairs(&[("a/x", "2"), ("b", "3")]));
        outbox.numbered(1);
        outbox.numbered(2);
        outbox.acknowledged(1);
        outbox.acknowledged(2);
        outbox.set("b".into(), "3");
        assert_eq!(outbox.len(), 0, "it is so already");
        outbox.clear_below("a/");
        outbox.connected();
        assert_eq!(send_all(&mut outbox), pairs(&[("a/x", ""), ("b", "3")]));
    }

    #[test]
    fn the_oldest_of_what_happens_once_leaves_at_the_bound() {
        let mut outbox = Outbox::new(2);
        outbox.set("s".into(), "kept");
        for text in ["1", "2", "3"] {
            outbox.tell("t".into(), text);
        }
        assert_eq!(send_all(&mut outbox), pairs(&[("s", "kept"), ("t", "2"), ("t", "3")]));
        assert_eq!(outbox.lost, 1);
    }

    #[test]
    fn no_more_than_a_window_is_on_its_way() {
        let mut outbox = Outbox::new(10);
        for text in ["1", "2", "3"] {
            outbox.tell("t".into(), text);
        }
        outbox.next(2).unwrap().sent();
        outbox.next(2).unwrap().sent();
        assert!(outbox.next(2).is_none());
        outbox.numbered(7);
        outbox.acknowledged(7);
        assert_eq!(outbox.next(2).unwrap().payload, "3");
    }
}
