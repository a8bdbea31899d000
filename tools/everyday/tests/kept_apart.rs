// SPDX-License-Identifier: MPL-2.0
//! What training never sees: seeds, things in some sceneries, wordings, drawing styles.

mod common;

use std::collections::HashSet;

use common::{many_questions, mentioned, stream, trained_streams};
use everyday::{
    Clip, HELD_OUT, Noun, Pool, Question, QuestionOptions, Scenery, Stream, StreamOptions, Style,
    Wording, seeds, vision_shot, vocabulary,
};

#[test]
fn seed_ranges_are_disjoint() {
    const { assert!(seeds::TRAIN.end <= seeds::VALIDATION.start) };
    const { assert!(seeds::VALIDATION.end <= seeds::TEST.start) };
}

/// What a training ever shows: clips with the scenery they are seen in.
fn trained_clips() -> Vec<(Scenery, Clip)> {
    let mut clips: Vec<(Scenery, Clip)> = (0..4000)
        .map(|seed| vision_shot(seed, &Style::TRAINED))
        .map(|shot| (shot.camera.scenery, shot.clip))
        .collect();
    for roll in Pool::new(0, 60).rolls() {
        clips.extend(roll.clips.iter().flatten().map(|clip| (roll.camera.scenery, clip.clone())));
    }
    clips
}

#[test]
fn training_never_shows_what_is_held_out() {
    for (scenery, clip) in trained_clips() {
        for thing in &clip.things {
            assert!(!thing.noun.is_held_out(scenery), "{} in {scenery:?}", thing.noun.name());
            assert!(Style::TRAINED.contains(&thing.style));
        }
    }
}

#[test]
fn training_never_asks_for_what_is_held_out() {
    for stream in trained_streams() {
        // What one camera shows may be asked about before another: only those with one say something.
        let sceneries: HashSet<Scenery> =
            stream.segments.iter().map(|segment| segment.roll().camera.scenery).collect();
        for Question { text, answer, .. } in many_questions(&stream) {
            let nouns = [mentioned(&text), Noun::named(&answer)];
            for noun in nouns.into_iter().flatten().filter(|_| sceneries.len() == 1) {
                assert!(!sceneries.iter().any(|&scenery| noun.is_held_out(scenery)), "{text}");
            }
        }
    }
}

#[test]
fn held_out_things_are_at_home_where_they_are_held_out() {
    for (name, scenery) in HELD_OUT {
        let noun = Noun::named(name).unwrap();
        assert!(noun.sceneries().contains(&scenery), "{name}");
        assert!(noun.trained_sceneries().count() > 0, "{name}");
    }
}

#[test]
fn held_out_streams_show_what_is_held_out() {
    let options = StreamOptions { held_out: true, ..StreamOptions::default() };
    let mut shown = HashSet::new();
    for seed in seeds::TEST.start..seeds::TEST.start + 40 {
        for segment in Stream::generate(seed, &options).segments {
            let scenery = segment.roll().camera.scenery;
            let held = segment.clip().things.iter().map(|thing| thing.noun);
            shown.extend(held.filter(|noun| noun.is_held_out(scenery)));
        }
    }
    assert_eq!(shown.len(), HELD_OUT.len());
}

#[test]
fn a_style_asked_for_is_the_only_one() {
    for style in [Style::Openmoji, Style::Tuxpaint] {
        let options = StreamOptions { styles: vec![style], ..StreamOptions::default() };
        let mut count = 0;
        for seed in 0..20 {
            let stream = Stream::generate(seeds::TEST.start + seed, &options);
            let clips = stream.segments.iter().flat_map(|segment| &segment.clip().things);
            count += clips.inspect(|thing| assert_eq!(thing.style, style)).count();
        }
        assert!(count > 100, "{count}");
    }
}

#[test]
fn held_out_wordings_are_not_trained() {
    let trained: HashSet<String> = vocabulary().into_iter().collect();
    let options =
        QuestionOptions { count: 60, wording: Wording::HeldOut, ..QuestionOptions::default() };
    for seed in 0..20 {
        for question in stream(seed, 48).questions(1, &options) {
            assert!(!trained.contains(&question.text), "{}", question.text);
        }
    }
}

#[test]
fn the_vocabulary_holds_whatever_training_reads() {
    let texts: HashSet<String> = vocabulary().into_iter().collect();
    for stream in trained_streams() {
        for question in many_questions(&stream) {
            assert!(texts.contains(&question.text), "{}", question.text);
            assert!(texts.contains(&question.answer), "{}", question.answer);
        }
    }
}
