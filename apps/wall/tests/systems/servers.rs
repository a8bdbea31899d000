// SPDX-License-Identifier: MPL-2.0
//! Servers of other people, started on ports of their own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time that something is waited for which should take moments.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits until `is` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = is() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for tests that run on Tokio.
pub async fn until<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = is() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    /// As if the machine had lost its power.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian keeps servers where only root looks.
fn server(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
    command.env("PATH", path).stdout(Stdio::null());
    command
}

fn listening(port: u16) {
    wait_for("a server", || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// Debian's mosquitto. It remembers nothing once it is stopped, which is the harder case.
pub struct Mosquitto {
    pub port: u16,
    folder: PathBuf,
    process: Process,
}

impl Mosquitto {
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let process = Self::run(folder, port);
        Mosquitto { port, folder: folder.to_owned(), process }
    }

    /// The same with TLS; its certificate is in `ca.pem`.
    pub fn start_secure(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        std::fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self::start(folder)
    }

    fn run(folder: &Path, port: u16) -> Process {
        let settings = folder.join("mosquitto.conf");
        let mut text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type error\n"
        );
        if folder.join("key.pem").exists() {
            let at = folder.display();
            text += &format!("certfile {at}/ca.pem\nkeyfile {at}/key.pem\nuser root\n");
        }
        std::fs::write(&settings, text).unwrap();
        let child = server("mosquitto")
            .arg("-c")
            .arg(&settings)
            .spawn()
            .expect("Debian's mosquitto starts");
        let process = Process(child);
        listening(port);
        process
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn again(&mut self) {
        self.process = Self::run(&self.folder, self.port);
    }
}

/// Debian's nats-server with JetStream; what it has stored outlives it.
pub struct Nats {
    pub port: u16,
    folder: PathBuf,
    process: Process,
}

impl Nats {
    pub fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let port = free_port();
        let process = Self::run(folder, port);
        Nats { port, folder: folder.to_owned(), process }
    }

    fn run(folder: &Path, port: u16) -> Process {
        let child = server("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(folder)
            .args(["-l".as_ref(), folder.join("log").as_os_str()])
            .spawn()
            .expect("Debian's nats-server starts");
        let process = Process(child);
        listening(port);
        process
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn again(&mut self) {
        self.process = Self::run(&self.folder, self.port);
    }
}
