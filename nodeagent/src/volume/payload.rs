//! What the files of a ConfigMap, Secret, downward API or projected volume contain.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};

use super::Error;
use super::sources::Sources;
use crate::pod::{PodExt, env};

/// The API's default for files.
const MODE: i32 = 0o644;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its contents.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner, if not root.
    pub uid: Option<i64>,
}

/// All files of a volume, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// By path inside the volume.
    pub files: BTreeMap<String, File>,
}

impl Payload {
    fn add(&mut self, path: &str, data: Vec<u8>, mode: i32) -> Result<(), Error> {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || path.is_empty() {
            return Err(Error::Invalid(format!("path {path:?} leads out of the volume")));
        }
        let mode = u32::try_from(mode).unwrap_or(0o644);
        self.files.insert(path.to_owned(), File { data, mode, uid: None });
        Ok(())
    }

    /// All keys, or the listed ones under their own paths.
    fn add_keys(
        &mut self,
        kind: &'static str,
        data: BTreeMap<String, Vec<u8>>,
        items: Option<&Vec<KeyToPath>>,
        mode: i32,
        optional: bool,
    ) -> Result<(), Error> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data.into_iter().try_for_each(|(key, value)| self.add(&key, value, mode));
        };
        for item in items {
            match data.get(&item.key) {
                Some(value) => self.add(&item.path, value.clone(), item.mode.unwrap_or(mode))?,
                None if optional => {}
                None => return Err(Error::NoKey { kind, key: item.key.clone() }),
            }
        }
        Ok(())
    }
}

/// Reads what the volume refers to.
pub(super) async fn of_volume(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
) -> Result<Payload, Error> {
    let mut payload = Payload::default();
    if let Some(v) = &volume.config_map {
        let optional = v.optional.unwrap_or(false);
        let data =
            config_map(sources.config_map(pod.namespace(), &v.name).await?, &v.name, optional)?;
        payload.add_keys(
            "config",
            data,
            v.items.as_ref(),
            v.default_mode.unwrap_or(MODE),
            optional,
        )?;
    } else if let Some(v) = &volume.secret {
        let optional = v.optional.unwrap_or(false);
        let name = v.secret_name.as_deref().unwrap_or_default();
        let data = secret(sources.secret(pod.namespace(), name).await?, name, optional)?;
        payload.add_keys(
            "secret",
            data,
            v.items.as_ref(),
            v.default_mode.unwrap_or(MODE),
            optional,
        )?;
    } else if let Some(v) = &volume.downward_api {
        add_downward(&mut payload, pod, v.items.as_ref(), v.default_mode.unwrap_or(MODE), sources)?;
    } else if let Some(v) = &volume.projected {
        for projection in v.sources.iter().flatten() {
            project(&mut payload, pod, projection, v.default_mode.unwrap_or(MODE), sources).await?;
        }
    }
    Ok(payload)
}

async fn project(
    payload: &mut Payload,
    pod: &Pod,
    projection: &VolumeProjection,
    mode: i32,
    sources: &Sources,
) -> Result<(), Error> {
    if let Some(v) = &projection.config_map {
        let optional = v.optional.unwrap_or(false);
        let data =
            config_map(sources.config_map(pod.namespace(), &v.name).await?, &v.name, optional)?;
        payload.add_keys("config", data, v.items.as_ref(), mode, optional)?;
    }
    if let Some(v) = &projection.secret {
        let optional = v.optional.unwrap_or(false);
        let data = secret(sources.secret(pod.namespace(), &v.name).await?, &v.name, optional)?;
        payload.add_keys("secret", data, v.items.as_ref(), mode, optional)?;
    }
    if let Some(v) = &projection.downward_api {
        add_downward(payload, pod, v.items.as_ref(), mode, sources)?;
    }
    if let Some(v) = &projection.service_account_token {
        let token = sources.token(pod, v.audience.as_deref(), v.expiration_seconds).await?;
        let user = common_user(pod);
        let grouped =
            pod.pod_spec().security_context.as_ref().is_some_and(|c| c.fs_group.is_some());
        // Readable for the one user that the containers run as, else for all of them.
        let mode = if user.is_some() || grouped { 0o600 } else { mode };
        payload.add(&v.path, token.into_bytes(), mode)?;
        if let Some(file) = payload.files.get_mut(&v.path) {
            file.uid = user;
        }
    }
    Ok(())
}

/// The user of all containers, if they agree on one.
fn common_user(pod: &Pod) -> Option<i64> {
    let of_pod = pod.pod_spec().security_context.as_ref().and_then(|context| context.run_as_user);
    let users: Vec<_> = pod
        .all_containers()
        .iter()
        .map(|(_, c)| {
            c.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
        })
        .collect();
    let first = users.first().copied().flatten()?;
    users.iter().all(|user| *user == Some(first)).then_some(first)
}

fn config_map(
    object: Option<ConfigMap>,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    match object {
        Some(map) => {
            let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
            Ok(text.chain(binary).collect())
        }
        None if optional => Ok(BTreeMap::new()),
        None => Err(Error::NotFound { kind: "configmap", name: name.to_owned() }),
    }
}

fn secret(
    object: Option<Secret>,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    match object {
        Some(secret) => {
            Ok(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())
        }
        None if optional => Ok(BTreeMap::new()),
        None => Err(Error::NotFound { kind: "secret", name: name.to_owned() }),
    }
}

fn add_downward(
    payload: &mut Payload,
    pod: &Pod,
    items: Option<&Vec<DownwardAPIVolumeFile>>,
    mode: i32,
    sources: &Sources,
) -> Result<(), Error> {
    for item in items.into_iter().flatten() {
        let value = if let Some(field) = &item.field_ref {
            env::field_value(pod, sources.facts(), &field.field_path)
        } else if let Some(resource) = &item.resource_field_ref {
            env::resource_value(pod, None, sources.facts(), resource)
        } else {
            Ok(String::new())
        };
        let value = value.map_err(|error| Error::Invalid(error.to_string()))?;
        payload.add(&item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> BTreeMap<String, Vec<u8>> {
        [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into()
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let mut payload = Payload::default();
        let items = vec![KeyToPath {
            key: "a".to_owned(),
            path: "x/y".to_owned(),
            mode: Some(0o400),
            user: None,
        }];
        payload.add_keys("config", data(), Some(&items), MODE, false).unwrap();
        assert_eq!(payload.files.len(), 1);
        assert_eq!(payload.files["x/y"].mode, 0o400);
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        let items =
            vec![KeyToPath { key: "z".to_owned(), path: "z".to_owned(), mode: None, user: None }];
        let mut payload = Payload::default();
        payload.add_keys("config", data(), Some(&items), MODE, true).unwrap();
        assert!(payload.files.is_empty());
        let error = payload.add_keys("config", data(), Some(&items), MODE, false).unwrap_err();
        assert_eq!(error.to_string(), "references non-existent config key: z");
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["../a", "/etc/passwd", "a/../../b", ""] {
            assert!(Payload::default().add(path, Vec::new(), MODE).is_err(), "{path}");
        }
    }
}
