// SPDX-License-Identifier: MPL-2.0
//! From the paths that a crate mentions to the files that they lead to.

use crate::tree::Tree;

/// A file that takes an item of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    pub line: usize,
    /// As it is written.
    pub path: String,
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Found {
    Module(usize),
    /// An item written down in a module.
    Item(usize),
    /// Something of another crate.
    Outside,
}

/// Re-exports of re-exports end somewhere.
const PATIENCE: usize = 16;

/// Every import between two files of a crate.
pub fn imports(tree: &Tree) -> Vec<Import> {
    let mut imports = Vec::new();
    for (at, module) in tree.modules.iter().enumerate() {
        for mention in &module.mentions {
            // That a module is named says nothing: what is taken from it does.
            let Found::Item(owner) = find(tree, at, &mention.path, PATIENCE) else { continue };
            let owner = &tree.modules[owner];
            if owner.file != module.file {
                imports.push(Import {
                    from: module.file.clone(),
                    to: owner.file.clone(),
                    line: mention.line,
                    path: mention.path.join("::"),
                });
            }
        }
    }
    imports.sort();
    imports
}

/// Follows a path that is written in module `at`.
fn find(tree: &Tree, at: usize, path: &[String], patience: usize) -> Found {
    let Some((first, mut rest)) = path.split_first() else { return Found::Module(at) };
    let mut found = match first.as_str() {
        "crate" => Found::Module(0),
        "self" => Found::Module(at),
        "super" => Found::Module(tree.modules[at].parent.unwrap_or(0)),
        name => match look_up(tree, at, name, rest.is_empty(), patience) {
            Some(found) => found,
            None => return Found::Outside,
        },
    };
    while let Found::Module(module) = found
        && let Some((name, more)) = rest.split_first()
    {
        found = match name.as_str() {
            "self" => found,
            "super" => Found::Module(tree.modules[module].parent.unwrap_or(0)),
            // A name that is nowhere comes out of a macro.
            name => look_up(tree, module, name, more.is_empty(), patience)
                .unwrap_or(Found::Item(module)),
        };
        rest = more;
    }
    found
}

/// What a name stands for in a module; `last` if nothing is looked for in it.
fn look_up(tree: &Tree, at: usize, name: &str, last: bool, patience: usize) -> Option<Found> {
    let module = &tree.modules[at];
    let patience = patience.checked_sub(1)?;
    // A function may have the name of a module.
    if last && module.items.contains(name) {
        return Some(Found::Item(at));
    }
    if let Some(&child) = module.children.get(name) {
        return Some(Found::Module(child));
    }
    if module.items.contains(name) {
        return Some(Found::Item(at));
    }
    if let Some(path) = module.names.get(name) {
        // `use a::b as a` means another crate's `a`.
        let outside = path.first().is_some_and(|first| first == name || !is_known(tree, at, first));
        return Some(if outside { Found::Outside } else { find(tree, at, path, patience) });
    }
    let globs = module
        .globs
        .iter()
        .filter(|path| path.first().is_some_and(|first| is_known(tree, at, first)));
    globs.into_iter().find_map(|path| match find(tree, at, path, patience) {
        Found::Module(other) if other != at => look_up(tree, other, name, last, patience),
        _ => None,
    })
}

/// Whether a name that a `use` begins with is this crate's. One that came by a glob is not looked
/// for: a search for the first name of a glob in the globs would not end.
fn is_known(tree: &Tree, at: usize, first: &str) -> bool {
    let module = &tree.modules[at];
    matches!(first, "crate" | "self" | "super")
        || module.children.contains_key(first)
        || module.names.contains_key(first)
        || module.items.contains(first)
}
