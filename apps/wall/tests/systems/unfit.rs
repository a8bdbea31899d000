// SPDX-License-Identifier: MPL-2.0
//! Cameras that do not start on every machine.

use std::time::{Duration, Instant};

use super::servers::{Nats, wait_for};
use super::walls::{Setting, Wall, all_live, root};

const BALL: &str =
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1";

fn setting(nats: &Nats, camera: &str) -> Setting {
    let more = format!("[[camera]]\nid = \"odd\"\n{camera}\n");
    Setting { nats: nats.url(), lease: 4.0, cameras: 1, more }
}

fn taken(wall: &Wall) -> usize {
    let is_odd = |line: &&str| line.contains("odd") && line.contains("is this wall's now");
    wall.log().lines().filter(is_odd).count()
}

#[test]
fn a_camera_whose_model_is_on_one_machine_alone_is_watched_there_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    std::os::unix::fs::symlink(root().join("models/toyworld"), models.join("special")).unwrap();
    let setting = setting(&nats, &format!("pipeline = \"{BALL}\"\nmodel = \"special\""));
    let a = Wall::start(folder.path(), "a", &setting);
    wait_for("a reason", || {
        let odd = a.get("/api/cameras/odd")?;
        (odd["state"] == "waiting" && odd["reason"].as_str()?.contains("special")).then_some(())
    });
    let begin = Instant::now();
    let mut b = Wall::start_with(folder.path(), "b", &setting, &[("STREAMKVQA_MODELS", &models)]);
    let hosts = all_live(&[&a, &b], 2);
    println!("watched after {:.1?}: {hosts:?}", begin.elapsed());
    assert_eq!(hosts["odd"], "b");
    // Neither evenness nor a retry takes it away.
    let before = (taken(&a), taken(&b));
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(all_live(&[&a, &b], 2)["odd"], "b");
    assert_eq!((taken(&a), taken(&b)), before, "{}", a.log());
    // With that machine gone, the other one tries.
    b.kill();
    wait_for("somebody who tries", || (a.own().get("odd")?["state"] == "waiting").then_some(()));
}

#[test]
fn a_camera_that_starts_nowhere_goes_round_once_and_rests() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let setting = setting(&nats, "uri = \"/nowhere/at/all.webm\"");
    let a = Wall::start(folder.path(), "a", &setting);
    let b = Wall::start(folder.path(), "b", &setting);
    wait_for("both to have tried", || (taken(&a) > 0 && taken(&b) > 0).then_some(()));
    std::thread::sleep(Duration::from_secs(20));
    let tries = taken(&a) + taken(&b);
    assert!(tries <= 3, "{tries}\n{}\n{}", a.log(), b.log());
    // As in the file.
    for wall in [&a, &b] {
        let state = wall.get("/api/state").unwrap();
        for (at, id) in ["odd", "c0"].into_iter().enumerate() {
            assert_eq!(state["cameras"][at]["id"], id, "{state}");
        }
    }
    // It is somebody's, and every page says why it does not play.
    for wall in [&a, &b] {
        let odd = wall.get("/api/cameras/odd").unwrap();
        assert!(odd["reason"].as_str().is_some_and(|why| why.contains("nothing at this")), "{odd}");
    }
}
