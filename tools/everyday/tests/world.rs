// SPDX-License-Identifier: MPL-2.0
//! What is drawn: seeds, sceneries, and where things are.

mod common;

use std::collections::HashSet;

use common::{many_questions, stream, trained_streams};
use everyday::{
    Atlas, Clip, Element, Facing, GRID, Noun, Pool, Roll, RollOptions, Scenery, Stream,
    StreamOptions, Style, labels, vision_shot,
};

/// An atlas in which every drawing is a plain square.
fn plain() -> Atlas {
    let side = 8;
    let sprites: Vec<String> = Noun::all()
        .map(|noun| {
            let name = noun.name();
            format!(
                r#"{{"noun":"{name}","style":"noto","width":{side},"height":{side},"offset":0}}"#
            )
        })
        .collect();
    let mut bytes = format!(r#"{{"size":{side},"sprites":[{}]}}"#, sprites.join(",")).into_bytes();
    bytes.push(b'\n');
    bytes.extend([255, 0, 255, 255].repeat(side * side));
    Atlas::from_bytes(&bytes).unwrap()
}

#[test]
fn a_seed_gives_one_video_and_one_set_of_questions() {
    let atlas = plain();
    let (a, b) = (stream(7, 20), stream(7, 20));
    assert_eq!(a.frame(&atlas, 11, 64, 48), b.frame(&atlas, 11, 64, 48));
    assert_eq!(many_questions(&a), many_questions(&b));
    assert_ne!(a.frame(&atlas, 11, 64, 48), stream(8, 20).frame(&atlas, 11, 64, 48));
    assert_ne!(many_questions(&a), many_questions(&stream(8, 20)));
}

#[test]
fn frames_have_the_size_asked_for() {
    let (atlas, stream) = (plain(), stream(1, 9));
    assert_eq!(stream.frames(), 9);
    assert_eq!(stream.frame(&atlas, 8, 33, 17).len(), 33 * 17 * 3);
    assert_eq!(stream.frame_resized(&atlas, 8, (160, 120), (112, 112)).len(), 112 * 112 * 3);
}

#[test]
fn segments_follow_each_other_without_gaps() {
    for stream in trained_streams() {
        let mut end = 0;
        for segment in &stream.segments {
            assert_eq!(segment.start, end);
            end = segment.end();
        }
        assert_eq!(end, 64);
    }
}

#[test]
fn whatever_stays_between_two_clips_is_the_scenery() {
    let nouns = |clip: &Clip| clip.things.iter().map(|thing| thing.noun).collect::<HashSet<_>>();
    for stream in trained_streams() {
        for pair in stream.segments.windows(2) {
            assert!(nouns(pair[0].clip()).is_disjoint(&nouns(pair[1].clip())));
        }
    }
}

#[test]
fn no_light_comes_twice() {
    let mut changing = 0;
    for stream in trained_streams() {
        let mut lights: Vec<_> = stream.segments.iter().map(|segment| segment.light()).collect();
        lights.dedup();
        changing += usize::from(lights.len() > 1);
        assert_eq!(lights.iter().collect::<HashSet<_>>().len(), lights.len(), "{lights:?}");
    }
    assert!((50..120).contains(&changing), "{changing} of 150 streams change their light");
}

#[test]
fn some_cameras_show_nothing_for_long() {
    let longest = |stream: &Stream| {
        let (mut run, mut longest) = (0, 0);
        for index in 0..stream.frames() {
            let segment = stream.segment_at(index);
            let shown = segment.offset + index - segment.start;
            let empty = segment.clip().visible(shown).next().is_none();
            run = if empty { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        longest
    };
    let quiet = (0..400).map(|seed| longest(&stream(seed, 128))).filter(|&run| run >= 36).count();
    assert!(quiet > 10, "{quiet}");
}

#[test]
fn every_thing_is_shown_about_as_often_as_any_other() {
    let mut shown = vec![0; Noun::all().count() + 1];
    for seed in 0..8000 {
        let shot = vision_shot(seed, &Style::TRAINED);
        let nouns: HashSet<Noun> =
            shot.clip.visible(shot.index).map(|(thing, _)| thing.noun).collect();
        for noun in nouns {
            shown[usize::from(noun.id())] += 1;
        }
    }
    let (least, most) = (shown[1..].iter().min().unwrap(), shown.iter().max().unwrap());
    assert!(*least > 35 && *most < 4 * least, "{least} to {most}");
}

#[test]
fn a_pool_finds_its_frames_again() {
    let pool = Pool::new(0, 12);
    let frames: Vec<(u64, usize)> = pool
        .rolls()
        .flat_map(|roll| roll.clips.iter().flatten())
        .flat_map(|clip| (0..clip.frames).map(|index| (clip.seed, index)))
        .collect();
    assert_eq!(frames.len(), pool.frames());
    for seed in 0..20 {
        let stream = Stream::assemble(seed, &StreamOptions::default(), &mut &pool);
        for index in 0..stream.frames() {
            let segment = stream.segment_at(index);
            let shown = segment.offset + index - segment.start;
            assert_eq!(frames[stream.pool_frame(index)], (segment.clip().seed, shown));
        }
    }
}

/// Cameras and everything they see.
fn rolls() -> impl Iterator<Item = Roll> {
    (0..60).map(|seed| Roll::generate(seed, &RollOptions::default()))
}

#[test]
fn things_are_inside_the_picture_and_apart() {
    for Roll { camera, clips } in rolls() {
        for clip in clips.iter().flatten() {
            for index in 0..clip.frames {
                let boxes: Vec<[f32; 4]> = clip
                    .visible(index)
                    .map(|(_, pose)| {
                        let (width, height) = camera.extent(pose.size);
                        [pose.x - width / 2.0, pose.y - height / 2.0, width, height]
                    })
                    .collect();
                for (at, [x, y, width, height]) in boxes.iter().enumerate() {
                    let inside = (x + width).min(1.0) - x.max(0.0);
                    assert!(inside >= 0.84 * width && y + height < 1.06);
                    for [left, top, wide, high] in &boxes[..at] {
                        let across = (x + width).min(left + wide) - x.max(*left);
                        let down = (y + height).min(top + high) - y.max(*top);
                        let shared = across.max(0.0) * down.max(0.0);
                        assert!(shared <= 0.125 * (width * height).min(wide * high));
                    }
                }
            }
        }
    }
}

#[test]
fn far_things_are_small_and_high_and_only_flying_things_fly() {
    for Roll { camera, clips } in rolls() {
        for clip in clips.iter().flatten() {
            for index in 0..clip.frames {
                for (thing, pose) in clip.visible(index) {
                    let foot = pose.y + camera.extent(pose.size).1 / 2.0;
                    if thing.noun.element() == Element::Ground {
                        assert!((foot - camera.foot(pose.size)).abs() < 0.03);
                        assert!(foot > camera.ground);
                    } else if thing.noun.element() == Element::Water {
                        assert!(foot > camera.horizon && foot < camera.ground + 0.3);
                    }
                }
            }
        }
        // There is no ground in the sky.
        assert!(camera.scenery == Scenery::Sky || camera.foot(0.2) < camera.foot(0.5));
    }
}

#[test]
fn whoever_goes_somewhere_looks_there() {
    let mut turned = [0, 0];
    for Roll { clips, .. } in rolls() {
        for thing in clips.iter().flatten().flat_map(|clip| &clip.things) {
            let poses: Vec<_> = thing.track.iter().flatten().collect();
            let moved = poses[poses.len() - 1].x - poses[0].x;
            match thing.noun.facing() {
                Facing::Left if moved.abs() > 0.2 => {
                    assert_eq!(thing.mirrored, moved > 0.0);
                    turned[usize::from(thing.mirrored)] += 1;
                }
                Facing::Right if moved.abs() > 0.2 => assert_eq!(thing.mirrored, moved < 0.0),
                Facing::Fixed => assert!(!thing.mirrored),
                _ => {}
            }
        }
    }
    assert!(turned[0] > 50 && turned[1] > 50, "{turned:?}");
}

#[test]
fn labels_say_what_is_in_each_cell() {
    let atlas = plain();
    let mut seen = 0;
    for seed in 0..400 {
        let shot = vision_shot(seed, &Style::TRAINED);
        let labels = labels(&atlas, &shot.camera, &shot.clip, shot.index);
        let cells: Vec<&[u8]> = labels.chunks(3).take(GRID * GRID).collect();
        let centers: usize = cells.iter().map(|cell| usize::from(cell[2])).sum();
        assert_eq!(centers, shot.clip.visible(shot.index).count());
        for (thing, pose) in shot.clip.visible(shot.index) {
            let cell = |at: f32| ((at * GRID as f32) as usize).min(GRID - 1);
            let [noun, distance, count] = cells[cell(pose.y) * GRID + cell(pose.x)] else {
                panic!()
            };
            assert!(*count > 0 && *noun > 0);
            if centers == 1 {
                assert_eq!(*noun, thing.noun.id());
                assert_eq!(*distance, if pose.size > 0.3 { 1 } else { 2 });
                seen += 1;
            }
        }
        assert_eq!(labels[48], shot.camera.scenery as u8);
        assert_eq!(labels[49], shot.clip.light as u8);
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn things_are_painted_where_they_are() {
    let atlas = plain();
    for seed in 0..60 {
        let shot = vision_shot(seed, &Style::TRAINED);
        let picture = shot.picture(&atlas, 112);
        for (_, pose) in shot.clip.visible(shot.index) {
            let at = |part: f32| ((part * 112.0) as usize).min(111);
            let pixel = &picture[3 * (at(pose.y) * 112 + at(pose.x))..][..3];
            // Plain drawings are magenta in any light.
            assert!(pixel[0] > pixel[1].saturating_add(25), "{seed}: {pixel:?}");
            assert!(pixel[2] > pixel[1].saturating_add(25), "{seed}: {pixel:?}");
        }
    }
}

#[test]
fn a_broken_atlas_says_what_is_wrong() {
    let whole =
        br#"{"size":8,"sprites":[{"noun":"dog","style":"noto","width":8,"height":8,"offset":4}]}"#;
    let mut bytes = whole.to_vec();
    assert!(Atlas::from_bytes(&bytes).unwrap_err().contains("first line"));
    bytes.push(b'\n');
    bytes.extend([0; 4 * 64]);
    assert!(Atlas::from_bytes(&bytes).unwrap_err().contains("dog"));
    bytes.extend([0; 4]);
    assert!(Atlas::from_bytes(&bytes).is_ok());
}
