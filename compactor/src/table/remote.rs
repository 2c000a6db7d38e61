//! Object stores reached over a network: how they are opened, and what they must be able to do.
//!
//! In: `storage.url` and `[storage.options]`, whose keys are object_store's own. What the options leave out comes from the
//! environment as for other programs (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, ...).
//! Promise: a store that answers [`check_conditional_put`] with `Ok` lets exactly one of two writers have a version.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload, RetryConfig,
};
use runtime::Entropy;
use url::Url;

use crate::{Error, Result};

/// What follows the library's own attempts is ours: commits look at the log before they go on, landings keep their rows.
/// So the library only bridges single lost requests. A conditional write that it repeats may meet its own first attempt
/// and then says that the file exists; a commit reads it and finds its own id there.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// Opens the store that `url` names, and gives the folder in it. `None` for schemes that are not a cloud's.
pub(crate) fn open(url: &Url, options: &BTreeMap<String, String>) -> Result<Option<(Arc<dyn ObjectStore>, Path)>> {
    let refused = |error: object_store::Error| Error::Config(format!("storage.url {url}: {error}"));
    let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|error| refused(error.into()))?;
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: BACKOFF_MAX, ..Default::default() },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    };
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
            for (key, value) in keys::<AmazonS3ConfigKey>(options)? {
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(refused)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry);
            for (key, value) in keys::<GoogleConfigKey>(options)? {
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(refused)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry);
            for (key, value) in keys::<AzureConfigKey>(options)? {
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(refused)?)
        }
        _ => return Ok(None),
    };
    Ok(Some((store, prefix)))
}

/// The options as keys of one kind of store. An unknown one would be silently without effect.
fn keys<K: FromStr>(options: &BTreeMap<String, String>) -> Result<Vec<(K, &String)>> {
    let unknown = |name: &str| Error::Config(format!("storage.options.{name}: this kind of store has no such option"));
    let key = |name: &str| name.to_ascii_lowercase().parse::<K>().map_err(|_| unknown(name));
    options.iter().map(|(name, value)| Ok((key(name)?, value))).collect()
}

/// Writes the same new file twice under `prefix`: the second time must be refused.
///
/// # Errors
/// `Config` if the store takes both, refuses this program, or has no such bucket: without conditional writes two
/// committers would overwrite one another. `Store` (kind `Retry`) if it does not answer.
pub(crate) async fn check_conditional_put(
    store: &dyn ObjectStore,
    prefix: &Path,
    url: &Url,
    entropy: &Entropy,
) -> Result<()> {
    use object_store::Error::{
        AlreadyExists, NotFound, NotImplemented, PermissionDenied, Precondition, Unauthenticated,
    };
    let path = prefix.clone().join(format!("_tidegate_probe_{}", entropy.uuid()));
    let put = || {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        store.put_opts(&path, PutPayload::from_static(b"may be deleted"), options)
    };
    let no_conditions = "the store does not honour conditional writes (If-None-Match: *), without which commits could overwrite one another";
    let refused = |what: String| Error::Config(format!("storage.url {url}: {what}"));
    match put().await {
        Ok(_) => {}
        // The library repeated a write whose first answer was lost.
        Err(AlreadyExists { .. } | Precondition { .. }) => {}
        Err(NotImplemented { .. }) => return Err(refused(no_conditions.into())),
        Err(error @ NotFound { .. }) => return Err(refused(format!("there is no such bucket: {error}"))),
        Err(error @ (PermissionDenied { .. } | Unauthenticated { .. })) => {
            return Err(refused(format!("the store refuses these credentials: {error}")));
        }
        Err(error) => return Err(Error::store("write a probe to", url, error)),
    }
    let second = put().await;
    if let Err(error) = store.delete(&path).await {
        tracing::info!(%path, %error, "the probe of the store stays behind");
    }
    match second {
        Err(AlreadyExists { .. } | Precondition { .. }) => Ok(()),
        Ok(_) | Err(NotImplemented { .. }) => Err(refused(no_conditions.into())),
        Err(error) => Err(Error::store("write a probe to", url, error)),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::fixtures::faults::{Fault, FaultStore};

    async fn check(store: &dyn ObjectStore) -> Result<()> {
        let url = Url::parse("s3://bucket/lake").unwrap();
        check_conditional_put(store, &Path::from("lake"), &url, &Entropy::seeded(1)).await
    }

    #[tokio::test]
    async fn store_with_conditions_passes_and_stays_empty() {
        let store = InMemory::new();
        check(&store).await.unwrap();
        assert_eq!(store.list(None).count().await, 0);
    }

    #[tokio::test]
    async fn store_that_overwrites_is_refused() {
        let store = FaultStore::overwriting();
        let error = check(&store).await.unwrap_err();
        assert!(error.to_string().contains("does not honour conditional writes"), "{error}");
    }

    #[tokio::test]
    async fn store_that_does_not_answer_may_be_tried_again() {
        let store = FaultStore::default();
        store.next_writes([Some(Fault::Lost)]);
        assert_eq!(check(&store).await.unwrap_err().kind(), runtime::ErrorKind::Retry);
    }

    #[test]
    fn unknown_options_are_named() {
        let url = Url::parse("s3://bucket/lake").unwrap();
        let options = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        let error = open(&url, &options("acces_key_id")).unwrap_err();
        assert!(error.to_string().contains("storage.options.acces_key_id"), "{error}");
        assert!(open(&url, &options("AWS_Endpoint")).unwrap().is_some());
        assert!(open(&Url::parse("gs://bucket/lake").unwrap(), &BTreeMap::new()).unwrap().is_some());
        let azure = BTreeMap::from([("account_name".to_owned(), "acme".to_owned())]);
        assert!(open(&Url::parse("az://container/lake").unwrap(), &azure).unwrap().is_some());
        assert!(open(&Url::parse("memory:///lake").unwrap(), &BTreeMap::new()).unwrap().is_none());
    }
}
