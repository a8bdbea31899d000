// SPDX-License-Identifier: MPL-2.0
//! The common list of cameras: what all machines' configurations have together, and the standing questions that
//! people add and take away.

use super::records::{Key, Listed};
use super::store::{Store, Written, read, write};
use super::{Shared, alerts, word};
use crate::config::{self, CameraConfig, StandingConfig};
use crate::hub::{Refused, Standing};

/// How often a record is read again because another wrote it meanwhile.
const TRIES: usize = 20;

/// A camera as it is watched: with what was added to its configuration and taken from it.
pub(super) fn effective(listed: &Listed) -> CameraConfig {
    let mut camera = listed.config.clone();
    let configured = config::standing_of(&camera);
    let stays = configured.into_iter().filter(|(id, _)| !listed.without.contains(id));
    camera.standing =
        stays.map(|(id, standing)| StandingConfig { id: Some(id), ..standing }).collect();
    for added in &listed.standing {
        if !camera.standing.iter().any(|standing| standing.id == added.id) {
            camera.standing.push(added.clone());
        }
    }
    camera
}

/// Brings the list up to what this machine's configuration says now.
pub(super) async fn announce(shared: &Shared, store: &Store) -> Result<(), String> {
    let configured = shared.configured.lock().clone();
    let me = word(&shared.host);
    for (place, camera) in configured.iter().enumerate() {
        change(shared, store, &camera.id, |listed| {
            let mut listed = listed.unwrap_or_default();
            listed.config = camera.clone();
            listed.from.insert(me.clone());
            listed.places.insert(me.clone(), place);
            Ok(Some(listed))
        })
        .await
        .map_err(|refused| refused.to_string())?;
    }
    let before: Vec<String> = {
        let view = shared.view.lock();
        let of_us = view.cameras.iter().filter(|(_, seen)| seen.value.from.contains(&me));
        of_us.map(|(id, _)| id.clone()).collect()
    };
    for gone in before.iter().filter(|id| !configured.iter().any(|camera| camera.id == **id)) {
        change(shared, store, gone, |listed| {
            Ok(listed.map(|mut listed| {
                listed.from.remove(&me);
                listed.places.remove(&me);
                listed
            }))
        })
        .await
        .map_err(|refused| refused.to_string())?;
    }
    Ok(())
}

/// Changes one record, as often as it takes. `to` says what it becomes; one that no configuration has is
/// deleted.
async fn change(
    shared: &Shared,
    store: &Store,
    camera: &str,
    to: impl Fn(Option<Listed>) -> Result<Option<Listed>, Refused>,
) -> Result<(), Refused> {
    let key = Key::Camera(camera).to_string();
    for _ in 0..TRIES {
        let stands = read::<Listed>(&store.common, &key, shared.patience())
            .await
            .map_err(Refused::NotNow)?;
        let (revision, before) = stands.map_or((0, None), |(revision, value)| (revision, value));
        let Some(after) = to(before.clone())? else { return Ok(()) };
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        if after.from.is_empty() {
            match store.common.delete_expect_revision(&key, Some(revision)).await {
                Ok(()) => return Ok(()),
                Err(_) => continue,
            }
        }
        match write(&store.common, &key, &after, revision, shared.patience()).await {
            Written::Yes(_) => return Ok(()),
            Written::Late => {}
            Written::Unknown(reason) => return Err(Refused::NotNow(reason)),
        }
    }
    Err(Refused::NotNow("others change this camera all the time".into()))
}

pub(super) async fn add_standing(
    shared: &Shared,
    camera: &str,
    mut standing: StandingConfig,
) -> Result<Standing, Refused> {
    standing.check().map_err(Refused::Bad)?;
    let store = shared.store()?;
    let listed = shared.view.lock().cameras.get(camera).map(|seen| seen.value.clone());
    let listed = listed.ok_or_else(|| Refused::NoCamera(camera.to_owned()))?;
    let taken = effective(&listed).standing;
    let is_taken = |id: &str| taken.iter().any(|standing| standing.id.as_deref() == Some(id));
    let id = match &standing.id {
        Some(id) if is_taken(id) => {
            return Err(Refused::Bad(format!("a question \"{id}\" stands at this camera already")));
        }
        Some(id) => id.clone(),
        None => config::standing_id(&standing.question, is_taken),
    };
    standing.id = Some(id.clone());
    change(shared, &store, camera, |listed| {
        let mut listed = listed.ok_or_else(|| Refused::NoCamera(camera.to_owned()))?;
        listed.without.remove(&id);
        listed.standing.retain(|other| other.id.as_ref() != Some(&id));
        listed.standing.push(standing.clone());
        Ok(Some(listed))
    })
    .await?;
    Ok(Standing {
        id,
        question: standing.question,
        every: standing.every,
        on: standing.on,
        choices: standing.choices,
        when: standing.when,
        for_s: standing.for_s,
        cool_down_s: standing.cool_down_s,
        state: None,
        confidence: None,
        since: None,
    })
}

pub(super) async fn remove_standing(
    shared: &Shared,
    camera: &str,
    standing: &str,
) -> Result<(), Refused> {
    let store = shared.store()?;
    change(shared, &store, camera, |listed| {
        let mut listed = listed.ok_or_else(|| Refused::NoCamera(camera.to_owned()))?;
        if !effective(&listed).standing.iter().any(|there| there.id.as_deref() == Some(standing)) {
            return Err(Refused::NotFound(format!(
                "no question \"{standing}\" stands at this camera"
            )));
        }
        listed.standing.retain(|other| other.id.as_deref() != Some(standing));
        if config::standing_of(&listed.config).iter().any(|(id, _)| id == standing) {
            listed.without.insert(standing.to_owned());
        }
        Ok(Some(listed))
    })
    .await?;
    alerts::forget(shared, &store, camera, standing).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_watched_with_what_was_added_and_without_what_was_taken_away() {
        let standing = |id: &str| StandingConfig {
            id: Some(id.into()),
            question: format!("{id}?"),
            ..StandingConfig::default()
        };
        let listed = Listed {
            config: CameraConfig {
                standing: vec![standing("a"), standing("b")],
                ..CameraConfig::default()
            },
            standing: vec![standing("c")],
            without: ["a".to_owned()].into(),
            ..Listed::default()
        };
        let ids: Vec<String> =
            effective(&listed).standing.into_iter().filter_map(|standing| standing.id).collect();
        assert_eq!(ids, ["b", "c"]);
    }
}
