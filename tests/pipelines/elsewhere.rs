// SPDX-License-Identifier: MPL-2.0
//! Answers and alerts that go to other programs: web addresses and an MQTT broker.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Run, plugins};

#[test]
fn alerts_are_posted_until_they_are_taken() {
    use std::io::{BufRead, BufReader, Read, Write};

    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/alerts", server.local_addr().unwrap());
    let (sender, bodies) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in server.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            // The first one is refused, and comes again.
            let status = if number == 0 { "503 Service Unavailable" } else { "204 No Content" };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = sender.send(serde_json::from_slice::<serde_json::Value>(&body).unwrap());
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    Run::new("pipelines/webhook.py")
        .env("GST_PLUGIN_PATH", plugins().to_str().unwrap())
        .arg(&address)
        .succeeds();
    let bodies: Vec<_> = bodies.try_iter().collect();
    assert_eq!(bodies[0], bodies[1]);
    for tag in ["elephant", "fire-engine"] {
        let own = bodies[1..].iter().filter(|body| body["tag"] == tag);
        let statuses: Vec<_> = own.map(|body| body["status"].as_str().unwrap()).collect();
        let turns = ["began", "ceased"].iter().cycle().copied();
        assert!(statuses.len() >= 2, "{tag}: {bodies:?}");
        assert!(turns.zip(&statuses).all(|(turn, status)| turn == *status), "{tag}: {statuses:?}");
    }
}

/// A broker of its own, on loopback; what it holds for those who are away is kept in `folder`.
struct Broker {
    process: Child,
}

impl Broker {
    fn start(folder: &Path, port: u16) -> Self {
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
             persistence_location {}/\nuser root\nlog_type error\n",
            folder.display()
        );
        let settings = folder.join("mosquitto.conf");
        fs::write(&settings, text).unwrap();
        // It is no program of users and lies where only root looks.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
        let process = Command::new("mosquitto")
            .arg("-c")
            .arg(&settings)
            .env("PATH", path)
            .spawn()
            .expect("Debian's mosquitto starts");
        let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let mut tries = 0;
        while !up() {
            tries += 1;
            assert!(tries < 100, "the broker does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        Self { process }
    }

    /// As a restart of the machine would.
    fn stop(mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        self.process.wait().unwrap();
    }
}

/// A subscriber whom the broker remembers; the messages that it gets within `seconds`.
fn subscriber(port: u16, arguments: &[&str]) -> Vec<(String, String)> {
    let output = Command::new("mosquitto_sub")
        .args(["-p", &port.to_string(), "-i", "wall", "-c", "-q", "1", "-t", "hall/#"])
        .args(["-F", "%t %p"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("Debian's mosquitto_sub starts");
    let text = String::from_utf8(output.stdout).unwrap();
    let message = |line: &str| line.split_once(' ').map(|(to, what)| (to.into(), what.into()));
    text.lines().filter_map(message).collect()
}

#[test]
fn answers_and_alerts_are_published_whenever_the_broker_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let broker = Broker::start(folder.path(), port);
    subscriber(port, &["-E"]);
    broker.stop();

    // The video begins while nobody answers at the address.
    let later = std::thread::spawn({
        let folder = folder.path().to_owned();
        move || {
            std::thread::sleep(Duration::from_secs(3));
            Broker::start(&folder, port)
        }
    });
    Run::new("pipelines/mqtt.py")
        .env("GST_PLUGIN_PATH", plugins().to_str().unwrap())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(&format!("127.0.0.1:{port}/hall"))
        .succeeds();
    let broker = later.join().unwrap();
    let messages = subscriber(port, &["-W", "3"]);
    broker.stop();

    let of = |to: &str| messages.iter().filter(|m| m.0 == to).map(|m| m.1.as_str()).collect();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let answers: Vec<&str> = of("hall/answer");
    assert!(answers.len() >= 12, "{messages:?}");
    assert!(answers.iter().all(|answer| json(answer)["answer"].is_string()), "{answers:?}");
    let alerts: Vec<&str> = of("hall/alert");
    for tag in ["elephant", "fire-engine"] {
        let own = alerts.iter().map(|alert| json(alert)).filter(|alert| alert["tag"] == tag);
        let began: Vec<bool> = own.map(|alert| alert["status"] == "began").collect();
        assert!(began.len() >= 2, "{tag}: {alerts:?}");
        let told: Vec<&str> = of(&format!("hall/is/{tag}"));
        let told: Vec<bool> = told.iter().map(|told| *told == "true").collect();
        // What is so is retained: whoever comes back is told the last of it once more.
        assert!(told.starts_with(&began) && told.len() <= began.len() + 1, "{tag}: {told:?}");
    }
    let status: Vec<&str> = of("hall/status");
    assert_eq!((status.first(), status.last()), (Some(&"online"), Some(&"offline")));
}
