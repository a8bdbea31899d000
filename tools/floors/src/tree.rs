// SPDX-License-Identifier: MPL-2.0
//! The modules of a crate, what each defines and what names it brings in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// Where files come from.
pub enum Source<'a> {
    Folder(&'a Path),
    /// Path and text, for tests.
    Texts(&'a [(&'a str, &'a str)]),
}

impl Source<'_> {
    fn text(&self, path: &str) -> Option<String> {
        match self {
            Self::Folder(root) => std::fs::read_to_string(root.join(path)).ok(),
            Self::Texts(texts) => {
                texts.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
            }
        }
    }
}

/// A path as it is written, and the line.
#[derive(Clone, Debug)]
pub struct Mention {
    pub path: Vec<String>,
    pub line: usize,
}

/// One module; those written within another have its file.
#[derive(Debug, Default)]
pub struct Module {
    pub file: String,
    pub parent: Option<usize>,
    pub children: HashMap<String, usize>,
    /// Names of the items written down here.
    pub items: HashSet<String>,
    /// Names brought in by `use`, and what they stand for.
    pub names: HashMap<String, Vec<String>>,
    /// Modules all of whose names are brought in.
    pub globs: Vec<Vec<String>>,
    /// Every path that is used here; not those that are only handed on (`pub use`).
    pub mentions: Vec<Mention>,
}

/// A crate; the first module is its root.
#[derive(Debug, Default)]
pub struct Tree {
    pub modules: Vec<Module>,
}

impl Tree {
    /// Reads the crate whose root is the file `root`.
    ///
    /// # Errors
    /// A file that is missing or is not Rust.
    pub fn read(source: &Source, root: &str) -> Result<Self, String> {
        let mut tree = Self::default();
        let folder = Path::new(root).parent().unwrap_or(Path::new("")).to_owned();
        tree.module(source, None, root.to_owned(), &folder)?;
        Ok(tree)
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<String> {
        let files: BTreeMap<_, ()> = self.modules.iter().map(|m| (m.file.clone(), ())).collect();
        files.into_keys().collect()
    }

    /// Adds the module that a file is; its children's files lie in `folder`.
    fn module(
        &mut self,
        source: &Source,
        parent: Option<usize>,
        file: String,
        folder: &Path,
    ) -> Result<usize, String> {
        let text = source.text(&file).ok_or_else(|| format!("{file} cannot be read"))?;
        let parsed =
            syn::parse_file(&text).map_err(|e| format!("{file}:{}: {e}", e.span().start().line))?;
        self.items(source, parent, file, folder, parsed.items)
    }

    fn items(
        &mut self,
        source: &Source,
        parent: Option<usize>,
        file: String,
        folder: &Path,
        items: Vec<Item>,
    ) -> Result<usize, String> {
        let at = self.modules.len();
        self.modules.push(Module { file: file.clone(), parent, ..Module::default() });
        for item in items {
            if is_for_tests(attributes(&item)) {
                continue;
            }
            let Item::Mod(inner) = item else {
                self.modules[at].take(&item);
                continue;
            };
            let name = inner.ident.unraw().to_string();
            let within = folder.join(&name);
            let child = match inner.content {
                Some((_, items)) => self.items(source, Some(at), file.clone(), &within, items)?,
                None => {
                    let candidates = [folder.join(format!("{name}.rs")), within.join("mod.rs")];
                    let paths = candidates.iter().filter_map(|path: &PathBuf| path.to_str());
                    let found = paths.into_iter().find(|path| source.text(path).is_some());
                    let path = found.ok_or_else(|| format!("{file}: no file for `mod {name}`"))?;
                    self.module(source, Some(at), path.to_owned(), &within)?
                }
            };
            self.modules[at].children.insert(name, child);
        }
        Ok(at)
    }
}

impl Module {
    /// Notes down what an item defines and mentions.
    fn take(&mut self, item: &Item) {
        self.items.extend(defined(item));
        Reader(self).visit_item(item);
    }

    fn bring_in(&mut self, visibility: &Visibility, tree: &UseTree, before: &[String]) {
        let line = tree.span().start().line;
        let path = |name: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(name.unraw().to_string());
            path
        };
        let (name, path) = match tree {
            UseTree::Path(step) => {
                return self.bring_in(visibility, &step.tree, &path(&step.ident));
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.bring_in(visibility, tree, before));
            }
            UseTree::Glob(_) => return self.globs.push(before.to_vec()),
            UseTree::Name(name) if name.ident == "self" => {
                (before.last().cloned().unwrap_or_default(), before.to_vec())
            }
            UseTree::Name(name) => (name.ident.unraw().to_string(), path(&name.ident)),
            UseTree::Rename(name) if name.ident == "self" => {
                (name.rename.unraw().to_string(), before.to_vec())
            }
            UseTree::Rename(name) => (name.rename.unraw().to_string(), path(&name.ident)),
        };
        if matches!(visibility, Visibility::Inherited) {
            self.mentions.push(Mention { path: path.clone(), line });
        }
        self.names.insert(name, path);
    }
}

/// Gathers the mentions of an item.
struct Reader<'a>(&'a mut Module);

impl Reader<'_> {
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, c: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let inside = at >= 1 && (is(at - 1, '.') || is(at - 1, ':'));
                    let mut path = vec![first.unraw().to_string()];
                    while let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                        && is(at + 1, ':')
                        && is(at + 2, ':')
                    {
                        path.push(next.unraw().to_string());
                        at += 3;
                    }
                    if path.len() > 1 && !inside {
                        self.0.mentions.push(Mention { path, line: first.span().start().line });
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.0.bring_in(&item.vis, &item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| segment.ident.unraw().to_string());
            let line = path.span().start().line;
            self.0.mentions.push(Mention { path: names.collect(), line });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    // Documentation, and who may see an item, are no imports.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// The names of an item that others may import.
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.unraw().to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, alone or among other conditions.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let words = list.tokens.to_string();
        let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
        list.path.is_ident("cfg")
            && words.clone().any(|w| w == "test")
            && !words.any(|w| w == "not")
    })
}
