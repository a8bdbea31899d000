// SPDX-License-Identifier: MPL-2.0
//! Models by the name of their folder, where packages install them: `everyday` in
//! `/usr/share/streamkvqa/models`.
//!
//! A folder of that name that is there anyway comes first. Then the folders of `STREAMKVQA_MODELS` are
//! looked through (a list as in `PATH`), then `streamkvqa/models` in the user's and the system's data folders
//! as the XDG base directory specification has them.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::{EngineError, Result};

/// Names folders of models, in front of those that packages install into.
pub const VARIABLE: &str = "STREAMKVQA_MODELS";

/// Where in a data folder the models are.
const WITHIN: &str = "streamkvqa/models";

/// The folder that a path means: an installed model's if the path is a name alone and no folder here has it,
/// else the path itself.
///
/// # Errors
/// [`EngineError::Read`] for a name that nothing has: where it was looked for, and what there is.
pub fn folder(path: &Path) -> Result<PathBuf> {
    folder_among(path, &shelves(|name| std::env::var_os(name)))
}

/// The names of the models that are installed, each once, those that are found first in front.
pub fn names() -> Vec<String> {
    names_among(&shelves(|name| std::env::var_os(name)))
}

fn folder_among(path: &Path, shelves: &[PathBuf]) -> Result<PathBuf> {
    if !is_name(path) || path.exists() {
        return Ok(path.to_owned());
    }
    let mut places = shelves.iter().map(|shelf| shelf.join(path));
    places.find(|place| is_model(place)).ok_or_else(|| {
        let list = |parts: Vec<String>| match parts.is_empty() {
            true => "none".to_owned(),
            false => parts.join(", "),
        };
        let searched = list(shelves.iter().map(|shelf| shelf.display().to_string()).collect());
        let message = format!(
            "there is no folder of this name here, and none with a config.json in {searched} ({VARIABLE} adds \
             folders). Installed: {}. Name one of them, a folder, or hf:owner/name",
            list(names_among(shelves))
        );
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, message);
        EngineError::Read { path: path.to_owned(), source }
    })
}

fn names_among(shelves: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for shelf in shelves {
        let entries = std::fs::read_dir(shelf).into_iter().flatten().flatten();
        let own = entries.filter(|entry| is_model(&entry.path()));
        let mut own: Vec<String> = own.filter_map(|e| e.file_name().into_string().ok()).collect();
        own.sort();
        own.retain(|name| !names.contains(name));
        names.append(&mut own);
    }
    names
}

/// Whether a path is one name: no way to a folder, and none on the hub, which has a slash in it.
fn is_name(path: &Path) -> bool {
    let mut parts = path.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == path.as_os_str())
}

fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file()
}

/// The folders in which models are installed, by the variables of the environment.
fn shelves(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    // What is not absolute would be another folder for each who asks.
    let list = |value: OsString| -> Vec<PathBuf> {
        std::env::split_paths(&value).filter(|path| path.is_absolute()).collect()
    };
    let own = variable("XDG_DATA_HOME").map(PathBuf::from).or_else(|| {
        let home = variable("HOME").map(PathBuf::from);
        Some(home?.join(".local/share"))
    });
    let system = variable("XDG_DATA_DIRS").map(list).filter(|dirs| !dirs.is_empty());
    let system = system.unwrap_or_else(|| vec!["/usr/local/share".into(), "/usr/share".into()]);
    let data = own.into_iter().filter(|path| path.is_absolute()).chain(system);
    let named = variable(VARIABLE).map(|value| std::env::split_paths(&value).collect::<Vec<_>>());
    let named = named.unwrap_or_default().into_iter().filter(|path| !path.as_os_str().is_empty());
    named.chain(data.map(|folder| folder.join(WITHIN))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(models: &[&str]) -> tempfile::TempDir {
        let shelf = tempfile::tempdir().unwrap();
        for model in models {
            std::fs::create_dir(shelf.path().join(model)).unwrap();
            std::fs::write(shelf.path().join(model).join("config.json"), "{}").unwrap();
        }
        shelf
    }

    #[test]
    fn a_name_is_the_first_installed_folder_that_has_it() {
        let (first, second) = (shelf(&["street"]), shelf(&["street", "yard"]));
        std::fs::create_dir(first.path().join("yard")).unwrap();
        let shelves = [first.path().to_owned(), "/nowhere".into(), second.path().to_owned()];
        let found = |name: &str| folder_among(Path::new(name), &shelves).unwrap();
        assert_eq!(found("street"), first.path().join("street"));
        assert_eq!(found("yard"), second.path().join("yard"), "a folder without a model is none");
        assert_eq!(names_among(&shelves), ["street", "yard"]);
    }

    #[test]
    fn a_way_to_a_folder_is_left_as_it_is() {
        let shelf = shelf(&["street"]);
        let shelves = [shelf.path().to_owned()];
        // `src` is a folder where tests run; the others lead somewhere, or to the hub.
        for path in ["src", "./street", "street/", "../street", "/street", "a/street", "hf:a/b", ""]
        {
            assert_eq!(folder_among(Path::new(path), &shelves).unwrap(), Path::new(path));
        }
    }

    #[test]
    fn a_name_that_nothing_has_says_what_there_is() {
        let shelf = shelf(&["street", "yard"]);
        let shelves = [shelf.path().to_owned()];
        let error = folder_among(Path::new("garden"), &shelves).unwrap_err();
        assert!(matches!(&error, EngineError::Read { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound));
        let message = error.to_string();
        for part in ["garden", &shelf.path().display().to_string(), "street, yard", VARIABLE, "hf:"]
        {
            assert!(message.contains(part), "no {part} in: {message}");
        }
        let nowhere = folder_among(Path::new("garden"), &[]).unwrap_err().to_string();
        assert!(nowhere.contains("Installed: none"), "{nowhere}");
    }

    #[test]
    fn folders_come_from_the_variable_the_user_and_the_system() {
        let with = |set: &[(&str, &str)]| {
            let value =
                |name: &str| set.iter().find(|(own, _)| *own == name).map(|own| own.1.into());
            let shelves = shelves(value);
            shelves.iter().map(|shelf| shelf.display().to_string()).collect::<Vec<_>>()
        };
        let usual = ["/usr/local/share/streamkvqa/models", "/usr/share/streamkvqa/models"];
        assert_eq!(with(&[]), usual);
        assert_eq!(
            with(&[("STREAMKVQA_MODELS", "mine::/srv/models"), ("HOME", "/home/me")])[..3],
            ["mine", "/srv/models", "/home/me/.local/share/streamkvqa/models"]
        );
        let xdg =
            [("XDG_DATA_HOME", "/data"), ("HOME", "/home/me"), ("XDG_DATA_DIRS", "/opt/share")];
        assert_eq!(with(&xdg), ["/data/streamkvqa/models", "/opt/share/streamkvqa/models"]);
        // The specification: what is not absolute is invalid, what is empty is not set.
        assert_eq!(with(&[("XDG_DATA_HOME", "data"), ("XDG_DATA_DIRS", "share")]), usual);
        assert_eq!(with(&[("XDG_DATA_HOME", ""), ("XDG_DATA_DIRS", "")]), usual);
    }
}
