// SPDX-License-Identifier: MPL-2.0
//! The pipelines and examples that the README shows, run as a user would run them.
#![cfg(feature = "element")]

mod elsewhere;
mod readme;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gst::prelude::*;
use gstreamer as gst;
use gststreamkvqa::memory::recipe::RecipeOption;

/// What is alive when a process ends GStreamer is written to its standard error.
const TRACED: [(&str, &str); 3] =
    [("GST_TRACERS", "leaks"), ("GST_DEBUG", "GST_TRACER:7"), ("GST_DEBUG_NO_COLOR", "1")];
/// How the leaks tracer begins to tell of an object.
const ALIVE: &str = "object-alive, type-name=(string)Gst";
/// Ends GStreamer behind a script in Python, which would leave that to the system.
const TRACED_PYTHON: &str = "tests/pipelines/traced.py";

/// Runs a script of this repository in an empty folder of its own.
struct Run {
    folder: tempfile::TempDir,
    command: Command,
    typist: Option<Child>,
}

impl Run {
    /// `program` is relative to the repository; what hangs is stopped after two minutes.
    fn new(program: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", "120"])
            .args(program.ends_with(".py").then(|| root().join(TRACED_PYTHON)))
            .arg(root().join(program))
            .current_dir(folder.path())
            .env("CARGO_TARGET_DIR", target())
            .envs(TRACED)
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::null());
        Self { folder, command, typist: None }
    }

    fn arg(mut self, value: &str) -> Self {
        self.command.arg(value);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Types `line` on the console after `seconds`, then closes it.
    fn typing(mut self, seconds: u32, line: &str) -> Self {
        let mut typist = Command::new("sh")
            .args(["-c", &format!("sleep {seconds}; echo '{line}'")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        self.command.stdin(typist.stdout.take().expect("a pipe"));
        self.typist = Some(typist);
        self
    }

    #[track_caller]
    fn succeeds(mut self) -> Done {
        let output = self.command.output().expect("the script starts");
        if let Some(mut typist) = self.typist {
            typist.wait().expect("sh ends");
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !errors.contains(ALIVE),
            "{:?}: {}\n--- stdout\n{text}\n--- stderr\n{errors}",
            self.command,
            output.status,
        );
        Done { folder: self.folder, text }
    }
}

/// What a run left behind.
struct Done {
    folder: tempfile::TempDir,
    text: String,
}

impl Done {
    #[track_caller]
    fn says(&self, expected: &str) -> &Self {
        assert!(self.text.contains(expected), "no {expected:?} in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn says_times(&self, expected: &str, times: usize) -> &Self {
        let found = self.text.matches(expected).count();
        assert!(found >= times, "{expected:?} {found} times, not {times}, in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn wrote(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The folder cargo builds in; this test lies in `<target>/<profile>/deps`.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(3).expect("a target folder").to_owned()
}

/// A folder with the plugin in it, as env.sh makes it for the scripts.
fn plugins() -> PathBuf {
    let plugins = target().join("debug/gstreamer-1.0");
    fs::create_dir_all(&plugins).unwrap();
    let _ =
        std::os::unix::fs::symlink("../libgststreamkvqa.so", plugins.join("libgststreamkvqa.so"));
    plugins
}

fn is_matroska(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1a, 0x45, 0xdf, 0xa3])
}

/// The questions of the demo: those that are asked once, in that order, and those that stand.
fn demo_questions() -> (Vec<String>, Vec<String>) {
    questions_of("everyday")
}

/// The same of the clip of a world.
fn questions_of(world: &str) -> (Vec<String>, Vec<String>) {
    let file = root().join(format!("examples/media/{world}.questions.jsonl"));
    let lines = fs::read_to_string(file).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let (once, standing): (Vec<_>, Vec<_>) = lines.partition(|line| line["interval"].is_null());
    let texts = |lines: Vec<serde_json::Value>| {
        lines.iter().map(|line| line["question"].as_str().unwrap().to_owned()).collect()
    };
    (texts(once), texts(standing))
}

/// How many answers of the demo are right at least.
const RIGHT: usize = 10;

#[test]
fn the_demo_answers_its_questions_and_writes_subtitles_and_a_video() {
    let demo = Run::new("pipelines/demo.sh").succeeds();
    let (questions, standing) = demo_questions();
    assert!(questions.len() >= 12 && standing.len() == 2);
    for question in &questions {
        demo.says(question);
    }
    for question in &standing {
        demo.says(&format!(" ! {question}\n"));
    }
    demo.says_times("yes since ", standing.len()).says_times("no, it lasted ", standing.len());
    demo.says_times("seen at ", questions.len() - 1);
    let closing = demo.text.lines().find(|line| line.ends_with(" answers were right.")).unwrap();
    let numbers: Vec<usize> = closing.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[1], questions.len(), "{closing}");
    assert!(numbers[0] >= RIGHT, "{closing}");

    let subtitles = String::from_utf8(demo.wrote("demo.srt")).unwrap();
    // Each change of what stands is one too.
    let titles = subtitles.matches(" --> ").count();
    assert!(titles >= questions.len() + 2 * standing.len(), "{subtitles}");
    for question in questions.iter().chain(&standing) {
        assert!(subtitles.contains(question.as_str()), "no {question:?} in\n{subtitles}");
    }
    let video = demo.wrote("demo.mkv");
    assert!(is_matroska(&video) && video.len() > 100_000, "{} bytes", video.len());
}

/// How many answers about the toy world's clip are right at least, by methods whose context holds what is
/// asked for. The others promise less: some forget, some cannot tell now from then.
const KNOWING: [(&str, usize); 4] = [("streamkv", 11), ("rekv", 12), ("full", 12), ("auto", 11)];

#[test]
fn every_method_answers_the_questions_about_a_clip() {
    let run = Run::new("pipelines/methods.sh").env("STREAMKVQA_WORLD", "toyworld").succeeds();
    println!("{}", run.text);
    let questions = questions_of("toyworld").0.len();
    let rows: Vec<&str> = run.text.lines().skip(1).collect();
    let names = rows.iter().filter_map(|row| row.split_whitespace().next());
    assert_eq!(names.collect::<Vec<_>>(), gststreamkvqa::Recipe::names(), "{}", run.text);
    for row in rows {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [name, right, "of", asked, ..] = words[..] else { panic!("{row}") };
        assert_eq!(asked, questions.to_string(), "an answer to each question: {row}");
        assert!(!row.contains("\"\""), "an empty answer: {row}");
        let right: usize = right.parse().unwrap();
        let wrong = row.matches('"').count() / 2;
        assert_eq!(right + wrong, questions, "{row}");
        let least = KNOWING.iter().find(|known| known.0 == name).map_or(1, |known| known.1);
        assert!(right >= least, "{least} answers should be right: {row}");
    }
}

#[test]
fn a_file_becomes_subtitles() {
    let run = Run::new("pipelines/file-to-srt.sh").succeeds();
    assert!(run.text.matches(" --> ").count() >= demo_questions().0.len(), "{}", run.text);
    assert_eq!(run.wrote("answers.srt"), run.text.as_bytes());
}

#[test]
fn the_debug_log_shows_frames_taken_questions_asked_and_how_long_they_take() {
    let mut run = Run::new("pipelines/file-to-srt.sh").env("GST_DEBUG", "streamkvqa*:6");
    let output = run.command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    let lines = |words: [&str; 2]| {
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    // The clip has a minute and a half, and the model looks once a second.
    let frames = lines(["frame at 0:0", " taken in "]);
    assert!((85..=100).contains(&frames), "{frames} frames taken in:\n{log}");
    assert!(lines([" frames up to ", " seen in "]) > 0, "{log}");
    let (questions, standing) = demo_questions();
    for question in questions.iter().chain(&standing) {
        assert!(lines([" is asked: ", &format!("{question:?}")]) > 0, "no {question:?} in:\n{log}");
    }
    assert!(lines(["answer ", " after "]) >= questions.len() + standing.len(), "{log}");
    // One question's story, each part by its room.
    let asked = log.lines().find(|line| line.contains(&format!("is asked: {:?}", questions[0])));
    let id = asked.and_then(|line| line.split("question ").nth(1)?.split(' ').next()).unwrap();
    let story = [
        ("streamkvqa-questions", format!("question {id} is asked: ")),
        ("streamkvqa-engine", format!("question {id} waited ")),
        ("streamkvqa-engine", " first token after ".to_owned()),
        ("streamkvqa-answers", format!("answer {id} after ")),
        ("streamkvqa-text", "pushing Buffer".to_owned()),
        ("streamkvqa-answers", "Began".to_owned()),
    ];
    for (room, words) in story {
        assert!(lines([room, &words]) > 0, "no {words:?} of {room} in:\n{log}");
    }
}

#[test]
fn answers_are_burned_into_a_file_where_there_is_no_display() {
    let run = Run::new("pipelines/overlay.sh").env("OUT", "with answers.mkv").succeeds();
    let video = run.says("Written: with answers.mkv").wrote("with answers.mkv");
    assert!(is_matroska(&video) && video.len() > 100_000, "{} bytes", video.len());
}

#[test]
fn a_live_source_is_asked_from_the_console() {
    Run::new("pipelines/live.sh")
        .typing(6, "what is here now?")
        .succeeds()
        .says("Playing.")
        .says("(ok; asked at ");
}

#[test]
fn an_rtsp_camera_is_asked_again_and_again() {
    Run::new("pipelines/rtsp.sh")
        .env("SECONDS_TO_RUN", "20")
        .succeeds()
        .says("Watching rtsp://127.0.0.1:")
        .says_times("what is here now?", 2);
}

#[test]
fn four_rtsp_cameras_are_asked_side_by_side() {
    let run = Run::new("pipelines/wall.sh").env("SECONDS_TO_RUN", "25").succeeds();
    let video = run.says("Watching 4 cameras").says("Written: wall.mkv").wrote("wall.mkv");
    assert!(is_matroska(&video) && video.len() > 100_000, "{} bytes", video.len());
    for camera in 0..4 {
        run.says(&format!("camera{camera}"));
    }
}

/// A process that ends with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_camera_that_dies_ten_times_is_watched_with_one_memory() {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;
    use std::time::Duration;

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let camera = || {
        let mut command = Command::new(root().join("pipelines/rtsp-camera.py"));
        let mut child = command.arg(port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        // It says where it is as soon as it can be reached.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("rtsp://"), "{line}");
        Killed(child)
    };
    let mut alive = camera();
    let errors = tempfile::NamedTempFile::new().unwrap();
    let mut watch = Command::new(root().join(TRACED_PYTHON))
        .arg(root().join("pipelines/reconnect.py"))
        .args([&format!("rtsp://127.0.0.1:{port}/camera"), "what is here now?", "0.5"])
        .env("GST_PLUGIN_PATH", plugins())
        .envs(TRACED)
        .stdout(Stdio::piped())
        .stderr(errors.reopen().unwrap())
        .spawn()
        .map(Killed)
        .unwrap();
    let (sender, lines) = mpsc::channel();
    let output = watch.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let next = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        let mut seen = Vec::new();
        loop {
            match lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {what} after:\n{}", seen.join("\n")),
            }
        }
    };
    let time = |line: &str| line.split(" s ").next()?.trim().parse::<f64>().ok();
    let mut last = 0.0;
    for life in 0..11 {
        if life > 0 {
            let _ = alive.0.kill();
            next("disconnection", &|line| line.starts_with("disconnected: "));
            drop(alive);
            alive = camera();
        }
        next("connection", &|line| line == "connected");
        let answer = next("answer about a new frame", &|line| time(line).is_some_and(|t| t > last));
        last = time(&answer).unwrap();
    }
    let interrupt = Command::new("kill").args(["-INT", &watch.0.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let end = next("last word", &|line| line.ends_with("came too fast"));
    let remembered: f64 = end.split(' ').next().unwrap().parse().unwrap();
    assert!(remembered >= 11.0, "{end}");
    assert!(watch.0.wait().unwrap().success());
    let errors = fs::read_to_string(errors.path()).unwrap();
    assert!(!errors.contains(ALIVE), "{errors}");
}

#[test]
fn two_cameras_share_one_model() {
    let run = Run::new("pipelines/two-cameras.sh").succeeds();
    run.says_times("door: what is here now?", 3)
        .says_times("yard: is it day, dusk or night now?", 3);
}

#[test]
fn an_application_embeds_the_element() {
    let program = target().join("debug/examples/embed");
    Run::new(program.to_str().unwrap())
        .typing(4, "what do you see now?")
        .succeeds()
        .says("Playing.")
        .says("(ok; asked at ");
}

#[test]
fn a_python_application_embeds_the_element() {
    Run::new("examples/embed.py")
        .env("GST_PLUGIN_PATH", plugins().to_str().unwrap())
        .typing(4, "what do you see now?")
        .succeeds()
        .says("Playing.")
        .says("(ok; asked at ");
}

#[test]
fn an_application_in_c_embeds_the_element() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("embed");
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "gstreamer-1.0"]).output();
    let flags = String::from_utf8(flags.unwrap().stdout).unwrap();
    let compiled = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(root().join("examples/embed.c"))
        .args(flags.split_whitespace())
        .status();
    assert!(compiled.unwrap().success());
    Run::new(program.to_str().unwrap())
        .env("GST_PLUGIN_PATH", plugins().to_str().unwrap())
        .arg(root().join("examples/media/everyday.webm").to_str().unwrap())
        .arg(root().join("models/everyday").to_str().unwrap())
        .arg("what is here now?")
        .succeeds()
        .says_times("what is here now?", 15)
        .says_times("  [", 10);
}

#[test]
fn answers_are_burned_into_an_hls_stream() {
    let run = Run::new("pipelines/hls.sh").arg("stream").succeeds();
    run.says("Written: stream/live.m3u8");
    let list = String::from_utf8(run.wrote("stream/live.m3u8")).unwrap();
    let parts: Vec<&str> = list.lines().filter(|line| line.ends_with(".ts")).collect();
    assert!(parts.len() >= 15 && list.contains("#EXT-X-ENDLIST"), "{list}");
    // A packet of a transport stream begins with this byte.
    let bytes = run.wrote(&format!("stream/{}", parts[0]));
    assert!(bytes.len() > 10_000 && bytes.chunks(188).all(|packet| packet[0] == 0x47));
}

#[test]
fn an_alert_is_recorded_from_its_beginning_to_its_end() {
    let questions = tempfile::NamedTempFile::new().unwrap();
    let question = r#"{"question": "what shape is it now?", "interval": 1, "tag": "cross",
        "choices": ["circle", "square", "triangle", "cross", "ring", "diamond"], "when": "cross"}"#;
    fs::write(questions.path(), question.replace('\n', "")).unwrap();
    let run = Run::new("pipelines/record.py")
        .env("GST_PLUGIN_PATH", plugins().to_str().unwrap())
        .arg(root().join("examples/media/toyworld.webm").to_str().unwrap())
        .arg(questions.path().to_str().unwrap())
        .arg(root().join("models/toyworld").to_str().unwrap())
        .succeeds();
    run.says("cross: cross-10.webm has ended").says("cross: recording cross-19.webm");
    for name in ["cross-10.webm", "cross-19.webm", "cross-42.webm"] {
        let video = run.wrote(name);
        assert!(is_matroska(&video) && video.len() > 20_000, "{name}: {} bytes", video.len());
    }
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let mut run = Run::new("pipelines/file-to-srt.sh")
        .arg(root().join("examples/media/toyworld.webm").to_str().unwrap())
        .arg(root().join("examples/media/toyworld.questions.jsonl").to_str().unwrap())
        .arg("out.srt")
        .arg("/nowhere/model");
    let output = run.command.output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("/nowhere/model"), "{errors}");
}

/// Cargo, which has built the plugin already and holds its locks, is stood in for.
#[test]
fn meson_puts_the_plugin_where_gstreamer_looks() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("bin")).unwrap();
    fs::write(at("bin/cargo"), "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(at("bin/cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let meson = |arguments: &[&str]| {
        let output = Command::new("meson")
            .args(arguments)
            .current_dir(root())
            .env("PATH", &path)
            .env("DESTDIR", at("installed"))
            .output()
            .expect("meson starts");
        assert!(output.status.success(), "meson {arguments:?}: {output:?}");
    };
    let build = at("build").to_str().unwrap().to_owned();
    let target = format!("-Dtarget-dir={}", target().display());
    meson(&["setup", &build, "--prefix=/usr", "--libdir=lib", "-Dprofile=dev", &target]);
    meson(&["install", "-C", &build]);

    let plugins = at("installed/usr/lib/gstreamer-1.0");
    let inspected = Command::new("gst-inspect-1.0")
        .arg(plugins.join("libgststreamkvqa.so"))
        .env("GST_REGISTRY", at("registry"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inspected.stdout);
    assert!(text.contains("streamkvqa: "), "{text}");
    for file in [
        "man/man7/streamkvqa.7",
        "doc/streamkvqa/streamkvqa.md",
        "streamkvqa/models/everyday/model.safetensors",
    ] {
        assert!(at("installed/usr/share").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_committed_inspect_page_is_up_to_date() {
    let committed = fs::read_to_string(root().join("docs/streamkvqa.inspect.txt")).unwrap();
    let now = Run::new("pipelines/inspect.sh").succeeds().text;
    assert!(now == committed, "docs/streamkvqa.inspect.txt is stale: run `make inspect`\n{now}");
}

#[test]
fn the_committed_reference_is_what_the_element_says() {
    let committed = fs::read_to_string(root().join("docs/streamkvqa.md")).unwrap();
    let program = target().join("debug/examples/reference");
    let now = Run::new(program.to_str().unwrap()).succeeds().text;
    assert!(now == committed, "docs/streamkvqa.md is stale: run `make inspect`\n{now}");
}

#[test]
fn the_committed_manual_page_is_what_the_element_says() {
    let committed = fs::read_to_string(root().join("docs/streamkvqa.7")).unwrap();
    let program = target().join("debug/examples/reference");
    let now = Run::new(program.to_str().unwrap()).arg("man").succeeds().text;
    assert!(now == committed, "docs/streamkvqa.7 is stale: run `make inspect`\n{now}");
}

#[test]
fn the_readme_lists_every_property() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    gst::init().unwrap();
    gststreamkvqa::plugin_register_static().unwrap();
    let element = gst::ElementFactory::make("streamkvqa").build().unwrap();
    for property in element.list_properties() {
        let inherited = ["name", "parent", "qos"].contains(&property.name());
        let row = format!("| `{}` |", property.name());
        assert!(inherited || readme.contains(&row), "README.md has no row {row}");
    }
}

#[test]
fn the_methods_page_has_the_table_of_options() {
    let page = fs::read_to_string(root().join("docs/methods.md")).unwrap();
    for name in gststreamkvqa::Recipe::names() {
        assert!(page.contains(&format!("`{name}`")), "docs/methods.md lacks the method {name}");
    }
    let row = |option: RecipeOption| {
        let RecipeOption { name, value, help, source } = option;
        format!("| `{name}` | {value} | {help} | {source} |\n")
    };
    let table: String = gststreamkvqa::Recipe::all_options().into_iter().map(row).collect();
    assert!(page.contains(&table), "the table in docs/methods.md should be\n{table}");
}
