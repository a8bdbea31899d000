// SPDX-License-Identifier: MPL-2.0
//! Walls as processes of their own, which can be killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::servers::{Process, wait_for};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A wall at work, or one that has been.
pub struct Wall {
    pub host: String,
    pub url: String,
    folder: PathBuf,
    variables: Vec<(String, PathBuf)>,
    process: Process,
}

/// What is the same for all walls of a test.
pub struct Setting {
    pub nats: String,
    pub lease: f64,
    pub cameras: usize,
    /// Further sections.
    pub more: String,
}

impl Setting {
    fn config(&self, host: &str, data: &Path) -> String {
        let (root, data) = (root().display().to_string(), data.display().to_string());
        let mut text = format!(
            "[wall]\nname = \"{host}\"\nhost = \"{host}\"\nlisten = \"127.0.0.1:0\"\ndata = \"{data}\"\n\
             model = \"{root}/models/toyworld\"\n\n\
             [access]\nquestions_per_minute = 100000\nrequests_per_minute = 100000\n\n\
             [cluster]\nnats = \"{}\"\nlease = {:.1}\n\n{}\n",
            self.nats, self.lease, self.more
        );
        for number in 0..self.cameras {
            write!(
                text,
                "[[camera]]\nid = \"c{number}\"\nuri = \"file://{root}/examples/media/toyworld.webm\"\n\
                 loop = true\nautosave = 1.0\n\n"
            )
            .unwrap();
        }
        text
    }
}

impl Wall {
    pub fn start(folder: &Path, host: &str, setting: &Setting) -> Self {
        Self::start_with(folder, host, setting, &[])
    }

    /// The same with variables of its environment.
    pub fn start_with(
        folder: &Path,
        host: &str,
        setting: &Setting,
        variables: &[(&str, &Path)],
    ) -> Self {
        let own = folder.join(host);
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("wall.toml"), setting.config(host, &own.join("data"))).unwrap();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).into(), value.into())).collect();
        let (process, url) = Self::run(&own, &variables);
        Wall { host: host.to_owned(), url, folder: own, variables, process }
    }

    fn run(folder: &Path, variables: &[(String, PathBuf)]) -> (Process, String) {
        let log =
            std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamkvqa-wall"));
        command.envs(variables.iter().cloned());
        command.arg(folder.join("wall.toml")).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the wall starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Process(child);
        let line = lines.next().and_then(Result::ok).unwrap_or_else(|| {
            panic!(
                "the wall said nothing: {}",
                std::fs::read_to_string(folder.join("log")).unwrap()
            )
        });
        let url = line.split_whitespace().last().unwrap().trim_end_matches('/').to_owned();
        (process, url)
    }

    pub fn again(&mut self) {
        (self.process, self.url) = Self::run(&self.folder, &self.variables);
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// As the system would at its end: memories are given up in order.
    pub fn end(&mut self) {
        self.signal("TERM");
        wait_for("the end of a wall", || self.process.0.try_wait().unwrap());
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
        config.http_status_as_error(false).build().new_agent()
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        let mut response = Self::agent().get(format!("{}{path}", self.url)).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        serde_json::from_str(&text).ok()
    }

    pub fn text(&self, path: &str) -> String {
        let mut response = Self::agent().get(format!("{}{path}", self.url)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// A JPEG file, if there is one.
    pub fn picture(&self, path: &str) -> Option<Vec<u8>> {
        let mut response = Self::agent().get(format!("{}{path}", self.url)).call().ok()?;
        let body = response.body_mut().read_to_vec().ok()?;
        (response.status() == 200 && body.starts_with(&[0xff, 0xd8])).then_some(body)
    }

    /// Asks a camera; the id, if the question was taken.
    pub fn ask(&self, camera: &str, question: &str) -> Result<String, String> {
        let body = json!({ "cameras": [camera], "question": question }).to_string();
        let request =
            Self::agent().post(format!("{}/api/ask", self.url)).content_type("application/json");
        let mut response = request.send(body.as_bytes()).map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        value["asked"][0]["id"].as_str().map(str::to_owned).ok_or(text)
    }

    /// The answer to a POST.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let request =
            Self::agent().post(format!("{}{path}", self.url)).content_type("application/json");
        let mut response = request.send(body.to_string().as_bytes()).unwrap();
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// The status of a DELETE.
    pub fn delete(&self, path: &str) -> u16 {
        Self::agent().delete(format!("{}{path}", self.url)).call().unwrap().status().as_u16()
    }

    /// Another configuration, which it is to read while it goes on.
    pub fn configure(&self, setting: &Setting) {
        let text = setting.config(&self.host, &self.folder.join("data"));
        let new = self.folder.join("wall.toml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.join("wall.toml")).unwrap();
        self.signal("HUP");
    }

    /// The cameras that this wall watches itself, with their states.
    pub fn own(&self) -> BTreeMap<String, Value> {
        let state = self.get("/api/state").unwrap_or_default();
        let cameras = state["cameras"].as_array().cloned().unwrap_or_default();
        let own = cameras.into_iter().filter(|camera| camera["host"] == json!(self.host));
        own.map(|camera| (camera["id"].as_str().unwrap().to_owned(), camera)).collect()
    }

    /// Every answer that this wall's page is told from now on, by id with how often.
    pub fn answers(&self) -> Told {
        self.told("answer")
    }

    /// Everything of a kind that this wall's page is told from now on, by id with how often.
    pub fn told(&self, wanted: &'static str) -> Told {
        let told = Told::default();
        let response = ureq::get(format!("{}/api/events", self.url)).call().unwrap();
        let to = told.clone();
        std::thread::spawn(move || {
            let mut kind = String::new();
            for line in BufReader::new(response.into_body().into_reader()).lines() {
                let Ok(line) = line else { return };
                if let Some(event) = line.strip_prefix("event:") {
                    event.trim().clone_into(&mut kind);
                } else if let Some(data) = line.strip_prefix("data:").filter(|_| kind == wanted) {
                    let answer: Value = serde_json::from_str(data).unwrap();
                    to.lock()
                        .entry(answer["id"].as_str().unwrap().to_owned())
                        .or_default()
                        .push(answer);
                }
            }
        });
        told
    }
}

/// What a page has been told, by id.
pub type Told = Arc<Mutex<BTreeMap<String, Vec<Value>>>>;

/// Which wall watches which camera, once every camera is live at one of them.
#[track_caller]
pub fn all_live(walls: &[&Wall], cameras: usize) -> BTreeMap<String, String> {
    wait_for("all cameras, each live at one wall", || {
        let mut hosts = BTreeMap::new();
        for wall in walls {
            for (id, camera) in wall.own() {
                if camera["state"] == "live" && hosts.insert(id, wall.host.clone()).is_some() {
                    return None;
                }
            }
        }
        (hosts.len() == cameras).then_some(hosts)
    })
}

/// How many cameras each wall watches.
pub fn counts(hosts: &BTreeMap<String, String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for host in hosts.values() {
        *counts.entry(host.clone()).or_default() += 1;
    }
    counts
}
