// SPDX-License-Identifier: MPL-2.0
//! A wall under test: in this process, or as the program that users start.
#![allow(dead_code)] // each test binary uses its part

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use streamkvqa_wall::Wall;
use streamkvqa_wall::config::Config;
use streamkvqa_wall::hub::{Answer, Camera, CameraState, Event, Receiver};

/// Longer than anything here takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Small pictures, ten a second.
pub const BALL: &str =
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1";

/// A path in the repository.
pub fn path(relative: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(relative).canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// `[wall]` on a free port, with the model of shapes, and what follows.
pub fn config(data: &Path, rest: &str) -> Config {
    Config::parse(&text(data, rest)).unwrap_or_else(|faults| panic!("{faults}"))
}

pub fn text(data: &Path, rest: &str) -> String {
    let (data, model) = (data.display(), path("models/toyworld"));
    format!(
        "[wall]\nlisten = \"127.0.0.1:0\"\nhost = \"here\"\ndata = \"{data}\"\nmodel = \"{model}\"\n{rest}"
    )
}

pub fn ball(id: &str) -> String {
    format!("[[camera]]\nid = \"{id}\"\npipeline = \"{BALL}\"\n")
}

pub fn at(id: &str, uri: &str) -> String {
    format!("[[camera]]\nid = \"{id}\"\nuri = \"{uri}\"\n")
}

/// A wall in this process.
pub struct Rig {
    pub wall: Wall,
    pub events: Receiver,
    pub data: tempfile::TempDir,
}

impl Rig {
    pub async fn start(rest: &str) -> Self {
        Self::again(tempfile::tempdir().unwrap(), rest).await
    }

    pub async fn again(data: tempfile::TempDir, rest: &str) -> Self {
        let wall =
            Wall::start(config(data.path(), rest)).await.unwrap_or_else(|error| panic!("{error}"));
        let events = wall.hub.subscribe();
        Rig { wall, events, data }
    }

    /// Stops the wall, and leaves what it has written.
    pub async fn stop(self) -> tempfile::TempDir {
        self.wall.stop().await;
        self.data
    }

    pub fn camera(&self, id: &str) -> Camera {
        self.wall.hub.camera(id).unwrap_or_else(|| panic!("no camera {id}"))
    }

    /// Until a camera is as wanted.
    pub async fn until(&mut self, id: &str, what: &str, is: impl Fn(&Camera) -> bool) -> Camera {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(camera) = self.wall.hub.camera(id).filter(&is) {
                return camera;
            }
            if tokio::time::timeout_at(deadline, self.events.recv()).await.is_err() {
                panic!("waited for {what}; {id} is {:?}", self.wall.hub.camera(id));
            }
        }
    }

    pub async fn until_state(&mut self, id: &str, state: CameraState) -> Camera {
        self.until(id, &format!("{state:?}"), |camera| camera.state == state).await
    }

    /// The first event that `find` wants.
    pub async fn event<T>(&mut self, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Ok(event)) => {
                    if let Some(found) = find(&event) {
                        return found;
                    }
                }
                Ok(Err(error)) => panic!("waiting for {what}: {error}"),
                Err(_) => panic!("no {what} came"),
            }
        }
    }

    pub async fn answer(&mut self, id: &str) -> Answer {
        let found = |event: &Event| match event {
            Event::Answer(answer) if answer.id == id => Some(answer.clone()),
            _ => None,
        };
        self.event("answer", found).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.wall.address())
    }

    pub async fn get(&self, path: &str) -> Reply {
        let url = self.url(path);
        blocking(move || request("GET", &url, &[], None)).await
    }

    pub async fn send(&self, method: &'static str, path: &str, body: Value) -> Reply {
        let url = self.url(path);
        blocking(move || request(method, &url, &[], Some(body))).await
    }

    pub async fn with(&self, path: &str, headers: &[(&'static str, &str)]) -> Reply {
        let url = self.url(path);
        let headers: Vec<(&'static str, String)> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        blocking(move || request("GET", &url, &headers, None)).await
    }
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// What a server said.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub fn agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.max_redirects(0).build().into()
}

pub fn request(method: &str, url: &str, headers: &[(&str, String)], body: Option<Value>) -> Reply {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = match body {
        Some(body) => {
            let request = request.header("content-type", "application/json").body(body.to_string());
            agent().run(request.unwrap())
        }
        None => agent().run(request.body(()).unwrap()),
    };
    let mut response = response.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let body = response.body_mut().read_to_vec().unwrap();
    Reply { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

/// A server for a test's time.
pub struct Server {
    process: Child,
    /// `host:port/path`
    pub address: String,
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// An RTSP camera; port 0 takes a free one.
    pub fn rtsp(port: u16, access: &[&str]) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/common/rtsp.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(port.to_string())
            .args(access)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut address = String::new();
        output.read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "the RTSP server says no address");
        Server { process, address: address.trim().to_owned(), _output: output }
    }

    pub fn port(&self) -> u16 {
        let port = self.address.split([':', '/']).nth(1);
        port.unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The program, as users start it.
pub struct Program {
    pub process: Child,
    /// `http://.../`
    pub url: String,
    _output: BufReader<ChildStdout>,
}

impl Program {
    pub fn start(config: &Path) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_streamkvqa-wall")).arg(config))
    }

    pub fn of(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("The wall is at ");
        let url = url.unwrap_or_else(|| panic!("it says {line:?}")).to_owned();
        Program { process, url, _output: output }
    }

    pub fn get(&self, path: &str) -> Reply {
        request("GET", &format!("{}{path}", self.url), &[], None)
    }

    pub fn post(&self, path: &str, body: Value) -> Reply {
        request("POST", &format!("{}{path}", self.url), &[], Some(body))
    }

    /// Asks again and again until the state is as wanted.
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.get("api/state").json();
            if is(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "waited for {what}: {state:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A camera of `api/state`.
pub fn camera_of<'a>(state: &'a Value, id: &str) -> &'a Value {
    let mut cameras = state["cameras"].as_array().unwrap().iter();
    cameras.find(|camera| camera["id"] == id).unwrap_or(&Value::Null)
}
