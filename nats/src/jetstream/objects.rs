//! Snapshots and large inputs in the object store.

use async_nats::jetstream::{
    Context,
    object_store::{DeleteErrorKind, GetErrorKind, ObjectStore},
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use futures::StreamExt;
use tokio::{io::AsyncReadExt, sync::OnceCell};

use crate::{LogError, definitions::SNAPSHOTS_BUCKET};

/// The object stores that were opened. Not all at the start: an agent may not open that of the snapshots.
#[derive(Default)]
pub(super) struct Stores {
    objects: OnceCell<ObjectStore>,
    snapshots: OnceCell<ObjectStore>,
}

impl Stores {
    pub(super) async fn open(
        &self,
        context: &Context,
        bucket: &str,
    ) -> Result<&ObjectStore, LogError> {
        let cell = if bucket == SNAPSHOTS_BUCKET {
            &self.snapshots
        } else {
            &self.objects
        };
        cell.get_or_try_init(|| context.get_object_store(bucket))
            .await
            .map_err(|error| {
                LogError::Unreachable(format!("object store {bucket} cannot be opened: {error}"))
            })
    }
}

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

/// Asks the stream's leader, not a consumer: on a cluster a consumer may lie with a follower that lags behind, and a list
/// made from it misses what was just put.
///
/// One request, and none for each object: a look at one makes the server read a block of 8 MB.
pub(super) async fn list(
    context: &Context,
    bucket: &str,
    prefix: &str,
) -> Result<Vec<String>, LogError> {
    let unreadable =
        |error: String| LogError::Unreachable(format!("objects cannot be listed: {error}"));
    let subject = format!("$O.{bucket}.M.");
    let stream = context
        .get_stream_no_info(format!("OBJ_{bucket}"))
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    let mut subjects = stream
        .info_with_subjects(format!("{subject}>"))
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    let mut names = Vec::new();
    while let Some(found) = subjects.next().await {
        let (found, _) = found.map_err(|error| unreadable(error.to_string()))?;
        let Some(name) = name_of(found.strip_prefix(&subject).unwrap_or_default()) else {
            continue;
        };
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The name in an object's subject: URL-safe base64, see ADR-20 of the NATS architecture.
fn name_of(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE.decode(token).ok()?).ok()
}

pub(super) async fn delete(
    context: &Context,
    (bucket, store): (&str, &ObjectStore),
    name: &str,
) -> Result<(), LogError> {
    let failed =
        |error: String| LogError::Refused(format!("object {name} cannot be deleted: {error}"));
    match store.delete(name).await {
        Ok(()) => {}
        Err(error) if error.kind() == DeleteErrorKind::NotFound => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    // What is left is a marker for each name that ever was: the store would grow by one with each snapshot.
    let stream = context
        .get_stream_no_info(format!("OBJ_{bucket}"))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let marker = format!("$O.{bucket}.M.{}", URL_SAFE.encode(name));
    stream
        .purge()
        .filter(marker)
        .await
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}
