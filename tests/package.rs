// SPDX-License-Identifier: MPL-2.0
//! What is installed: each way to install has the plugin, the models, the manual page and the reference, and
//! what they name is in the repository. `make check-deb` and `make check-cargo-c` install it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package's name at Debian.
const NAME: &str = "gstreamer1.0-streamkvqa";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn metadata() -> toml::Table {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    manifest["package"]["metadata"].as_table().unwrap().clone()
}

/// The files of a folder, with those of the folders in it, relative to the repository.
fn files_below(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}")) {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

/// Where the files of a pattern go, as cargo-deb and cargo-c have it: below `to` stands what the pattern
/// leaves open. A pattern is a file, `folder/**/*`, or `folder/NAME` with one `*` in the name.
fn installed(from: &str, to: &str) -> Vec<(String, String)> {
    let to = to.trim_end_matches('/');
    let placed = |file: &str, folder: &str| {
        let rest = file.strip_prefix(folder).unwrap().trim_start_matches('/');
        (file.to_owned(), format!("{to}/{rest}"))
    };
    if let Some(folder) = from.strip_suffix("/**/*") {
        return files_below(folder).iter().map(|file| placed(file, folder)).collect();
    }
    let Some((before, after)) = from.split_once('*') else {
        assert!(root().join(from).is_file(), "there is no {from}");
        return vec![(from.to_owned(), to.to_owned())];
    };
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let files = files_below(folder);
    let fits = |file: &&String| {
        let name = file.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        name.is_some_and(|name| !name.contains('/'))
    };
    files.iter().filter(fits).map(|file| placed(file, folder)).collect()
}

/// What every way to install brings: the files of the models, the manual page and the reference, below `share`.
fn assert_shared(files: &[(String, String)], share: &str, way: &str) {
    let mut models = files_below("models");
    models.retain(|file| !file.contains("/."));
    assert!(models.iter().any(|file| file == "models/everyday/model.safetensors"), "{models:?}");
    for model in models {
        let to = format!("{share}/streamkvqa/{model}");
        assert!(files.contains(&(model.clone(), to.clone())), "{way} does not put {model} at {to}");
    }
    let manual = format!("{share}/man/man7/streamkvqa.7");
    let found = files.iter().find(|(from, _)| from == "docs/streamkvqa.7");
    let folder = manual.strip_suffix("/streamkvqa.7").unwrap();
    assert!(found.is_some_and(|(_, to)| *to == manual || to == folder), "{way}: {found:?}");
    let found = files.iter().find(|(from, _)| from == "docs/streamkvqa.md");
    let docs = format!("{share}/doc/");
    assert!(found.is_some_and(|(_, to)| to.starts_with(&docs)), "{way}: {found:?}");
}

/// From where to where the package's files go; those that are built by name alone.
fn packaged() -> Vec<(String, String)> {
    let metadata = metadata();
    let assets = metadata["deb"]["assets"].as_array().unwrap();
    let words = |asset: &toml::Value, at: usize| asset[at].as_str().unwrap().to_owned();
    let mut files = Vec::new();
    for asset in assets {
        let (from, to, mode) = (words(asset, 0), words(asset, 1), words(asset, 2));
        assert_eq!(mode, "644", "{from}");
        if from.starts_with("target/release/") {
            files.push((from, to));
            continue;
        }
        let own = installed(&from, &to);
        assert!(!own.is_empty(), "nothing in the repository is {from}");
        files.extend(own);
    }
    files
}

#[test]
fn the_package_has_the_plugin_the_models_the_manual_and_what_they_name() {
    let files = packaged();
    assert_shared(&files, "usr/share", "the package");
    // `--multiarch` puts the architecture in.
    let plugin =
        ("target/release/libgststreamkvqa.so", "usr/lib/gstreamer-1.0/libgststreamkvqa.so");
    assert!(files.contains(&(plugin.0.into(), plugin.1.into())), "{files:?}");
    // What the manual page's example plays.
    let manual = read("docs/streamkvqa.7").replace("\\-", "-");
    let clip = manual.split_whitespace().find_map(|word| word.strip_prefix("location=/usr/"));
    let clip = format!("usr/{}", clip.expect("an example with a clip"));
    assert!(files.iter().any(|(_, to)| *to == clip), "the package has no {clip}");
    // Nothing lies twice at one place.
    let mut places: Vec<_> =
        files.iter().map(|(_, to)| to).filter(|to| !to.ends_with('7')).collect();
    places.sort();
    assert!(places.windows(2).all(|pair| pair[0] != pair[1]), "{places:?}");
}

#[test]
fn the_package_goes_by_one_name_and_the_version_of_the_crate() {
    let metadata = metadata();
    assert_eq!(metadata["deb"]["name"].as_str(), Some(NAME));
    let changelog = read(metadata["deb"]["changelog"].as_str().unwrap());
    let newest = format!("{} ({}-1) ", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&newest), "{newest}in: {changelog}");
    let maintainer = metadata["deb"]["maintainer"].as_str().unwrap();
    assert!(changelog.contains(&format!(" -- {maintainer}  ")), "{changelog}");
    let own = |place: &str| place.contains("/doc/") || place.contains("/overrides/");
    for (from, to) in packaged().iter().filter(|(_, to)| own(to)) {
        assert!(to.contains(NAME), "{from} goes to {to}");
    }
    for line in
        read("tools/package/copyright").lines().filter(|line| line.contains("usr/share/doc/"))
    {
        let file = line.trim_start_matches("Files:").trim();
        assert!(packaged().iter().any(|(_, to)| to == file), "the package has no {file}");
    }
}

#[test]
fn cargo_c_installs_the_models_the_manual_page_and_the_reference() {
    let metadata = metadata();
    let assets = metadata["capi"]["install"]["data"]["asset"].as_array().unwrap();
    let part = |asset: &toml::Value, key: &str| asset[key].as_str().unwrap().to_owned();
    let files = assets
        .iter()
        .flat_map(|asset| installed(&part(asset, "from"), &format!("share/{}", part(asset, "to"))));
    assert_shared(&files.collect::<Vec<_>>(), "share", "cargo-c");
}

#[test]
fn every_crate_in_the_plugin_has_a_licence() {
    let output = Command::new(root().join("tools/package/licenses.sh")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once("\n\n").unwrap();
    let (list, texts) = rest.split_once("\n\n").unwrap();
    let crates: Vec<_> = list.lines().map(|line| line.split_once(": ").unwrap()).collect();
    for name in ["candle-core v", "gstreamer v", "tokenizers v"] {
        assert!(crates.iter().any(|(own, _)| own.starts_with(name)), "no {name} in:\n{list}");
    }
    for (name, license) in &crates {
        // Without an expression the text has to be there.
        let stated = *license != "see its text";
        assert!(stated || texts.contains(&name.replacen(" v", " ", 1)), "{name} has no licence");
    }
    for text in ["Apache License", "Permission is hereby granted, free of charge"] {
        assert!(texts.contains(text), "{text}");
    }
}
