// SPDX-License-Identifier: MPL-2.0
//! Holds imports against a plan: no circle between files, no arrow from a lower floor to a higher.
//!
//! An import is a `use`, or a path written in place, that leads to an item of another file;
//! re-exports are followed to the file that has the item. That a `mod.rs` declares and re-exports
//! its children is no import, but that a child takes an item written down in the `mod.rs` is one.
//! What only tests compile does not count.

mod imports;
mod plan;
mod tree;

use std::path::Path;

pub use self::imports::{Import, imports};
pub use self::plan::Plan;
pub use self::tree::{Source, Tree};

/// What in a repository breaks its own plan, one text a fault.
///
/// # Errors
/// A file that cannot be read or is not Rust, a plan that cannot be read.
pub fn check_repository(root: &Path) -> Result<Vec<String>, String> {
    let path = root.join("tools/floors/house.txt");
    let plan = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let plan: Plan = plan.parse().map_err(|e| format!("{}: {e}", path.display()))?;
    let tree = Tree::read(&Source::Folder(root), "src/lib.rs")?;
    Ok(plan.check(&tree.files(), &imports(&tree)))
}
