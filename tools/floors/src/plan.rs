// SPDX-License-Identifier: MPL-2.0
//! The plan of a house: which folders have floors, which rooms are on each, and what breaks it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;

use crate::imports::Import;

/// The floors of all folders that have some.
#[derive(Debug)]
pub struct Plan {
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: String,
    /// Rooms and the floor that each is on, from below.
    rooms: BTreeMap<String, usize>,
}

impl FromStr for Plan {
    type Err = String;

    /// One folder a line, `FOLDER = ROOM, ROOM < ROOM`; a line that is indented goes on with the one
    /// before. `#` begins a comment.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim_end();
            match lines.last_mut() {
                _ if line.is_empty() => {}
                Some(open) if line.starts_with(' ') => open.push_str(line),
                _ => lines.push(line.to_owned()),
            }
        }
        lines
            .iter()
            .map(|line| line.parse())
            .collect::<Result<_, _>>()
            .map(|folders| Self { folders })
    }
}

impl FromStr for Folder {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (path, floors) = line.split_once('=').ok_or_else(|| format!("`{line}` has no `=`"))?;
        let mut rooms = BTreeMap::new();
        for (floor, names) in floors.split('<').enumerate() {
            for name in names.split(',').map(str::trim) {
                if name.is_empty() || rooms.insert(name.to_owned(), floor).is_some() {
                    return Err(format!("`{line}`: a room without a name, or one named twice"));
                }
            }
        }
        Ok(Self { path: path.trim().trim_end_matches('/').to_owned(), rooms })
    }
}

impl Folder {
    /// The room of this folder that a file belongs to.
    fn room<'a>(&self, file: &'a str) -> Option<&'a str> {
        let rest = file.strip_prefix(&self.path)?.strip_prefix('/')?;
        match rest.split_once('/') {
            Some((room, _)) => Some(room),
            None => rest.strip_suffix(".rs"),
        }
    }

    /// Files without a floor, rooms without a file.
    fn vacancies(&self, files: &[String]) -> Vec<String> {
        let there: BTreeSet<&str> = files.iter().filter_map(|file| self.room(file)).collect();
        let strangers = there.iter().filter(|room| !self.rooms.contains_key(**room));
        let strangers = strangers.map(|room| format!("{}: `{room}` has no floor", self.path));
        let empty = self.rooms.keys().filter(|room| !there.contains(room.as_str()));
        let empty = empty.map(|room| format!("{}: there is no room `{room}`", self.path));
        strangers.chain(empty).collect()
    }

    /// How an import runs up, if it does.
    fn upward(&self, import: &Import) -> Option<String> {
        let (from, to) = (self.room(&import.from)?, self.room(&import.to)?);
        let (low, high) = (self.rooms.get(from)?, self.rooms.get(to)?);
        (low < high).then(|| format!("{}: `{from}` is below `{to}`: {}", self.path, told(import)))
    }
}

impl Plan {
    /// What breaks the plan, one text a fault.
    pub fn check(&self, files: &[String], imports: &[Import]) -> Vec<String> {
        let vacancies = self.folders.iter().flat_map(|folder| folder.vacancies(files));
        let upward = self
            .folders
            .iter()
            .flat_map(|folder| imports.iter().filter_map(|import| folder.upward(import)));
        let inside: Vec<&Import> =
            imports.iter().filter(|i| self.covers(&i.from) && self.covers(&i.to)).collect();
        vacancies.chain(upward).chain(circles(&inside)).collect()
    }

    /// Whether a file may be in no circle: it lies below a folder of the plan that has no folder of
    /// the plan in it, or in one that has.
    fn covers(&self, file: &str) -> bool {
        let Some((parent, _)) = file.rsplit_once('/') else { return false };
        self.folders.iter().any(|folder| {
            let inner = format!("{}/", folder.path);
            let holds_others = self.folders.iter().any(|other| other.path.starts_with(&inner));
            parent == folder.path || !holds_others && file.starts_with(&inner)
        })
    }
}

fn told(import: &Import) -> String {
    let Import { from, to, line, path } = import;
    format!("{from}:{line} takes `{path}` of {to}")
}

/// One shortest circle for every group of files that import each other.
fn circles(imports: &[&Import]) -> Vec<String> {
    let mut arrows: BTreeMap<&str, BTreeMap<&str, &Import>> = BTreeMap::new();
    for import in imports {
        arrows.entry(&import.from).or_default().entry(&import.to).or_insert(import);
    }
    let mut told_of: BTreeSet<&str> = BTreeSet::new();
    let mut circles = Vec::new();
    for &start in arrows.keys() {
        if told_of.contains(start) {
            continue;
        }
        let Some(circle) = way_back(&arrows, start) else { continue };
        told_of.extend(circle.iter().map(|import| import.from.as_str()));
        let steps: Vec<String> =
            circle.iter().map(|import| format!("  {}", told(import))).collect();
        circles.push(format!("an import circle of {} files:\n{}", steps.len(), steps.join("\n")));
    }
    circles
}

/// The shortest way from a file back to itself.
fn way_back<'a>(
    arrows: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Import>>,
    start: &'a str,
) -> Option<Vec<&'a Import>> {
    let mut reached_by: BTreeMap<&str, &Import> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for (&to, &import) in arrows.get(file).into_iter().flatten() {
            if reached_by.contains_key(to) {
                continue;
            }
            reached_by.insert(to, import);
            if to == start {
                let mut way = vec![import];
                while way[way.len() - 1].from != start {
                    way.push(reached_by.get(way[way.len() - 1].from.as_str())?);
                }
                way.reverse();
                return Some(way);
            }
            queue.push_back(to);
        }
    }
    None
}
