// SPDX-License-Identifier: MPL-2.0
//! Models by their name on the hub: found in a cache, downloaded where that is allowed from a server
//! that stands in for the hub, and refused with what to do where neither helps.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gststreamkvqa::model::{HubOptions, LoadProgress, LoadStep};
use gststreamkvqa::{Cancel, EngineError, LoadOptions, VideoLlm};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ov-shrunk")
}

fn files() -> Vec<String> {
    let entries = std::fs::read_dir(fixture()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A cache as Hugging Face's tools leave it behind: links from the snapshot to the blobs.
struct FakeCache(tempfile::TempDir);

impl FakeCache {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn holding(name: &str) -> Self {
        let cache = Self::empty();
        let folder = cache.folder(name);
        for inner in ["blobs", "refs", &format!("snapshots/{COMMIT}")] {
            std::fs::create_dir_all(folder.join(inner)).unwrap();
        }
        std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
        for file in files() {
            std::fs::copy(fixture().join(&file), folder.join("blobs").join(&file)).unwrap();
            let link = folder.join("snapshots").join(COMMIT).join(&file);
            std::os::unix::fs::symlink(Path::new("../../blobs").join(&file), link).unwrap();
        }
        cache
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("models--{}", name.replace('/', "--")))
    }

    fn options(&self) -> LoadOptions {
        let cache = Some(self.0.path().to_owned());
        // Nobody listens there: a test that wants a server says so.
        let endpoint = Some("http://127.0.0.1:9".to_owned());
        LoadOptions {
            hub: HubOptions { cache, endpoint, download: false },
            ..LoadOptions::default()
        }
    }
}

/// The part of the hub that a download needs, on the loopback.
struct FakeHub {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeHub {
    /// Serves the fixture as `name`, but not the files that `hidden` names.
    fn serving(name: &'static str, hidden: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        // Lives as long as the process; connections are few.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || {
                    while let Some(path) = answer(&stream, name, hidden) {
                        log.lock().unwrap().push(path);
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn downloads(&self) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|path| path.contains("/resolve/")).count()
    }
}

/// Answers one request; `None` at the end of the connection.
fn answer(mut stream: &TcpStream, name: &str, hidden: &[&str]) -> Option<String> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next()?;
    let path = request.split(' ').nth(1)?.to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        let value = value.strip_prefix("bytes=")?;
        let (from, to) = value.split_once('-')?;
        key.eq_ignore_ascii_case("range").then(|| (from.parse().unwrap(), to.parse().ok()))
    });
    let shown = |file: &str| !hidden.contains(&file);
    let info = format!("/api/models/{name}/revision/main");
    let resolve = format!("/{name}/resolve/main/");
    let body = if path == info {
        let siblings: Vec<_> = files().into_iter().filter(|f| shown(f)).collect();
        let siblings: Vec<_> =
            siblings.iter().map(|file| serde_json::json!({ "rfilename": file })).collect();
        let text = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        Some(text.into_bytes())
    } else {
        let file = path.strip_prefix(&resolve).filter(|file| shown(file));
        file.and_then(|file| std::fs::read(fixture().join(file)).ok())
    };
    let Some(body) = body else {
        write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
        return Some(path);
    };
    let etag = path.replace('/', "-");
    let common = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
    let (status, part, extra) = match range {
        Some((from, to)) => {
            let end = to.map_or(body.len(), |to: usize| to + 1).min(body.len());
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", end - 1, body.len());
            ("206 Partial Content", &body[from..end], range)
        }
        None => ("200 OK", &body[..], String::new()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{common}{extra}\r\n", part.len())
        .and_then(|()| stream.write_all(part))
        .ok()?;
    Some(path)
}

fn refusal(name: &str, options: &LoadOptions) -> String {
    let error = VideoLlm::load(name, options).err().expect("must be refused");
    assert!(matches!(error, EngineError::Hub { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_model_in_the_cache_loads_by_its_name() {
    let cache = FakeCache::holding("someone/small");
    for name in ["hf:someone/small".to_owned(), format!("hf:someone/small@{COMMIT}")] {
        VideoLlm::load(name, &cache.options()).unwrap();
    }
}

#[test]
fn a_model_that_is_not_there_says_what_to_do() {
    let cache = FakeCache::empty();
    let message = refusal("hf:someone/small", &cache.options());
    for part in [
        "hf:someone/small",
        &cache.0.path().display().to_string(),
        "allow-download",
        "hf download someone/small",
        "config.json",
        "*.safetensors",
    ] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn a_half_downloaded_model_names_what_is_missing() {
    let cache = FakeCache::holding("someone/small");
    let shard = "model-00002-of-00003.safetensors";
    std::fs::remove_file(cache.folder("someone/small").join("blobs").join(shard)).unwrap();
    let message = refusal("hf:someone/small", &cache.options());
    assert!(message.contains(shard) && !message.contains("model-00001"), "{message}");
}

#[test]
fn without_a_network_the_error_names_files_and_folder() {
    let cache = FakeCache::empty();
    let mut options = cache.options();
    options.hub.download = true;
    let message = refusal("hf:someone/small", &options);
    for part in ["http://127.0.0.1:9", "tokenizer.json", "hf download someone/small"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn an_allowed_download_fills_the_cache_and_tells_its_progress() {
    let hub = FakeHub::serving("someone/small", &[]);
    let cache = FakeCache::empty();
    let mut options = cache.options();
    let seen = Arc::new(Mutex::new(Vec::<LoadProgress>::new()));
    options.hub = HubOptions { endpoint: Some(hub.address.clone()), download: true, ..options.hub };
    options.progress = Some(Arc::new({
        let seen = seen.clone();
        move |at| seen.lock().unwrap().push(at.clone())
    }));
    VideoLlm::load("hf:someone/small", &options).unwrap();
    {
        let seen = seen.lock().unwrap();
        let complete = |at: &&LoadProgress| at.step == LoadStep::Download && at.done == at.total;
        let done: Vec<_> = seen.iter().filter(complete).map(|at| &*at.file).collect();
        for file in ["config.json", "tokenizer.json", "model-00003-of-00003.safetensors"] {
            assert!(done.contains(&file), "{file} is not in {done:?}");
        }
    }
    // From now on without a server, and without asking it again.
    let asked = hub.downloads();
    VideoLlm::load("hf:someone/small", &options).unwrap();
    assert_eq!(hub.downloads(), asked);
    VideoLlm::load("hf:someone/small", &cache.options()).unwrap();
}

#[test]
fn a_download_takes_only_what_the_cache_lacks() {
    let hub = FakeHub::serving("someone/small", &[]);
    let cache = FakeCache::holding("someone/small");
    let snapshot = cache.folder("someone/small").join("snapshots").join(COMMIT);
    let shard = "model-00002-of-00003.safetensors";
    std::fs::remove_file(snapshot.join(shard)).unwrap();
    let mut options = cache.options();
    options.hub.endpoint = Some(format!("{}/", hub.address));
    options.hub.download = true;
    VideoLlm::load("hf:someone/small", &options).unwrap();
    let asked = hub.asked.lock().unwrap();
    let resolved = asked.iter().filter(|path| path.contains("/resolve/"));
    assert!(resolved.clone().count() > 0);
    assert!(resolved.clone().all(|path| path.ends_with(shard)), "{asked:?}");
}

#[test]
fn a_server_that_lacks_files_or_the_model_is_named() {
    let hub = FakeHub::serving("someone/small", &["tokenizer.json"]);
    let cache = FakeCache::empty();
    let mut options = cache.options();
    options.hub.endpoint = Some(hub.address.clone());
    options.hub.download = true;
    let message = refusal("hf:someone/small", &options);
    assert!(message.contains("tokenizer.json is not in") && message.contains(&hub.address));
    let message = refusal("hf:someone/else", &options);
    assert!(message.contains("404") && message.contains("hf:someone/else"), "{message}");
}

#[test]
fn a_download_can_be_cancelled_between_files() {
    let hub = FakeHub::serving("someone/small", &[]);
    let cache = FakeCache::empty();
    let mut options = cache.options();
    options.hub.endpoint = Some(hub.address.clone());
    options.hub.download = true;
    let cancel = Cancel::new();
    options.cancel = cancel.clone();
    options.progress = Some(Arc::new(move |_| cancel.raise()));
    let result = VideoLlm::load("hf:someone/small", &options);
    assert!(matches!(result, Err(EngineError::Cancelled)));
    // Every file takes two requests.
    assert!(hub.downloads() <= 2);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let cache = FakeCache::holding("someone/small");
    for name in [
        "hf:",
        "hf:small",
        "hf:a/b/c",
        "hf:../small",
        "hf:someone/..",
        "hf:someone/small@",
        "hf:someone/small@../../x",
        "hf:some one/small",
        "hf:someone/small?x",
    ] {
        let message = refusal(name, &cache.options());
        assert!(message.contains("expected hf:owner/name") || message.contains("revision"));
    }
    // A damaged reference does not lead out of the cache.
    std::fs::write(cache.folder("someone/small").join("refs/main"), "../../..").unwrap();
    assert!(refusal("hf:someone/small", &cache.options()).contains("not in the"));
}
