// SPDX-License-Identifier: MPL-2.0
//! The options of a recipe. `method-options`, `--set`, the texts of `gst-inspect-1.0` and the table
//! in `docs/methods.md` all come from here.

mod resident;
mod row;
mod stream;
mod value;

use super::composition::Recipe;
use crate::error::{EngineError, Result};
use row::Row;

pub use row::RecipeOption;
pub use stream::EXTERNAL_MODEL;

fn rows() -> impl Iterator<Item = &'static Row> {
    stream::ROWS.iter().chain(resident::ROWS)
}

/// The row of an option.
///
/// # Errors
/// [`EngineError::Option`] with the known names.
pub fn named(name: &str) -> Result<&'static Row> {
    rows().find(|row| row.name == name).ok_or_else(|| {
        let known: Vec<&str> = rows().map(|row| row.name).collect();
        let reason = format!("no such option; known options: {}", known.join(", "));
        EngineError::Option { key: name.into(), reason }
    })
}

/// What a recipe has of the table.
pub fn of(recipe: &Recipe) -> Vec<RecipeOption> {
    rows().filter_map(|row| row.of(recipe)).collect()
}

/// The whole table, each row with the values that it has in these recipes: the commonest one, then
/// the others with the names of their methods.
pub fn all(recipes: &[Recipe]) -> Vec<RecipeOption> {
    rows().filter_map(|row| row.among(recipes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::recipe::table::table;

    #[test]
    fn names_are_unique_and_every_row_belongs_to_some_method() {
        for (at, row) in rows().enumerate() {
            assert!(rows().take(at).all(|other| other.name != row.name), "{}", row.name);
            let used = table().iter().any(|recipe| row.of(recipe).is_some());
            assert!(used, "no method has {}", row.name);
            assert!(!row.help.is_empty() && !row.source.is_empty(), "{}", row.name);
        }
    }
}
