// SPDX-License-Identifier: MPL-2.0
//! What is wrong with a file: where, what, and what is expected there.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1; 0 where it is the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what is expected.
    pub message: String,
}

/// All of a file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Which file; none: a text.
    pub file: Option<PathBuf>,
    /// By line.
    pub faults: Vec<Fault>,
}

/// A place in the file: names of tables and fields, and numbers in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field.
    Field(String),
    /// An entry.
    Entry(usize),
}

impl From<&str> for Step {
    fn from(name: &str) -> Self {
        Step::Field(name.into())
    }
}

impl From<usize> for Step {
    fn from(at: usize) -> Self {
        Step::Entry(at)
    }
}

impl Faults {
    /// The file cannot be read at all.
    pub fn whole(path: &Path, message: String) -> Self {
        Faults {
            file: Some(path.to_path_buf()),
            faults: vec![Fault { line: 0, column: 0, message }],
        }
    }

    /// It is no text.
    pub(super) fn of_bytes(error: &std::string::FromUtf8Error) -> Self {
        let (good, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let text = String::from_utf8_lossy(good);
        let (line, column) = place(&text, text.len());
        let message = "this is no UTF-8; save the file in that encoding".to_owned();
        Faults { file: None, faults: vec![Fault { line, column, message }] }
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Faults { file: Some(path.to_path_buf()), ..self }
    }

    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        let message = error.message().trim_end().replace('\n', "; ");
        Faults { file: None, faults: vec![Fault { line, column, message }] }
    }

    /// Of faults that are known by their place in the document.
    pub(super) fn at_places(text: &str, faults: Vec<(Vec<Step>, String)>) -> Self {
        let document = DeTable::parse(text).ok();
        let mut faults: Vec<Fault> = faults
            .into_iter()
            .map(|(steps, message)| {
                let span = document
                    .as_ref()
                    .map(|document| find(document.get_ref(), document.span(), &steps));
                let (line, column) = place(text, span.map_or(0, |span| span.start));
                Fault { line, column, message }
            })
            .collect();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Faults { file: None, faults }
    }
}

/// Where a step leads to; as far as the document goes.
fn find(table: &DeTable, whole: Range<usize>, steps: &[Step]) -> Range<usize> {
    let Some((Step::Field(name), rest)) = steps.split_first() else { return whole };
    let found = table.iter().find(|(key, _)| key.get_ref() == name);
    let Some((key, value)) = found else { return whole };
    match value.get_ref() {
        _ if rest.is_empty() => value.span(),
        DeValue::Table(inner) => find(inner, value.span(), rest),
        DeValue::Array(entries) => {
            let Some((Step::Entry(at), rest)) = rest.split_first() else { return key.span() };
            let Some(entry) = entries.get(*at) else { return key.span() };
            match entry.get_ref() {
                DeValue::Table(inner) if !rest.is_empty() => find(inner, entry.span(), rest),
                _ => entry.span(),
            }
        }
        _ => value.span(),
    }
}

fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self
            .file
            .as_ref()
            .map_or_else(|| "configuration".into(), |file| file.display().to_string());
        for (at, Fault { line, column, message }) in self.faults.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            match line {
                0 => write!(out, "{name}: {message}")?,
                _ => write!(out, "{name}:{line}:{column}: {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
