// SPDX-License-Identifier: MPL-2.0
//! A row of the table of options: its name, what it means, where it comes from, its range, and the
//! field that it reads and sets.

use super::super::composition::Recipe;
use super::value::Value;
use crate::error::{EngineError, Result};

/// An option with its value in a recipe at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeOption {
    pub name: &'static str,
    pub value: String,
    /// What it does, with its unit.
    pub help: &'static str,
    /// Paper, section or released code that it follows.
    pub source: &'static str,
}

/// A row of the table.
pub struct Row {
    pub name: &'static str,
    pub help: &'static str,
    pub source: &'static str,
    /// For numbers: the least and the largest.
    pub range: (f64, f64),
    /// The field, or `None` if a recipe lacks the part that it belongs to.
    pub field: for<'a> fn(&'a mut Recipe) -> Option<&'a mut dyn Value>,
}

pub const ANY: (f64, f64) = (0.0, 0.0);
pub const SHARE: (f64, f64) = (0.0, 1.0);
/// Frames, units.
pub const COUNT: (f64, f64) = (1.0, 4096.0);
pub const COUNT_OR_NONE: (f64, f64) = (0.0, 4096.0);

/// A field as what can be shown and read.
pub fn as_value(value: &mut impl Value) -> &mut dyn Value {
    value
}

/// Values longer than this are the prompts of the papers.
const LONGEST_SHOWN: usize = 40;

impl Row {
    pub fn of(&self, recipe: &Recipe) -> Option<RecipeOption> {
        let value = (self.field)(&mut recipe.clone())?.show();
        Some(RecipeOption { name: self.name, value, help: self.help, source: self.source })
    }

    pub fn among(&self, recipes: &[Recipe]) -> Option<RecipeOption> {
        let mut values: Vec<(String, Vec<&str>)> = Vec::new();
        for recipe in recipes {
            let Some(RecipeOption { mut value, .. }) = self.of(recipe) else { continue };
            if value.is_empty() {
                value = "none".into();
            } else if value.len() > LONGEST_SHOWN {
                value = "the released prompt".into();
            }
            match values.iter_mut().find(|(known, _)| *known == value) {
                Some((_, methods)) => methods.push(recipe.name),
                None => values.push((value, vec![recipe.name])),
            }
        }
        // Stable, so that of equally common ones the first method's leads.
        values.sort_by_key(|(_, methods)| std::cmp::Reverse(methods.len()));
        let mut values = values.into_iter();
        let (commonest, _) = values.next()?;
        let others = values.map(|(value, methods)| format!("; {} {value}", methods.join(", ")));
        let value = commonest + &others.collect::<String>();
        Some(RecipeOption { name: self.name, value, help: self.help, source: self.source })
    }

    pub fn set(&self, recipe: &mut Recipe, text: &str) -> Result<()> {
        let name = recipe.name;
        let outcome = match (self.field)(recipe) {
            Some(field) => {
                field.read(text, self.range).map_err(|right| format!("`{text}` is not {right}"))
            }
            None => Err(format!("method `{name}` has no such part")),
        };
        outcome.map_err(|reason| EngineError::Option { key: self.name.into(), reason })
    }
}
