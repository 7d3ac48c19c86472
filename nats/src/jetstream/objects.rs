//! Snapshots and large inputs in the object store.

use async_nats::jetstream::object_store::{DeleteErrorKind, GetErrorKind, ObjectStore};
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::AsyncReadExt;

use crate::LogError;

pub(super) async fn put(store: &ObjectStore, name: &str, bytes: Bytes) -> Result<(), LogError> {
    store
        .put(name, &mut &bytes[..])
        .await
        .map_err(|error| LogError::Refused(format!("object {name} cannot be stored: {error}")))?;
    Ok(())
}

pub(super) async fn get(store: &ObjectStore, name: &str) -> Result<Option<Bytes>, LogError> {
    let mut object = match store.get(name).await {
        Ok(object) => object,
        Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(LogError::Unreachable(format!(
                "object {name} cannot be read: {error}"
            )));
        }
    };
    if object.info.deleted {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(object.info.size);
    // The client checks the digest at the end.
    object.read_to_end(&mut bytes).await.map_err(|error| {
        LogError::Refused(format!("object {name} is damaged or was replaced: {error}"))
    })?;
    Ok(Some(bytes.into()))
}

pub(super) async fn list(store: &ObjectStore, prefix: &str) -> Result<Vec<String>, LogError> {
    let unreadable =
        |error: String| LogError::Unreachable(format!("objects cannot be listed: {error}"));
    let mut objects = store
        .list()
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    let mut names = Vec::new();
    while let Some(object) = objects.next().await {
        let object = object.map_err(|error| unreadable(error.to_string()))?;
        if !object.deleted && object.name.starts_with(prefix) {
            names.push(object.name);
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

pub(super) async fn delete(store: &ObjectStore, name: &str) -> Result<(), LogError> {
    match store.delete(name).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == DeleteErrorKind::NotFound => Ok(()),
        Err(error) => Err(LogError::Refused(format!(
            "object {name} cannot be deleted: {error}"
        ))),
    }
}
