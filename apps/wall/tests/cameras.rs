// SPDX-License-Identifier: MPL-2.0
//! Cameras: what they answer, and what becomes of those that fail.

mod common;

use std::time::Duration;

use common::*;
use serde_json::json;
use streamkvqa_wall::config::StandingConfig;
use streamkvqa_wall::hub::{AlertState, CameraState, Event, On, Question, Refused};

fn question(text: &str) -> Question {
    Question { text: text.into(), ..Question::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_plays_in_a_loop_and_answers_with_pictures_of_what_it_looked_at() {
    let clip = at("clip", &path("examples/media/toyworld.webm")) + "loop = true\n";
    let mut rig = Rig::start(&clip).await;
    rig.until_state("clip", CameraState::Live).await;
    rig.until("clip", "a memory", |camera| camera.health.memory_units > 1).await;
    rig.until("clip", "its memory by age", |camera| {
        let units: u64 = camera.health.tiers.iter().map(|tier| tier.units).sum();
        units == camera.health.memory_units && camera.health.tiers.iter().all(|tier| tier.bytes > 0)
    })
    .await;
    let before = jiff::Timestamp::now();
    let id = rig.wall.asks.ask("clip", question("what is here now?")).await.unwrap();
    let mut words = String::new();
    let answer = rig
        .event("answer", |event| match event {
            Event::Token { answer, text, .. } if *answer == id => {
                words.push_str(text);
                None
            }
            Event::Answer(answer) if answer.id == id => Some(answer.clone()),
            _ => None,
        })
        .await;
    assert_eq!(answer.error, None);
    assert_eq!(words.trim(), answer.text);
    assert!(answer.confidence.is_some_and(|share| share > 0.0 && share <= 1.0), "{answer:?}");
    assert!(answer.first_token_ms.is_some() && answer.asked >= before);
    let evidence = answer.evidence.first().expect("it rests on something");
    let second = Duration::from_secs(20);
    assert!(evidence.from > before - second && evidence.from <= answer.answered, "{answer:?}");
    let picture = evidence.picture.clone().expect("there is a picture of it");
    let jpeg = rig.get(&format!("/api/pictures/{picture}.jpg")).await;
    assert_eq!((jpeg.status, &jpeg.body[..2]), (200, &b"\xff\xd8"[..]));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_camera_says_why_when_it_is_tried_again_and_disturbs_no_other() {
    let no_video = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(no_video.path(), "no video at all, but words\n".repeat(100)).unwrap();
    let sound = tempfile::NamedTempFile::with_suffix(".wav").unwrap();
    let tone = format!(
        "audiotestsrc num-buffers=20 ! wavenc ! filesink location={}",
        sound.path().display()
    );
    assert!(
        std::process::Command::new("gst-launch-1.0")
            .arg("-q")
            .args(tone.split(' '))
            .status()
            .unwrap()
            .success()
    );
    let locked = Server::rtsp(0, &["me", "right"]);
    // Nobody listens there, since it is ours and we do not.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = deaf.local_addr().unwrap().port();
    drop(deaf);
    let all = [
        ball("good"),
        at("nobody", &format!("rtsp://127.0.0.1:{free}/camera")),
        at("locked", &format!("rtsp://me:wrong-one@{}", locked.address)),
        at("words", no_video.path().to_str().unwrap()),
        at("sound", sound.path().to_str().unwrap()),
        at("missing", "/nowhere/at/all.webm"),
        "[[camera]]\nid = \"pipeline\"\npipeline = \"videotestsrc ! nosuchelement\"\n".into(),
        "[[camera]]\nid = \"signs\"\npipeline = \"videotestsrc ! ! ( \\\" x=\"\n".into(),
        "[[camera]]\nid = \"end\"\npipeline = \"videotestsrc ! fakesink\"\n".into(),
        "[[camera]]\nid = \"noise\"\npipeline = \"audiotestsrc\"\n".into(),
        "[[camera]]\nid = \"name\"\npipeline = \"videotestsrc name=wall-decoder\"\n".into(),
        at("kind", "gopher://camera/stream"),
        at("port", "rtsp://127.0.0.1:99999/camera"),
        at("folder", "/"),
        at("spaces", "rtsp://a camera/stream"),
        at("nothing", "rtsp://"),
        at("good-2", &path("examples/media/toyworld.webm")) + "loop = true\n",
        at("good-3", &path("examples/media/toyworld.webm")) + "loop = true\n",
        ball("model") + "model = \"/nowhere/model\"\n",
        ball("property") + "properties = { sample-rate = \"often\" }\n",
    ];
    let mut rig = Rig::start(&all.concat()).await;
    rig.until_state("good", CameraState::Live).await;
    for (id, said) in [
        ("nobody", "cannot be reached"),
        ("locked", "wrong user or password"),
        ("words", "this is no video"),
        ("sound", "no video"),
        ("missing", "nothing at this address"),
        ("pipeline", "nosuchelement"),
        ("signs", ""),
        ("end", ""),
        ("noise", "no video"),
        ("name", ""),
        ("kind", "gopher"),
        ("port", ""),
        ("folder", ""),
        ("spaces", ""),
        ("nothing", ""),
        ("model", "/nowhere/model"),
        ("property", "sample-rate"),
    ] {
        let camera = rig.until_state(id, CameraState::Waiting).await;
        let reason = camera.reason.unwrap();
        println!("{id}: {reason}");
        assert!(!reason.is_empty() && reason.contains(said), "{id}: {reason}");
        assert!(!reason.contains("wrong-one"), "{reason}");
        // What the element lacks is not the camera, and is told in words.
        assert!(id != "model" || reason.starts_with("cannot read /nowhere/model"), "{reason}");
        assert!(!reason.contains(" { "), "{reason}");
        assert!(
            camera.next_try.is_some_and(|at| at > jiff::Timestamp::now() - Duration::from_secs(90)),
            "{id}"
        );
        let refused = rig.wall.asks.ask(id, question("what is here now?")).await.unwrap_err();
        assert!(matches!(refused, Refused::NotNow(_)), "{id}: {refused:?}");
    }
    // Two of one clip play, each on its own.
    rig.until_state("good-2", CameraState::Live).await;
    rig.until_state("good-3", CameraState::Live).await;
    let frames = rig.camera("good").health.frames;
    rig.until("good", "more frames", |camera| camera.health.frames > frames).await;
    let id = rig.wall.asks.ask("good", question("what is here now?")).await.unwrap();
    assert_eq!(rig.answer(&id).await.error, None);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_goes_and_comes_keeps_its_memory_and_its_questions() {
    let server = Server::rtsp(0, &["me", "right"]);
    let port = server.port();
    let standing = "stall_after = 4\nstanding = [{ id = \"now\", question = \"what is here now?\", every = 1 }]\n";
    let camera = at("yard", &format!("rtsp://me:right@{}", server.address)) + standing;
    let mut rig = Rig::start(&camera).await;
    rig.until_state("yard", CameraState::Live).await;
    let before = rig.until("yard", "a memory", |camera| camera.health.memory_units >= 2).await;
    // It falls silent, and has found its voice again.
    server.signal("STOP");
    let stalled = rig.until_state("yard", CameraState::Stalled).await;
    assert!(stalled.reason.is_some());
    server.signal("CONT");
    rig.until_state("yard", CameraState::Live).await;
    // It falls silent for good.
    server.signal("STOP");
    let waiting = rig.until_state("yard", CameraState::Waiting).await;
    assert!(waiting.next_try.is_some());
    // What it has seen can be asked about meanwhile.
    let id = rig.wall.asks.ask("yard", question("what is here now?")).await.unwrap();
    assert_eq!(rig.answer(&id).await.error, None);
    // It goes in the middle of the next try.
    rig.until_state("yard", CameraState::Starting).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill();
    rig.until_state("yard", CameraState::Waiting).await;
    let server = Server::rtsp(port, &["me", "right"]);
    let after = rig.until_state("yard", CameraState::Live).await;
    assert!(after.health.memory_units >= before.health.memory_units, "{after:?}");
    rig.event("another answer of the standing question", |event| match event {
        Event::Health { health, .. } => {
            (health.memory_units > before.health.memory_units).then_some(())
        }
        _ => None,
    })
    .await;
    drop(server);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_outlives_the_wall() {
    let mut rig = Rig::start(&ball("yard")).await;
    let seen = rig.until("yard", "a memory", |camera| camera.health.memory_units >= 3).await;
    let file = rig.wall.asks.memory_path("yard").unwrap();
    assert!(!file.exists());
    let data = rig.stop().await;
    assert!(file.exists());
    let mut rig = Rig::again(data, &ball("yard")).await;
    let camera = rig.until("yard", "its first numbers", |camera| camera.health.frames > 0).await;
    assert!(camera.health.memory_units >= seen.health.memory_units, "{camera:?}");
    // Evidence of the earlier run has the time of day that it had.
    let id = rig.wall.asks.ask("yard", question("what is here now?")).await.unwrap();
    let answer = rig.answer(&id).await;
    let ago = Duration::from_secs(120);
    assert!(
        answer.evidence.iter().all(|stretch| stretch.from > answer.answered - ago),
        "{answer:?}"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_question_has_a_state_makes_alerts_and_stays() {
    let mut rig = Rig::start(&ball("yard")).await;
    rig.until_state("yard", CameraState::Live).await;
    let standing = StandingConfig {
        question: "is there a red circle now?".into(),
        every: Some(0.5),
        on: On::Time,
        choices: vec!["yes".into(), "no".into()],
        ..StandingConfig::default()
    };
    let id = rig.wall.asks.add_standing("yard", standing.clone()).await.unwrap().id;
    assert_eq!(id, "is-there-a-red-circle-now");
    let state = |camera: &streamkvqa_wall::hub::Camera| camera.standing[0].state.clone();
    let camera = rig.until("yard", "an answer", |camera| state(camera).is_some()).await;
    let said = state(&camera).unwrap();
    assert!(camera.standing[0].since.is_some() && camera.standing[0].confidence.is_some());
    // Whatever it says is what the next one watches for.
    let watch = StandingConfig { id: Some("watch".into()), when: Some(said), ..standing };
    rig.wall.asks.add_standing("yard", watch).await.unwrap();
    let alert = rig
        .event("alert", |event| match event {
            Event::Alert(alert) => Some(alert.clone()),
            _ => None,
        })
        .await;
    assert_eq!((alert.standing.as_str(), alert.state), ("watch", AlertState::On));
    let data = rig.stop().await;
    let mut rig = Rig::again(data, &ball("yard")).await;
    let camera = rig
        .until("yard", "an answer", |camera| camera.standing.iter().all(|one| one.state.is_some()))
        .await;
    let ids: Vec<&str> = camera.standing.iter().map(|standing| standing.id.as_str()).collect();
    assert_eq!(ids, ["is-there-a-red-circle-now", "watch"]);
    rig.wall.asks.remove_standing("yard", "watch").await.unwrap();
    let camera = rig.camera("yard");
    assert_eq!(camera.standing.len(), 1);
    let refused = rig.wall.asks.remove_standing("yard", "watch").await.unwrap_err();
    assert!(matches!(refused, Refused::NotFound(_)));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_one_last_word_even_when_its_camera_is_stopped() {
    let mut rig = Rig::start(&ball("yard")).await;
    rig.until_state("yard", CameraState::Live).await;
    let mut asked = Vec::new();
    for _ in 0..20 {
        asked.push(rig.wall.asks.ask("yard", question("what is here now?")).await.unwrap());
    }
    rig.wall.cameras.remove("yard").await;
    let mut ended = Vec::new();
    rig.event("last word", |event| {
        if let Event::Answer(answer) = event {
            ended.push(answer.id.clone());
        }
        (ended.len() == asked.len()).then_some(())
    })
    .await;
    ended.sort();
    assert_eq!(ended, asked);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_while_somebody_looks_and_are_kept_by_time() {
    let mut rig = Rig::start(&ball("yard")).await;
    rig.until_state("yard", CameraState::Live).await;
    let live = rig.wall.cameras.live("yard").unwrap();
    let mut view = live.view();
    for _ in 0..5 {
        tokio::time::timeout(PATIENCE, view.changed()).await.unwrap().unwrap();
    }
    let picture = view.borrow_and_update().clone().unwrap();
    assert_eq!(picture.jpeg[..2], *b"\xff\xd8");
    let moments = loop {
        let moments = rig.get("/api/cameras/yard/moments?around=60").await.json();
        if moments["items"].as_array().unwrap().len() >= 2 {
            break moments;
        }
        view.changed().await.unwrap();
    };
    let key = moments["items"][0]["picture"].as_str().unwrap();
    assert_eq!(
        rig.get(&format!("/api/pictures/{key}.jpg")).await.header("content-type"),
        "image/jpeg"
    );
    assert_eq!(
        rig.get("/api/pictures/yard-1.jpg").await.json()["error"]["message"].is_string(),
        json!(true)
    );
    rig.stop().await;
}
