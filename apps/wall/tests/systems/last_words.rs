// SPDX-License-Identifier: MPL-2.0
//! Alerts and questions of cameras that move, or leave: each is told once, and each has its last word.

use std::time::Duration;

use serde_json::{Value, json};

use super::servers::{Nats, wait_for};
use super::walls::{Setting, Told, Wall, all_live};

/// A camera that shows the same all the time.
const YARD: &str = "[[camera]]\nid = \"yard\"\nautosave = 1.0\n\
    pipeline = \"videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1\"\n";

fn setting(nats: &Nats, more: &str) -> Setting {
    Setting { nats: nats.url(), lease: 4.0, cameras: 0, more: more.to_owned() }
}

/// What the standing question says at a wall that has the camera.
fn state_at(wall: &Wall, id: &str) -> Option<String> {
    let camera = wall.get("/api/cameras/yard")?;
    let stands = camera["standing"].as_array()?.iter().find(|one| one["id"] == id)?.clone();
    let is_here = camera["host"] == wall.host.as_str() && camera["state"] == "live";
    stands["state"].as_str().filter(|_| is_here).map(str::to_owned)
}

fn states(told: &Told, standing: &str) -> Vec<Value> {
    let told = told.lock();
    let mut all: Vec<&Value> =
        told.values().flatten().filter(|alert| alert["standing"] == standing).collect();
    all.sort_by_key(|alert| alert["id"].as_str().unwrap());
    all.into_iter().map(|alert| alert["state"].clone()).collect()
}

#[test]
fn an_alert_is_told_once_however_often_its_camera_moves() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let setting = setting(&nats, YARD);
    let mut a = Wall::start(folder.path(), "a", &setting);
    all_live(&[&a], 1);
    let mut b = Wall::start(folder.path(), "b", &setting);
    let told = b.told("alert");
    let stand = |wall: &Wall, id: &str, when: Option<&str>| {
        let standing = json!({"id": id, "question": "is there a red circle now?", "every": 0.5,
            "choices": ["yes", "no"], "when": when});
        assert_eq!(wall.post("/api/cameras/yard/standing", &standing)["id"], id);
    };
    stand(&a, "probe", None);
    let said = wait_for("an answer", || state_at(&a, "probe"));
    // Whatever it says is what this one watches for.
    stand(&a, "watch", Some(&said));
    wait_for("its alert", || (!states(&told, "watch").is_empty()).then_some(()));

    // The machine dies; the other goes on, and answers as before.
    a.kill();
    all_live(&[&b], 1);
    wait_for("its answer", || state_at(&b, "watch").filter(|state| *state == said));
    a.again();
    let told_again = a.told("alert");
    // It comes back in order, and in order again.
    std::thread::sleep(Duration::from_secs(2));
    b.end();
    all_live(&[&a], 1);
    wait_for("its answer", || state_at(&a, "watch").filter(|state| *state == said));
    // Whatever would come twice has had its time.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(states(&told, "watch"), ["on"]);
    assert!(states(&told_again, "watch").is_empty(), "{:?}", states(&told_again, "watch"));
    let past = a.get("/api/history?kind=alert").unwrap();
    assert_eq!(past["items"].as_array().unwrap().len(), 1, "{past}");

    // A question that is removed takes its alert along: another of its name is told anew.
    assert_eq!(a.delete("/api/cameras/yard/standing/watch"), 204);
    wait_for("its end", || state_at(&a, "watch").is_none().then_some(()));
    stand(&a, "watch", Some(&said));
    wait_for("its alert", || (states(&told_again, "watch") == ["on"]).then_some(()));
}

#[test]
fn questions_of_a_lone_wall_are_answered_once_it_is_back_and_never_twice() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let mut a = Wall::start(folder.path(), "a", &setting(&nats, YARD));
    let mut taken = Vec::new();
    for _ in 0..3 {
        all_live(&[&a], 1);
        for _ in 0..4 {
            taken.push(a.ask("yard", "what is here now?").unwrap());
        }
        a.kill();
        a.again();
    }
    let told = a.answers();
    let past = || a.get("/api/history?limit=500").unwrap()["items"].as_array().unwrap().clone();
    wait_for("every answer", || {
        let past = past();
        taken.iter().all(|id| past.iter().any(|answer| answer["id"] == id.as_str())).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(past().len(), taken.len());
    assert!(past().iter().all(|answer| answer["error"].is_null()), "{:?}", past());
    let twice: Vec<String> =
        told.lock().iter().filter(|(_, all)| all.len() > 1).map(|(id, _)| id.clone()).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // A wall that comes back tells its page nothing that it has told before.
    a.kill();
    a.again();
    let told = a.answers();
    all_live(&[&a], 1);
    std::thread::sleep(Duration::from_secs(1));
    assert!(told.lock().is_empty(), "{:?}", told.lock());
}

#[test]
fn a_question_to_a_camera_that_leaves_the_wall_ends() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let nothing = "[[camera]]\nid = \"nothing\"\nuri = \"/nowhere/at/all.webm\"\n";
    let a = Wall::start(folder.path(), "a", &setting(&nats, &format!("{YARD}{nothing}")));
    let b = Wall::start(folder.path(), "b", &setting(&nats, YARD));
    let told = [a.answers(), b.answers()];
    wait_for("the camera", || b.get("/api/cameras/nothing"));
    let id = wait_for("a question taken", || a.ask("nothing", "what is here now?").ok());
    a.configure(&setting(&nats, YARD));
    for told in told {
        let answer = wait_for("its last word", || told.lock().get(&id).cloned());
        assert_eq!(answer[0]["error"], "the camera has left the wall", "{answer:?}");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(told.lock()[&id].len(), 1);
    }
}
