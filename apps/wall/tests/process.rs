// SPDX-License-Identifier: MPL-2.0
//! The program as users start it: killed, told to read its file again, on a full disk, with faults.

mod common;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use common::*;
use serde_json::{Value, json};

fn write(folder: &Path, rest: &str) -> std::path::PathBuf {
    let file = folder.join("wall.toml");
    std::fs::write(&file, text(&folder.join("data"), rest)).unwrap();
    file
}

fn is_live(state: &Value, id: &str) -> bool {
    camera_of(state, id)["state"] == "live"
}

fn broker<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut brokers = state["brokers"].as_array().unwrap().iter();
    brokers.find(|broker| broker["name"] == name).unwrap_or(&Value::Null)
}

fn items(program: &Program) -> Vec<Value> {
    program.get("api/history?limit=500").json()["items"].as_array().unwrap().clone()
}

/// Asks so many more questions, and returns what the history says when they are answered.
fn asked(program: &Program, many: usize) -> Vec<Value> {
    let all = items(program).len() + many;
    let ask = json!({"cameras": ["yard"], "question": "what is here now?"});
    for _ in 0..many {
        assert_eq!(program.post("api/ask", ask.clone()).status, 202);
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let items = items(program);
        if items.len() >= all {
            return items;
        }
        assert!(std::time::Instant::now() < deadline, "{} of {all} answers", items.len());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_was_answered_outlives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &ball("yard"));
    let mut known: Vec<Value> = Vec::new();
    for _ in 0..3 {
        let program = Program::start(&file);
        program.until("live", |state| is_live(state, "yard"));
        // All that has ever been shown, in its order.
        assert_eq!(items(&program), known);
        known = asked(&program, 7);
        program.kill();
    }
    let data = rusqlite::Connection::open(folder.path().join("data/wall.db")).unwrap();
    let sound: String = data.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

/// Killed until it was in the middle of something.
#[test]
fn a_question_that_was_taken_has_one_last_word_after_kill_9() {
    const ENDED: &str = "the wall stopped before it was answered";
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &ball("yard"));
    let mut taken: Vec<String> = Vec::new();
    for round in 0..20 {
        let program = Program::start(&file);
        program.until("live", |state| is_live(state, "yard"));
        let items = items(&program);
        let mut known: Vec<&str> =
            items.iter().map(|answer| answer["id"].as_str().unwrap()).collect();
        known.sort_unstable();
        assert_eq!(known, taken, "round {round}");
        let ended = items.iter().filter(|answer| !answer["error"].is_null());
        let mut ended = ended.inspect(|answer| assert_eq!(answer["error"], ENDED, "{answer}"));
        if let Some(answer) = ended.next() {
            assert!(answer["answered"].as_str() > answer["asked"].as_str(), "{answer}");
            assert_eq!(answer["question"], "what is here now?");
            return;
        }
        let ask = json!({"cameras": ["yard"], "question": "what is here now?"});
        for _ in 0..4 {
            let asked = program.post("api/ask", ask.clone()).json();
            taken.push(asked["asked"][0]["id"].as_str().unwrap().to_owned());
        }
        program.kill();
    }
    panic!("it was never killed with a question open");
}

#[test]
fn an_alert_that_is_on_is_not_told_again_after_kill_9_and_its_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let watch = |when: &str| {
        ball("yard")
            + "[[camera.standing]]\nid = \"watch\"\nquestion = \"is there a red circle now?\"\nevery = 0.5\n"
            + &format!("choices = [\"yes\", \"no\"]\nwhen = \"{when}\"\n")
    };
    let watched = |state: &Value| camera_of(state, "yard")["standing"][0]["state"].is_string();
    let alerts = |program: &Program| {
        let past = program.get("api/history?kind=alert").json();
        let states = past["items"].as_array().unwrap().iter().rev();
        states.map(|alert| alert["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Whatever it says is watched for.
    let program = Program::start(&write(folder.path(), &watch("yes")));
    let state = program.until("an answer", watched);
    let said = camera_of(&state, "yard")["standing"][0]["state"].as_str().unwrap().to_owned();
    let file = write(folder.path(), &watch(&said));
    program.kill();
    std::fs::remove_dir_all(folder.path().join("data")).unwrap();
    for _ in 0..3 {
        let program = Program::start(&file);
        program.until("an answer", watched);
        let deadline = std::time::Instant::now() + PATIENCE;
        while alerts(&program).is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(alerts(&program), ["on"]);
        program.kill();
    }
    // As if it had been on when the wall was killed, and were over now.
    let other = if said == "yes" { "no" } else { "yes" };
    let data = rusqlite::Connection::open(folder.path().join("data/wall.db")).unwrap();
    let set = "UPDATE alerts SET json = json_set(json, '$.answer', ?1)";
    assert_eq!(data.execute(set, [other]).unwrap(), 1);
    drop(data);
    let program = Program::start(&write(folder.path(), &watch(other)));
    let deadline = std::time::Instant::now() + PATIENCE;
    while alerts(&program) != ["on", "off"] {
        assert!(std::time::Instant::now() < deadline, "{:?}", alerts(&program));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn another_file_is_taken_without_disturbing_what_it_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &(ball("yard") + &ball("gone")));
    let program = Program::start(&file);
    let is_ready = |state: &Value| is_live(state, "yard") && is_live(state, "gone");
    program.until("two cameras", is_ready);
    let frames = |state: &Value| camera_of(state, "yard")["health"]["frames"].as_u64().unwrap();
    let before = program.until("frames", |state| frames(state) > 0);
    // On change.
    write(
        folder.path(),
        &(ball("yard")
            + "name = \"Yard\"\nstanding = [{ question = \"is it?\" }]\n"
            + &ball("new")),
    );
    let state = program.until("a new camera", |state| is_live(state, "new"));
    // As in the file.
    assert_eq!(
        (&state["cameras"][0]["id"], &state["cameras"][1]["id"]),
        (&json!("yard"), &json!("new"))
    );
    let yard = camera_of(&state, "yard");
    assert_eq!((&yard["name"], &yard["standing"][0]["id"]), (&json!("Yard"), &json!("is-it")));
    assert_eq!(camera_of(&state, "gone"), &Value::Null);
    assert_eq!(yard["since"], camera_of(&before, "yard")["since"], "it went on");
    assert!(frames(&state) >= frames(&before), "in the same pipeline");
    // A fault, on SIGHUP: a state, and nothing changes.
    write(folder.path(), "[[camera]]\nid = \"yard\"\n");
    signal(program.process.id(), "HUP");
    let state =
        program.until("a fault", |state| broker(state, "configuration")["state"] == "failed");
    let reason = broker(&state, "configuration")["reason"].as_str().unwrap();
    assert!(
        reason.contains("wall.toml:6:1") && reason.contains("neither uri nor pipeline"),
        "{reason}"
    );
    assert!(is_live(&state, "yard") && is_live(&state, "new"));
    write(folder.path(), &ball("yard"));
    let state =
        program.until("no fault", |state| broker(state, "configuration")["state"] == "connected");
    assert_eq!(state["cameras"].as_array().unwrap().len(), 1);
    assert_eq!(camera_of(&state, "yard")["since"], camera_of(&before, "yard")["since"]);
    // It ends when it is told to, and saves.
    let mut program = program;
    signal(program.process.id(), "TERM");
    assert!(program.process.wait().unwrap().success());
    assert!(folder.path().join("data/memories/yard.toyworld.memory").exists());
}

/// Whether a process may have file systems of its own.
fn namespaces() -> bool {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}

#[test]
fn a_full_disk_is_a_state_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &(ball("yard") + "memory = false\n"));
    let data = folder.path().join("data");
    let wall = [Path::new(env!("CARGO_BIN_EXE_streamkvqa-wall")), &file];
    // A disk of its own for the data, of 2 MB: in a namespace, so that nobody has to be root. Where that is
    // forbidden, as in some containers, the little shared memory that these have.
    let shared = (!namespaces()).then(|| {
        let size =
            Command::new("df").args(["--output=size", "--block-size=1M", "/dev/shm"]).output();
        let size = String::from_utf8(size.unwrap().stdout).unwrap();
        let size = size.lines().last().and_then(|size| size.trim().parse::<u64>().ok());
        assert!(
            size.is_some_and(|size| size <= 256),
            "no small disk: neither unshare nor /dev/shm"
        );
        tempfile::tempdir_in("/dev/shm").unwrap()
    });
    let (program, seen) = match &shared {
        Some(disk) => {
            std::os::unix::fs::symlink(disk.path(), &data).unwrap();
            (Program::of(Command::new(wall[0]).arg(wall[1])), data.clone())
        }
        None => {
            std::fs::create_dir(&data).unwrap();
            let mount = "mount -t tmpfs -o size=2m none \"$0\" && exec \"$1\" \"$2\"";
            let confined = ["--user", "--map-root-user", "--mount", "sh", "-c", mount];
            let mut unshare = Command::new("unshare");
            let program = Program::of(unshare.args(confined).arg(&data).args(wall));
            // Seen from outside of the namespace.
            let inside = format!("/proc/{}/root{}", program.process.id(), data.display());
            (program, inside.into())
        }
    };
    program.until("live", |state| is_live(state, "yard"));
    let known = asked(&program, 3);
    let hog = seen.join("hog");
    let fill = Command::new("dd")
        .args(["if=/dev/zero", "bs=1k"])
        .arg(format!("of={}", hog.display()))
        .output();
    assert!(!fill.unwrap().status.success(), "there was no end to the disk");
    let state = program.until("a full disk", |state| broker(state, "history")["state"] == "failed");
    let reason = broker(&state, "history")["reason"].as_str().unwrap();
    assert!(reason.contains("is full"), "{reason}");
    assert!(broker(&state, "history")["next_try"].is_string());
    assert!(is_live(&state, "yard"), "{state:#}");
    // What is stored is there, and what happens meanwhile is kept until there is room.
    assert_eq!(program.get("api/history?limit=3").json()["items"], json!(known));
    let ask = json!({"cameras": ["yard"], "question": "what is here now?"});
    assert_eq!(program.post("api/ask", ask).status, 202);
    program.until("an answer that waits", |state| broker(state, "history")["waiting"] == 1);
    std::fs::remove_file(&hog).unwrap();
    program.until("room", |state| {
        let history = broker(state, "history");
        history["state"] == "connected" && history["waiting"] == 0
    });
    assert_eq!(program.get("api/history").json()["items"].as_array().unwrap().len(), 4);
}

#[test]
fn what_keeps_it_from_starting_is_said_with_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_streamkvqa-wall");
    let says = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = says(Command::new(program).arg(folder.path().join("none.toml")));
    assert!(said.contains("none.toml") && said.contains("No such file"), "{said}");
    let file = write(folder.path(), "[access]\ntokens = [3]\n");
    let said = says(Command::new(program).arg(&file));
    assert!(
        said.contains("wall.toml:7:11: invalid type") && said.contains("expected a string"),
        "{said}"
    );
    // Without the element.
    let file = write(folder.path(), "");
    let alone = folder.path().join("alone");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(program, alone.join("wall")).unwrap();
    let said = says(
        Command::new(alone.join("wall"))
            .arg(&file)
            .env("GST_PLUGIN_PATH", &alone)
            .env("GST_PLUGIN_SYSTEM_PATH", &alone)
            .env("GST_REGISTRY", alone.join("registry")),
    );
    assert!(said.contains("no element streamkvqa") && said.contains("make build"), "{said}");
    // Where no folder can be.
    let taken = folder.path().join("a-file");
    std::fs::write(&taken, "").unwrap();
    let said = says(Command::new(program).arg(&file).arg("--data").arg(&taken));
    assert!(said.contains("a-file") && said.contains("`data`"), "{said}");
    // Twice in one folder.
    let first = Program::start(&file);
    let said = says(Command::new(program).arg(&file));
    assert!(said.contains("another wall uses the folder"), "{said}");
    let taken = first.url.trim_start_matches("http://").trim_end_matches('/');
    let other = text(&folder.path().join("other"), "").replace("127.0.0.1:0", taken);
    let second = folder.path().join("second.toml");
    std::fs::write(&second, other).unwrap();
    let said = says(Command::new(program).arg(&second));
    assert!(said.contains("cannot listen on") && said.contains("`listen`"), "{said}");
}

#[test]
fn a_thousand_pages_may_be_open_where_few_files_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &ball("yard"));
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$1\""]);
    let program = Program::of(command.arg(env!("CARGO_BIN_EXE_streamkvqa-wall")).arg(&file));
    program.until("live", |state| is_live(state, "yard"));
    let address = program.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut pages = Vec::new();
    for number in 0..1000 {
        let mut page = std::net::TcpStream::connect(&address).unwrap();
        page.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(page, "GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 12];
        page.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200", "{number}");
        pages.push(page);
    }
    // What needs files has them.
    assert_eq!(program.get("api/history").status, 200);
    assert!(!asked(&program, 1).is_empty());
    assert!(is_live(&program.get("api/state").json(), "yard"));
    // There is an end to it, with a reason.
    let mut refused = 0;
    for _ in 0..40 {
        let mut page = std::net::TcpStream::connect(&address).unwrap();
        write!(page, "GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 12];
        page.read_exact(&mut first).unwrap();
        refused += usize::from(&first == b"HTTP/1.1 503");
        pages.push(page);
    }
    assert_eq!(refused, 16, "of 1040, 1024 are served");
    drop(pages);
    program.until("a page", |_| true);
}

#[test]
fn files_that_follow_each_other_fast_leave_what_the_last_one_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &ball("yard"));
    let program = Program::start(&file);
    // While cameras are starting, and stopping.
    for round in 0..12 {
        let cameras: String = (0..round % 4).map(|number| ball(&format!("c{number}"))).collect();
        write(folder.path(), &(ball("yard") + &cameras));
        signal(program.process.id(), "HUP");
        std::thread::sleep(std::time::Duration::from_millis(150 * (round % 3)));
    }
    write(folder.path(), &(ball("last") + &ball("yard")));
    signal(program.process.id(), "HUP");
    let ids = |state: &Value| {
        let cameras = state["cameras"].as_array().unwrap().iter();
        cameras.map(|camera| camera["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    program.until("the last file", |state| {
        ids(state) == ["last", "yard"] && is_live(state, "last") && is_live(state, "yard")
    });
}
