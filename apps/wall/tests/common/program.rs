// SPDX-License-Identifier: MPL-2.0
//! The program itself, on a configuration of the test's.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// A camera that plays the clip that ships, again and again.
pub fn clip(id: &str, name: &str) -> String {
    let clip = root().join("examples/media/everyday.webm");
    let clip = clip.display();
    format!("[[camera]]\nid = \"{id}\"\nname = \"{name}\"\nuri = \"{clip}\"\nloop = true\n")
}

/// A wall with a folder of its own. It is killed where it is dropped.
pub struct Wall {
    child: Child,
    config: PathBuf,
    folder: tempfile::TempDir,
    /// Where its page is, with a `/` at the end.
    pub page: String,
}

impl Wall {
    /// Starts one that listens where there is room; `sections` come behind `[wall]`.
    pub fn start(sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("wall.toml");
        let wall = Wall { child: idle(), config, folder, page: String::new() };
        wall.write("127.0.0.1:0", sections);
        wall.run()
    }

    fn write(&self, listen: &str, sections: &str) {
        let model = root().join("models/everyday");
        let mut text = String::new();
        writeln!(text, "[wall]\nname = \"Harbour street\"\nhost = \"desk\"").unwrap();
        writeln!(text, "listen = \"{listen}\"").unwrap();
        writeln!(text, "data = \"{}\"", self.folder.path().join("data").display()).unwrap();
        writeln!(text, "model = \"{}\"\n{sections}", model.display()).unwrap();
        std::fs::write(&self.config, text).unwrap();
    }

    fn run(mut self) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_streamkvqa-wall"))
            .arg(&self.config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        self.child = child;
        for line in said.lines() {
            if let Some(page) = line.unwrap().strip_prefix("The wall is at ") {
                page.clone_into(&mut self.page);
                return self;
            }
        }
        panic!("the wall ended: {:?}", self.child.wait());
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again at the same address, on what it has stored.
    pub fn again(self, sections: &str) -> Self {
        let listen = self.page.trim_start_matches("http://").trim_end_matches('/').to_owned();
        self.write(&listen, sections);
        self.run()
    }

    /// The program's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Something to hold until the wall is there.
fn idle() -> Child {
    Command::new("true").spawn().unwrap()
}
