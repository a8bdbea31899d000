// SPDX-License-Identifier: MPL-2.0
//! Which tokens a folder's JSON files name for their part in a prompt, by id.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::generation;
use crate::error::Result;
use crate::model::files::read_optional;

/// Every id under a name such as `eos_token_id` or `video_token_index` in `config.json`, its decoder's
/// part included, and `generation_config.json`.
pub fn control_ids(dir: &Path) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for file in ["config.json", generation::FILE] {
        let fields: Option<Map<String, Value>> = read_optional(&dir.join(file))?;
        let fields = fields.unwrap_or_default();
        gather(&fields, &mut ids);
        if let Some(Value::Object(text)) = fields.get("text_config") {
            gather(text, &mut ids);
        }
    }
    Ok(ids)
}

fn gather(fields: &Map<String, Value>, ids: &mut BTreeSet<u32>) {
    let is_token = |name: &str| name.ends_with("_token_id") || name.ends_with("_token_index");
    for value in fields.iter().filter(|(name, _)| is_token(name)).map(|(_, value)| value) {
        let list = std::slice::from_ref(value);
        let list = value.as_array().map_or(list, Vec::as_slice);
        ids.extend(list.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
    }
}
