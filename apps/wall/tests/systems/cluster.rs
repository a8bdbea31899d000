// SPDX-License-Identifier: MPL-2.0
//! Several walls on one JetStream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mqtt::Ear;
use super::servers::{Mosquitto, Nats, wait_for};
use super::walls::{Setting, Wall, all_live, counts};

/// Longest time that a camera may go unwatched when its machine dies.
const WATCHED_AGAIN: Duration = Duration::from_secs(10);

fn setting(nats: &Nats, cameras: usize) -> Setting {
    Setting { nats: nats.url(), lease: 4.0, cameras, more: String::new() }
}

/// Waits until the walls have these numbers of cameras.
fn spread(walls: &[&Wall], cameras: usize, expected: &[usize]) -> BTreeMap<String, String> {
    wait_for("an even spread", || {
        let hosts = all_live(walls, cameras);
        let mut numbers: Vec<usize> = counts(&hosts).into_values().collect();
        numbers.sort_unstable();
        (numbers == expected).then_some(hosts)
    })
}

#[test]
fn a_camera_of_a_dead_machine_goes_on_elsewhere_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let setting = setting(&nats, 3);
    let a = Wall::start(folder.path(), "a", &setting);
    all_live(&[&a], 3);
    let mut b = Wall::start(folder.path(), "b", &setting);
    // Handed over gently: one or two of three.
    let hosts = spread(&[&a, &b], 3, &[1, 2]);
    let camera = hosts.iter().find(|(_, host)| *host == "b").map(|(id, _)| id.clone()).unwrap();

    // Either page shows it, and asks it.
    let told = a.answers();
    let there = wait_for("the other wall's camera", || {
        let state = a.get(&format!("/api/cameras/{camera}"))?;
        (state["host"] == "b" && state["state"] == "live").then_some(state)
    });
    assert_eq!(there["live"]["whep"], false, "{there}");
    let newest = format!("/api/cameras/{camera}/live.jpg");
    wait_for("its picture", || a.picture(&newest));
    let id = a.ask(&camera, "what is here now?").unwrap();
    let answer = wait_for("the answer", || {
        told.lock().get(&id).and_then(|answers| answers.first().cloned())
    });
    assert_eq!(answer["error"], Value::Null, "{answer}");
    // What it rests on was kept by the other wall.
    let key =
        answer["evidence"][0]["picture"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert!(a.picture(&format!("/api/pictures/{key}.jpg")).is_some(), "{key}");
    assert!(a.picture("/api/pictures/c0-1.jpg").is_none());

    // It has seen enough for its memory to be saved, and dies.
    let seen = wait_for("memory", || {
        let units = b.own().get(&camera)?["health"]["memory_units"].as_u64()?;
        (units >= 3).then_some(units)
    });
    std::thread::sleep(Duration::from_secs(3));
    let died = jiff::Timestamp::now();
    let begin = Instant::now();
    b.kill();
    let hosts = all_live(&[&a], 3);
    let took = begin.elapsed();
    println!("watched again after {took:.1?}");
    assert!(took < WATCHED_AGAIN, "{took:?}\n{}", a.log());
    assert_eq!(hosts[&camera], "a");

    // What it saw on the machine that died is remembered.
    let units = wait_for("its memory", || {
        a.own().get(&camera)?["health"]["memory_units"].as_u64().filter(|n| *n > 0)
    });
    assert!(units >= seen, "{units} of {seen} units");
    let earlier = wait_for("an answer from before", || {
        let id = a.ask(&camera, "what was here at first?").ok()?;
        let answer = wait_for("the answer", || {
            told.lock().get(&id).and_then(|answers| answers.first().cloned())
        });
        let evidence = answer["evidence"].as_array()?.clone();
        let before =
            |one: &Value| one["from"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() < died;
        evidence.iter().any(before).then_some(answer)
    });
    println!("{earlier}");
}

#[test]
fn a_wall_that_ends_gives_its_cameras_up_at_once_and_a_standing_question_goes_along() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    // Nobody would wait for a lease as long as this.
    let setting = Setting { lease: 60.0, ..setting(&nats, 2) };
    let a = Wall::start(folder.path(), "a", &setting);
    all_live(&[&a], 2);
    let mut b = Wall::start(folder.path(), "b", &setting);
    let hosts = spread(&[&a, &b], 2, &[1, 1]);
    let camera = hosts.iter().find(|(_, host)| *host == "b").map(|(id, _)| id.clone()).unwrap();
    let standing = serde_json::json!({ "id": "ring", "question": "is there a ring?", "every": 1.0, "when": "yes" });
    // At the page of the wall that does not have the camera.
    assert_eq!(a.post(&format!("/api/cameras/{camera}/standing"), &standing)["id"], "ring");
    let stands = |wall: &Wall| {
        let there = wall.get(&format!("/api/cameras/{camera}"))?;
        let answered = |one: &Value| one["id"] == "ring" && one["state"].is_string();
        (there["host"] == wall.host.as_str() && there["standing"].as_array()?.iter().any(answered))
            .then_some(())
    };
    wait_for("its answer", || stands(&b));

    // Each wall counts what it answers for.
    let numbers = b.text("/metrics");
    assert!(
        numbers.contains(&format!("streamkvqa_wall_camera_frames_total{{camera=\"{camera}\"}}")),
        "{numbers}"
    );
    assert!(
        numbers.contains("streamkvqa_wall_broker_connected{broker=\"cluster\"} 1"),
        "{numbers}"
    );

    let units = |wall: &Wall| wall.own()[&camera]["health"]["memory_units"].as_u64();
    let had = wait_for("what it remembers", || units(&b).filter(|units| *units > 2));
    let begin = Instant::now();
    b.end();
    all_live(&[&a], 2);
    let took = begin.elapsed();
    println!("handed over in {took:.1?}");
    assert!(took < WATCHED_AGAIN, "{took:?}\n{}", a.log());
    wait_for("its answer", || stands(&a));
    // It was not begun anew: what the other machine saw is there, as soon as anything is told of it.
    let has = wait_for("what it remembers", || units(&a).filter(|units| *units > 0));
    assert!(has > had, "{has} units of {had}\n{}", a.log());
    assert_eq!(a.delete(&format!("/api/cameras/{camera}/standing/ring")), 204);
    wait_for("its end", || (a.own()[&camera]["standing"].as_array()?.is_empty()).then_some(()));
}

#[test]
fn a_camera_that_leaves_every_configuration_leaves_all_walls() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let a = Wall::start(folder.path(), "a", &setting(&nats, 2));
    let b = Wall::start(folder.path(), "b", &setting(&nats, 1));
    spread(&[&a, &b], 2, &[1, 1]);
    // `c1` was of `a`'s configuration alone.
    a.configure(&setting(&nats, 1));
    for wall in [&a, &b] {
        wait_for("its end", || {
            let state = wall.get("/api/state")?;
            let ids: Vec<&str> = state["cameras"]
                .as_array()?
                .iter()
                .filter_map(|camera| camera["id"].as_str())
                .collect();
            (ids == ["c0"]).then_some(())
        });
    }
    assert!(a.ask("c1", "is it there?").is_err());
}

/// As a disk might: what the newest snapshot of a camera is said to be is not what it is.
async fn damage_newest(url: &str, camera: &str) {
    use base64::Engine as _;
    let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let common = context.get_key_value("wall_wall").await.unwrap();
    let record = common.get(format!("memory.{camera}")).await.unwrap().unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["all"].as_array().unwrap().len(), 2, "{record}");
    let name = base64::engine::general_purpose::URL_SAFE
        .encode(record["all"][0]["object"].as_str().unwrap());
    let subject = format!("$O.wall_wall_memories.M.{name}");
    let stream = context.get_stream("OBJ_wall_wall_memories").await.unwrap();
    let about = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    let mut about: Value = serde_json::from_slice(&about.payload).unwrap();
    about["digest"] = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".into();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let bytes = about.to_string().into_bytes().into();
    context.publish_with_headers(subject, headers, bytes).await.unwrap().await.unwrap();
}

#[test]
fn of_a_damaged_memory_the_one_before_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let setting = setting(&nats, 1);
    let mut a = Wall::start(folder.path(), "a", &setting);
    wait_for("memory", || {
        a.own().get("c0")?["health"]["memory_units"].as_u64().filter(|units| *units > 4)
    });
    // Saved every second: two at least have been uploaded, and the last at the end.
    std::thread::sleep(Duration::from_secs(3));
    a.end();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(damage_newest(&nats.url(), "c0"));
    let b = Wall::start(folder.path(), "b", &setting);
    all_live(&[&b], 1);
    assert!(b.log().contains("a memory is damaged"), "{}", b.log());
    let units = wait_for("its memory", || {
        b.own()["c0"]["health"]["memory_units"].as_u64().filter(|units| *units > 0)
    });
    assert!(units > 4, "{units} units\n{}", b.log());
}

#[test]
fn mqtt_hears_of_each_camera_from_the_wall_that_has_it_and_of_a_wall_that_dies() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start(&folder.path().join("nats"));
    let server = Mosquitto::start(folder.path());
    let more = format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n", server.port);
    let setting = Setting { more, ..setting(&nats, 2) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ear = runtime.block_on(Ear::at(&server));
    let a = Wall::start(folder.path(), "a", &setting);
    all_live(&[&a], 2);
    let mut b = Wall::start(folder.path(), "b", &setting);
    let hosts = spread(&[&a, &b], 2, &[1, 1]);
    let camera = hosts.iter().find(|(_, host)| *host == "b").map(|(id, _)| id.clone()).unwrap();
    let speaks = |host: &str| {
        let device = ear.json(&format!("homeassistant/device/streamkvqa_{camera}/config")).pop()?;
        let state = ear.json(&format!("streamkvqa/camera/{camera}/state")).pop()?;
        let status = format!("streamkvqa/wall/{host}/status");
        (device["availability"][0]["topic"] == status.as_str() && state["host"] == host)
            .then_some(())
    };
    wait_for("the new wall's word", || speaks("b"));
    // Both walls hear the question; one takes it, and there is one answer.
    let asked = format!("streamkvqa/camera/{camera}/ask");
    let asking = ear.client.publish(
        asked,
        rumqttc::QoS::AtLeastOnce,
        false,
        r#"{"question": "what is here?", "id": "q"}"#,
    );
    runtime.block_on(asking).unwrap();
    let replies = || ear.json(&format!("streamkvqa/camera/{camera}/reply"));
    let reply = wait_for("the reply", || replies().pop());
    assert!(reply["id"] == "q" && reply["answer"]["text"].is_string(), "{reply}");
    let answers = || {
        let all = ear.json(&format!("streamkvqa/camera/{camera}/answer"));
        all.into_iter().filter(|answer| answer["id"] == reply["answer"]["id"]).count()
    };
    wait_for("the answer", || (answers() > 0).then_some(()));

    b.kill();
    wait_for("its last will", || {
        ear.of("streamkvqa/wall/b/status")
            .last()
            .is_some_and(|last| last == "offline")
            .then_some(())
    });
    all_live(&[&a], 2);
    wait_for("the other wall's word", || speaks("a"));
    assert_eq!((replies().len(), answers()), (1, 1));
    runtime.block_on(async { drop(ear) });
}

#[test]
fn without_the_server_everything_is_a_state_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let port = super::servers::free_port();
    let nowhere = Setting {
        nats: format!("nats://127.0.0.1:{port}"),
        lease: 4.0,
        cameras: 1,
        more: String::new(),
    };
    let a = Wall::start(folder.path(), "a", &nowhere);
    wait_for("the state", || {
        let state = a.get("/api/state")?;
        let broker =
            state["brokers"].as_array()?.iter().find(|broker| broker["kind"] == "cluster")?.clone();
        (broker["state"] == "failed"
            && broker["reason"].is_string()
            && broker["next_try"].is_string())
        .then_some(())
    });
    assert!(a.ask("c0", "is it there?").unwrap_err().contains("NATS"));
}

/// `WALL_ROUNDS` has it go on for longer, `WALL_SEED` as it went once.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_comes_twice_whatever_is_killed() {
    const CAMERAS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(&folder.path().join("nats"));
    let setting = setting(&nats, CAMERAS);
    // `a` lives, so that somebody hears everything; the others do not.
    let a = Wall::start(folder.path(), "a", &setting);
    let mut others =
        [Wall::start(folder.path(), "b", &setting), Wall::start(folder.path(), "c", &setting)];
    spread(&[&a, &others[0], &others[1]], CAMERAS, &[1, 1, 2]);
    let told = a.answers();
    let mut taken = BTreeSet::new();
    let ask_all = |wall: &Wall, taken: &mut BTreeSet<String>| {
        for camera in 0..CAMERAS {
            if let Ok(id) = wall.ask(&format!("c{camera}"), "what is here now?") {
                taken.insert(id);
            }
        }
    };
    let seed = std::env::var("WALL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let rounds =
        std::env::var("WALL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..rounds {
        ask_all(&a, &mut taken);
        let victim = random.usize(..2);
        ask_all(&others[victim], &mut taken);
        std::thread::sleep(Duration::from_millis(random.u64(..300)));
        let what = if round < 3 { round } else { random.usize(..5) };
        let mut begin = Instant::now();
        match what {
            0 => others[victim].kill(),
            // Stopped for longer than a lease: it wakes up as if nothing had been.
            1 => others[victim].signal("STOP"),
            2 => {
                nats.kill();
                std::thread::sleep(Duration::from_millis(random.u64(..8000)));
                nats.again();
                begin = Instant::now();
            }
            3 => others.iter_mut().for_each(Wall::kill),
            _ => {
                others[victim].kill();
                nats.kill();
                std::thread::sleep(Duration::from_millis(random.u64(..8000)));
                nats.again();
                begin = Instant::now();
            }
        }
        let left: Vec<&Wall> = match what {
            2 => vec![&a, &others[0], &others[1]],
            3 => vec![&a],
            _ => vec![&a, &others[1 - victim]],
        };
        let watched = all_live(&left, CAMERAS);
        let took = begin.elapsed();
        println!("seed {seed}, round {round}: {what}, watched again after {took:.1?}: {watched:?}");
        assert!(took < WATCHED_AGAIN, "round {round}: {what}, {took:?}\n{}", a.log());
        match what {
            1 => others[victim].signal("CONT"),
            2 => {}
            3 => others.iter_mut().for_each(Wall::again),
            _ => others[victim].again(),
        }
        ask_all(&a, &mut taken);
        spread(&[&a, &others[0], &others[1]], CAMERAS, &[1, 1, 2]);
    }
    let lost = || -> BTreeSet<String> {
        let told = told.lock();
        taken.iter().filter(|id| !told.contains_key(*id)).cloned().collect()
    };
    wait_for("every answer", || lost().is_empty().then_some(()));
    // Whatever would come twice has had its time.
    std::thread::sleep(Duration::from_secs(3));
    let told = told.lock();
    let twice: Vec<&Vec<Value>> = told.values().filter(|answers| answers.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let failed: Vec<&Value> =
        taken.iter().flat_map(|id| &told[id]).filter(|answer| !answer["error"].is_null()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    println!("{} questions", taken.len());
}
