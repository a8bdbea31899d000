// SPDX-License-Identifier: MPL-2.0
//! What is true of a stream as far as it has run.
//!
//! A visit is a thing being there without interruption. Questions about one thing mention one
//! that has had exactly one visit, so that they have one answer.

use std::ops::Range;

use crate::clip::Pose;
use crate::kind::{Kind, MAX_CAME_BY, MAX_NOW, Subject};
use crate::noun::Noun;
use crate::question::Fact;
use crate::stream::Segment;
use crate::visit::{History, Visit, constant};
use crate::words::{Ago, Category, Distance, Place};

/// A thing seen before is worth this many that were not, when absence is asked about.
const MISSED: usize = 6;

/// A stream as far as it has run.
pub struct Moment<'a> {
    history: &'a History<'a>,
    /// The visits begun, cut off at this moment.
    visits: Vec<Visit>,
    after_frame: usize,
}

impl<'a> Moment<'a> {
    pub fn new(history: &'a History<'a>, after_frame: usize) -> Self {
        let begun = history.visits.partition_point(|visit| visit.start <= after_frame);
        let mut visits = history.visits[..begun].to_vec();
        for visit in &mut visits {
            visit.poses.truncate(after_frame + 1 - visit.start);
        }
        Self { history, visits, after_frame }
    }

    /// Everything of `kind` that can be asked at this moment.
    pub fn facts(&self, kind: Kind) -> Vec<Fact> {
        match kind {
            Kind::Now => self.now(),
            Kind::ExistsNow => self.existence(),
            Kind::CountNow => self.count_now(),
            Kind::WhereNow => {
                self.of_present(|pose| Place::of(pose.x).map(|place| place.word().into()))
            }
            Kind::DistanceNow => self
                .of_present(|pose| Distance::of(pose.size).map(|distance| distance.word().into())),
            Kind::KindNow => self.kind_now(),
            Kind::DidAppear => self.appearance(),
            Kind::WhereWas => self.of_gone(|visit| visit.place().map(|place| place.word().into())),
            Kind::DistanceWas => {
                self.of_gone(|visit| visit.distance().map(|distance| distance.word().into()))
            }
            Kind::KindWas => self.kind_was(),
            Kind::Beside => self.beside(),
            Kind::WhichWay => self.of_gone(|visit| visit.way().map(|way| way.word().into())),
            Kind::LightWhen => self.of_gone(|visit| Some(visit.light.word().into())),
            Kind::First => self.edge(self.visits.first()),
            Kind::Last => self.edge(self.visits.last()),
            Kind::After => self.neighbours(true),
            Kind::Before => self.neighbours(false),
            Kind::CameBy => self.came_by(),
            Kind::When => self.of_gone(|visit| {
                Ago::of(self.after_frame + 1 - visit.end()).map(|ago| ago.word().into())
            }),
            Kind::LightNow => self.of_frame(self.segment().light().word()),
            Kind::SceneNow => self.of_frame(self.segment().roll().camera.scenery.word()),
        }
    }

    fn segment(&self) -> &Segment {
        self.history.stream.segment_at(self.after_frame)
    }

    fn newest(&self) -> Vec<Range<usize>> {
        std::iter::once(self.after_frame..self.after_frame + 1).collect()
    }

    fn of_frame(&self, answer: &str) -> Vec<Fact> {
        vec![Fact { subject: Subject::None, answer: answer.into(), relevant: self.newest() }]
    }

    /// The visits that go on.
    fn present(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(|visit| visit.end() == self.after_frame + 1)
    }

    fn visits_of(&self, noun: Noun) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(move |visit| visit.noun == noun)
    }

    /// The things seen so far, each once.
    fn seen(&self) -> Vec<Noun> {
        let mut nouns: Vec<Noun> = self.visits.iter().map(|visit| visit.noun).collect();
        nouns.sort_unstable();
        nouns.dedup();
        nouns
    }

    /// The visits of things that have had one.
    fn lone(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(|visit| self.visits_of(visit.noun).count() == 1)
    }

    fn now(&self) -> Vec<Fact> {
        let mut nouns: Vec<Noun> = self.present().map(|visit| visit.noun).collect();
        nouns.sort_unstable();
        nouns.dedup();
        match nouns.as_slice() {
            [] => self.of_frame("nothing"),
            [noun] => self.of_frame(noun.name()),
            _ => Vec::new(),
        }
    }

    fn fact(subject: Noun, answer: &str, relevant: Vec<Range<usize>>) -> Fact {
        Fact { subject: Subject::Noun(subject), answer: answer.into(), relevant }
    }

    /// Things that are not there, those seen before more often.
    fn absent(&self) -> Vec<Noun> {
        let here = |noun: Noun| self.present().any(|visit| visit.noun == noun);
        let missed: Vec<Noun> = self.seen().into_iter().filter(|&noun| !here(noun)).collect();
        let mut absent: Vec<Noun> = missed.repeat(MISSED);
        absent.extend(self.history.known.iter().filter(|&&noun| !here(noun)));
        absent
    }

    fn existence(&self) -> Vec<Fact> {
        let yes = self.present().map(|visit| Self::fact(visit.noun, "yes", self.newest()));
        // Where nothing is, everything is absent, and nobody had to look.
        let somebody = self.present().next().is_some();
        let keep = |index: usize| somebody || index.is_multiple_of(8);
        let absent = self.absent();
        let no = absent.iter().enumerate().filter(|(index, _)| keep(*index));
        yes.chain(no.map(|(_, &noun)| Self::fact(noun, "no", self.newest()))).collect()
    }

    fn count_now(&self) -> Vec<Fact> {
        let count = |noun: Noun| self.present().filter(|visit| visit.noun == noun).count();
        let some = self.present().map(|visit| (visit.noun, count(visit.noun)));
        some.chain(self.absent().into_iter().map(|noun| (noun, 0)))
            .filter(|(_, count)| *count <= MAX_NOW)
            .map(|(noun, count)| Self::fact(noun, &count.to_string(), self.newest()))
            .collect()
    }

    fn of_present(&self, answer: impl Fn(&Pose) -> Option<String>) -> Vec<Fact> {
        let alone = |noun: Noun| self.present().filter(|visit| visit.noun == noun).count() == 1;
        self.present()
            .filter(|visit| alone(visit.noun))
            .filter_map(|visit| {
                let answer = answer(visit.poses.last()?)?;
                Some(Self::fact(visit.noun, &answer, self.newest()))
            })
            .collect()
    }

    fn kind_now(&self) -> Vec<Fact> {
        match constant(self.present().map(|visit| Some(visit.noun.category()))) {
            Some(category) => self.of_frame(category.word()),
            None => Vec::new(),
        }
    }

    fn appearance(&self) -> Vec<Fact> {
        let seen = self.seen();
        let here = |noun: Noun| self.present().any(|visit| visit.noun == noun);
        let gone = seen
            .iter()
            .filter(|&&noun| !here(noun))
            .map(|&noun| Self::fact(noun, "yes", self.visits_of(noun).map(Visit::range).collect()));
        let never = self.history.known.iter().filter(|noun| !seen.contains(noun));
        gone.chain(never.map(|&noun| Self::fact(noun, "no", Vec::new()))).collect()
    }

    /// Of things that came once and have gone.
    fn of_gone(&self, answer: impl Fn(&Visit) -> Option<String>) -> Vec<Fact> {
        self.lone()
            .filter(|visit| visit.end() <= self.after_frame)
            .filter_map(|visit| Some(Self::fact(visit.noun, &answer(visit)?, vec![visit.range()])))
            .collect()
    }

    /// The only thing of each category.
    fn kind_was(&self) -> Vec<Fact> {
        let seen = self.seen();
        let of = |&category: &Category| {
            let mut those = seen.iter().filter(|noun| noun.category() == category);
            let (noun, None) = (*those.next()?, those.next()) else { return None };
            Some(Fact {
                subject: Subject::Category(category),
                answer: noun.name().into(),
                relevant: self.visits_of(noun).map(Visit::range).collect(),
            })
        };
        Category::ALL.iter().filter_map(of).collect()
    }

    fn beside(&self) -> Vec<Fact> {
        let of = |visit: &Visit| {
            let others: Vec<&Visit> = self
                .visits
                .iter()
                .filter(|other| other.noun != visit.noun)
                .filter(|other| other.start < visit.end() && visit.start < other.end())
                .collect();
            let noun = constant(others.iter().map(|other| Some(other.noun)))?;
            let shared = others
                .iter()
                .map(|other| other.start.max(visit.start)..other.end().min(visit.end()));
            Some(Self::fact(visit.noun, noun.name(), shared.collect()))
        };
        self.lone().filter_map(of).collect()
    }

    /// What began at the same time as `visit`, if that is one sort of thing.
    fn begun_with(&self, visit: &Visit) -> Option<Noun> {
        constant(
            self.visits
                .iter()
                .filter(|other| other.start == visit.start)
                .map(|other| Some(other.noun)),
        )
    }

    fn edge(&self, visit: Option<&Visit>) -> Vec<Fact> {
        let fact = visit.and_then(|visit| {
            Some(Fact {
                subject: Subject::None,
                answer: self.begun_with(visit)?.name().into(),
                relevant: vec![visit.range()],
            })
        });
        fact.into_iter().collect()
    }

    /// What came next after each thing that came once, or last before it.
    fn neighbours(&self, after: bool) -> Vec<Fact> {
        let of = |visit: &Visit| {
            self.begun_with(visit)?;
            let neighbour = if after {
                self.visits.iter().find(|other| other.start > visit.start)?
            } else {
                self.visits.iter().rfind(|other| other.start < visit.start)?
            };
            let noun = self.begun_with(neighbour)?;
            let mut relevant = [visit.range(), neighbour.range()];
            relevant.sort_by_key(|range| range.start);
            // Its own kind cannot be what came next to it: it came once.
            Some(Self::fact(visit.noun, noun.name(), relevant.to_vec()))
        };
        self.lone().filter_map(of).collect()
    }

    fn came_by(&self) -> Vec<Fact> {
        let seen = self.seen();
        let never = self.history.known.iter().filter(|noun| !seen.contains(noun));
        seen.iter()
            .chain(never)
            .filter_map(|&noun| {
                let ranges: Vec<Range<usize>> = self.visits_of(noun).map(Visit::range).collect();
                let count = ranges.len();
                (count <= MAX_CAME_BY).then(|| Self::fact(noun, &count.to_string(), ranges))
            })
            .collect()
    }
}
