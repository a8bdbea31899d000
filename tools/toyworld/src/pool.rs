// SPDX-License-Identifier: MPL-2.0
//! A fixed pool of scenes. Its frames are encoded once by the vision tower; training
//! streams are then assembled from it without painting anything.

use std::collections::HashMap;

use crate::scene::{Placement, Scene, SceneOptions};
use crate::stream::SceneSource;
use crate::vocabulary::Key;
use worlds::{Rng, derive};

/// One scene in this many is empty.
const BLANK_EVERY: u64 = 12;
/// One scene in this many has its object anywhere, on the borders of the named places too.
const ANYWHERE_EVERY: u64 = 8;

/// Scene number `index` of the pool of `seed`.
pub fn pool_scene(seed: u64, index: u64) -> Scene {
    let scene_seed = derive(seed, index);
    let mut rng = Rng::new(derive(scene_seed, 4));
    let key = (!index.is_multiple_of(BLANK_EVERY)).then(|| *rng.pick(&Key::trained()));
    let options = SceneOptions {
        placement: if index % ANYWHERE_EVERY == 1 { Placement::Anywhere } else { Placement::Named },
        ..SceneOptions::default()
    };
    Scene::generate(scene_seed, key, &options)
}

/// Scenes by what they show.
pub struct Pool {
    scenes: Vec<Scene>,
    by_key: HashMap<Option<Key>, Vec<usize>>,
    index_of: HashMap<u64, usize>,
}

impl Pool {
    pub fn new(seed: u64, scenes: u64) -> Self {
        let scenes: Vec<Scene> = (0..scenes).map(|index| pool_scene(seed, index)).collect();
        let mut by_key: HashMap<Option<Key>, Vec<usize>> = HashMap::new();
        let mut index_of = HashMap::new();
        for (index, scene) in scenes.iter().enumerate() {
            by_key.entry(scene.key()).or_default().push(index);
            index_of.insert(scene.seed, index);
        }
        Self { scenes, by_key, index_of }
    }

    /// The number of `scene` in this pool.
    pub fn index_of(&self, scene: &Scene) -> Option<usize> {
        self.index_of.get(&scene.seed).copied()
    }
}

impl SceneSource for &Pool {
    fn scene(&mut self, key: Option<Key>, rng: &mut Rng) -> Scene {
        let candidates = &self.by_key[&key];
        self.scenes[*rng.pick(candidates)].clone()
    }
}
