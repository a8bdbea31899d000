// SPDX-License-Identifier: MPL-2.0
//! What the rest of the project relies on.

use std::collections::HashMap;

use toyworld::{
    Key, Kind, Placement, Pool, Question, QuestionOptions, Rng, Scene, SceneOptions, Shape, Stream,
    StreamOptions, When, Wording, pool_scene, resize, seeds, vision_scene,
};

fn options(frames: usize) -> StreamOptions {
    StreamOptions { frames, ..StreamOptions::default() }
}

fn many_questions(stream: &Stream) -> Vec<Question> {
    stream.questions(0, &QuestionOptions { count: 80, ..QuestionOptions::default() })
}

#[test]
fn a_seed_gives_one_video_and_one_set_of_questions() {
    let (a, b) = (Stream::generate(7, &options(20)), Stream::generate(7, &options(20)));
    assert_eq!(a.frame(11, 64, 48), b.frame(11, 64, 48));
    assert_eq!(many_questions(&a), many_questions(&b));
    assert_ne!(a.frame(11, 64, 48), Stream::generate(8, &options(20)).frame(11, 64, 48));
}

#[test]
fn frames_have_the_size_asked_for() {
    let stream = Stream::generate(1, &options(9));
    assert_eq!(stream.frames(), 9);
    assert_eq!(stream.frame(8, 33, 17).len(), 33 * 17 * 3);
    assert_eq!(stream.frame_resized(8, (160, 120), (56, 56)).len(), 56 * 56 * 3);
}

#[test]
fn shots_follow_each_other_without_gaps() {
    for seed in 0..50 {
        let stream = Stream::generate(seed, &options(64));
        let mut end = 0;
        for shot in &stream.shots {
            assert_eq!(shot.start, end);
            end = shot.range().end;
        }
        assert_eq!(end, 64);
    }
}

#[test]
fn neighbouring_shots_differ() {
    for seed in 0..200 {
        let stream = Stream::generate(seed, &options(64));
        for pair in stream.shots.windows(2) {
            assert!(pair[0].key().is_none() || pair[0].key() != pair[1].key());
        }
    }
}

#[test]
fn seed_ranges_are_disjoint() {
    const { assert!(seeds::TRAIN.end <= seeds::VALIDATION.start) };
    const { assert!(seeds::VALIDATION.end <= seeds::TEST.start) };
}

#[test]
fn held_out_pairs_never_occur_in_training() {
    for seed in 0..300 {
        for shot in Stream::generate(seed, &options(64)).shots {
            assert!(shot.key().is_none_or(|key| !key.is_held_out()));
        }
        assert!(vision_scene(seed).key().is_none_or(|key| !key.is_held_out()));
        assert!(pool_scene(0, seed).key().is_none_or(|key| !key.is_held_out()));
    }
}

#[test]
fn training_questions_never_name_held_out_pairs() {
    for seed in 0..100 {
        for question in many_questions(&Stream::generate(seed, &options(48))) {
            let text = format!("{} {}", question.text, question.answer);
            assert!(toyworld::HELD_OUT.iter().all(|key| !text.contains(&key.name())), "{text}");
        }
    }
}

#[test]
fn held_out_streams_show_held_out_pairs() {
    let held_out = StreamOptions { held_out: true, ..options(48) };
    let stream = Stream::generate(seeds::TEST.start, &held_out);
    let shown = stream.shots.iter().filter_map(|shot| shot.key()).filter(|key| key.is_held_out());
    assert_eq!(shown.count(), toyworld::HELD_OUT.len());
}

#[test]
fn held_out_wordings_are_not_trained() {
    let stream = Stream::generate(3, &options(48));
    let trained: Vec<String> = many_questions(&stream).into_iter().map(|q| q.text).collect();
    let options =
        QuestionOptions { count: 40, wording: Wording::HeldOut, ..QuestionOptions::default() };
    for question in stream.questions(1, &options) {
        assert!(!trained.contains(&question.text), "{}", question.text);
    }
}

#[test]
fn every_kind_is_askable_at_any_length() {
    for frames in [32, 64, 256] {
        let mut asked: HashMap<Kind, usize> = HashMap::new();
        for seed in 0..20 {
            for question in many_questions(&Stream::generate(seed, &options(frames))) {
                *asked.entry(question.kind).or_default() += 1;
            }
        }
        for kind in Kind::ALL {
            let count = asked.get(kind).copied().unwrap_or(0);
            assert!(count > 40, "{} at {frames} frames: {count}", kind.name());
        }
    }
}

#[test]
fn questions_know_only_the_past() {
    for seed in 0..40 {
        for question in many_questions(&Stream::generate(seed, &options(40))) {
            for range in &question.relevant {
                assert!(range.start < range.end && range.end <= question.after_frame + 1);
            }
        }
    }
}

/// The objects of the shots begun by `after_frame`, recounted without the library's help.
fn seen(stream: &Stream, after_frame: usize) -> Vec<Option<Key>> {
    let begun = stream.shots.iter().filter(|shot| shot.start <= after_frame);
    begun.map(|shot| shot.key()).collect()
}

#[test]
fn answers_agree_with_the_shots() {
    let key_named = |text: &str| Key::all().find(|key| text.contains(&key.name()));
    for seed in 0..80 {
        let stream = Stream::generate(seed, &options(48));
        for question in many_questions(&stream) {
            let seen = seen(&stream, question.after_frame);
            let key = key_named(&question.text);
            let at = seen.iter().position(|&other| other == key);
            let name = |key: Option<Key>| key.map(Key::name);
            match question.kind {
                Kind::After => assert_eq!(name(seen[at.unwrap() + 1]), Some(question.answer)),
                Kind::Before => assert_eq!(name(seen[at.unwrap() - 1]), Some(question.answer)),
                Kind::Exist => assert_eq!(at.is_some(), question.answer == "yes"),
                Kind::First => assert_eq!(name(seen[0]), Some(question.answer)),
                Kind::Count => {
                    let named = |shape: &&Shape| question.text.contains(&shape.plural());
                    let shape = Shape::ALL.iter().find(named).unwrap();
                    let count = seen.iter().flatten().filter(|key| key.shape == *shape).count();
                    assert_eq!(count.to_string(), question.answer);
                }
                Kind::Where | Kind::Background => {
                    assert_eq!(seen.iter().filter(|&&other| other == key).count(), 1);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn answers_are_one_or_two_lower_case_words() {
    for question in many_questions(&Stream::generate(5, &options(64))) {
        let words = question.answer.split(' ').count();
        assert!((1..=2).contains(&words), "{}", question.answer);
        assert_eq!(question.answer, question.answer.to_lowercase());
    }
}

#[test]
fn questions_at_the_end_are_asked_after_the_last_frame() {
    let stream = Stream::generate(9, &options(30));
    let options = QuestionOptions { when: When::End, ..QuestionOptions::default() };
    assert!(stream.questions(0, &options).iter().all(|question| question.after_frame == 29));
}

#[test]
fn named_places_hold_the_whole_movement() {
    for seed in 0..200 {
        let key = Key::trained()[seed as usize % 43];
        let scene = Scene::generate(seed, Some(key), &SceneOptions::default());
        let object = scene.object.as_ref().unwrap();
        for frame in 0..toyworld::MAX_FRAMES {
            let (x, y) = object.center_at(frame);
            assert_eq!(toyworld::Place::of(x, y), scene.place());
        }
    }
    assert_eq!(SceneOptions::default().placement, Placement::Named);
}

#[test]
fn a_pool_finds_its_scenes_again() {
    let pool = Pool::new(0, 600);
    let stream = Stream::assemble(4, &options(20), &mut &pool);
    for shot in &stream.shots {
        let index = pool.index_of(&shot.scene).unwrap();
        assert_eq!(pool_scene(0, index as u64).seed, shot.scene.seed);
    }
}

#[test]
fn resizing_a_flat_picture_keeps_its_colour() {
    let flat: Vec<u8> = [10, 200, 90].repeat(160 * 120);
    assert_eq!(resize(&flat, (160, 120), (56, 56)), [10, 200, 90].repeat(56 * 56));
}

#[test]
fn the_generator_is_uniform_enough() {
    let mut rng = Rng::new(1);
    let mean = (0..10_000).map(|_| rng.unit()).sum::<f32>() / 10_000.0;
    assert!((mean - 0.5).abs() < 0.01);
}
