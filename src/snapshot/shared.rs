// SPDX-License-Identifier: MPL-2.0
//! Lists that are shared, as lists.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub fn serialize<T: Serialize, S: Serializer>(
    list: &Option<Arc<[T]>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    list.as_deref().serialize(serializer)
}

pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Arc<[T]>>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.map(Arc::from))
}
