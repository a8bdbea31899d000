// SPDX-License-Identifier: MPL-2.0
//! Every method on the model that ships: it says what is there now, says where it looked, keeps
//! within its bound, and asking leaves no trace.

mod common;

use common::{painted, toyworld_model};
use gststreamkvqa::memory::recipe::Retrieval;
use gststreamkvqa::stream::StreamStats;
use gststreamkvqa::{Question, Recipe, Stream};
use toyworld::{Kind, QuestionOptions, StreamOptions, When};

const FRAMES: usize = 44;
/// Of a frame.
const TOKENS: usize = 4;

/// Methods that do not promise to know what is there now: the pieces of all times stand at one
/// place, what did not change is not seen again, the newest frames are thinned like the oldest, the
/// newest have seen less than those before them.
const NOT_NOW: [&str; 4] = ["mukv", "cacheflow", "retake", "dscache"];

struct Video(toyworld::Stream);

impl Video {
    fn new(seed: u64) -> Self {
        let options = StreamOptions { frames: FRAMES, ..StreamOptions::default() };
        Self(toyworld::Stream::generate(seed, &options))
    }

    /// Questions about the last frame with their answers.
    fn now(&self) -> Vec<(String, String)> {
        let options = QuestionOptions { count: 64, when: When::End, ..QuestionOptions::default() };
        let questions = self.0.questions(0, &options).into_iter();
        let now = questions.filter(|question| question.kind == Kind::Now);
        now.map(|question| (question.text, question.answer)).collect()
    }
}

/// Tokens that the fullest layer holds, the prefix not counted.
fn held(stream: &Stream) -> usize {
    let memory = stream.memory();
    let layers = 0..stream.model().decoder().layers();
    layers
        .map(|layer| {
            let resident = memory.held().resident_at(layer).map_or(0, |resident| resident.tokens());
            resident + memory.held().units(layer).len() * TOKENS
        })
        .max()
        .unwrap_or(0)
}

/// What it may be, where a layer holds nothing but a resident cache.
fn bound(recipe: &Recipe, tokens: usize) -> Option<usize> {
    let bounded = !recipe.store || matches!(recipe.retrieval, Retrieval::Fresh { .. });
    recipe.resident.as_ref().filter(|_| bounded).map(|resident| resident.cap * tokens)
}

/// What is remembered, without the counters of how often it was looked at.
fn content(stream: &Stream) -> StreamStats {
    let mut stats = stream.stats();
    (stats.store.hits, stats.store.loads) = (0, 0);
    stats
}

/// How many frames a question retrieves goes by the length that a model was trained on. How many of the
/// newest are seen anew does not: with all of them, what they are seen behind would be gone.
#[test]
fn a_model_that_recommends_how_much_to_retrieve_leaves_dscache_its_past() {
    let model = toyworld_model();
    let recipe = Recipe::for_model("dscache", &model).unwrap();
    assert_eq!(recipe, Recipe::named("dscache").unwrap());
    let simple = Recipe::for_model("simplestream", &model).unwrap();
    let video = painted(&Video::new(9_000_000_009).0);
    let seen = |recipe: &Recipe| {
        let mut stream = Stream::new(model.clone(), recipe.clone()).unwrap();
        stream.push_frames(&video).unwrap();
        let question = Question { keep_logits: true, ..Question::new("what do you see?") };
        let answer = stream.ask(&question, |_| {}).unwrap();
        (answer.layers[0].context_tokens, answer.first_logits)
    };
    let ((past, with), (alone, without)) = (seen(&recipe), seen(&simple));
    assert_eq!(past - alone, 17 * TOKENS);
    assert_ne!(with, without);
}

#[test]
fn every_method_answers_within_its_bound_and_without_a_trace() {
    let model = toyworld_model();
    let videos: Vec<Video> = (0..3).map(|i| Video::new(9_000_000_000 + i)).collect();
    let mut faults = Vec::new();
    for name in Recipe::names() {
        let mut recipe = Recipe::for_model(name, &model).unwrap();
        if recipe.resident.is_some() {
            // Small enough to overflow several times.
            recipe.set("cap", "16").unwrap();
        }
        let bound = bound(&recipe, TOKENS);
        let (mut right, mut asked) = (0, 0);
        for video in &videos {
            let mut stream = Stream::new(model.clone(), recipe.clone()).unwrap();
            for part in painted(&video.0).chunks(5) {
                stream.push_frames(part).unwrap();
                if let Some(bound) = bound {
                    assert!(held(&stream) <= bound, "{name}: {} of {bound}", held(&stream));
                }
            }
            for (text, expected) in video.now().iter().take(3) {
                let before = (content(&stream), held(&stream));
                let first = stream.ask(&Question::new(text.as_str()), |_| {}).unwrap();
                let again = stream.ask(&Question::new(text.as_str()), |_| {}).unwrap();
                assert_eq!(
                    (content(&stream), held(&stream)),
                    before,
                    "{name}: asking left a trace"
                );
                assert_eq!(first.ids, again.ids, "{name}: asked twice");
                assert_eq!(first.evidence, again.evidence, "{name}: asked twice");
                let looked = first.evidence.first().unwrap_or_else(|| panic!("{name} saw nothing"));
                assert!(looked.start <= looked.end && looked.end < FRAMES as f64, "{name}");
                asked += 1;
                right += usize::from(first.text.trim() == expected);
            }
        }
        println!("{name}: {right} of {asked} now-questions");
        if right * 3 < asked * 2 && !NOT_NOW.contains(name) {
            faults.push(format!("{name}: {right} of {asked}"));
        }
    }
    assert!(faults.is_empty(), "now-questions answered: {faults:?}");
}

#[test]
fn what_was_cleared_leaves_every_method_as_it_began() {
    let model = toyworld_model();
    let [before, behind] = [9_000_000_020, 9_000_000_021].map(|seed| painted(&Video::new(seed).0));
    let question = Question { keep_logits: true, ..Question::new("what do you see?") };
    for name in Recipe::names() {
        let recipe = Recipe::for_model(name, &model).unwrap();
        let open = || Stream::new(model.clone(), recipe.clone()).unwrap();
        let (mut cleared, mut fresh) = (open(), open());
        cleared.push_frames(&before).unwrap();
        cleared.ask(&question, |_| {}).unwrap();
        cleared.clear().unwrap();
        cleared.push_frames(&behind).unwrap();
        fresh.push_frames(&behind).unwrap();
        let [a, b] = [&cleared, &fresh].map(|stream| stream.ask(&question, |_| {}).unwrap());
        assert_eq!(a.first_logits, b.first_logits, "{name}");
        let units = |answer: &gststreamkvqa::Answer| -> Vec<Vec<u64>> {
            answer.layers.iter().map(|layer| layer.retrieved.clone()).collect()
        };
        assert_eq!(units(&a), units(&b), "{name}");
        assert_eq!(held(&cleared), held(&fresh), "{name}");
    }
}
