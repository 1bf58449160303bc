//! KMS, as the AWS SDK sees it.

use std::collections::HashMap;

use aws_sdk_kms::{
    Client,
    config::{BehaviorVersion, Region, retry::RetryConfig},
    error::ProvideErrorMetadata,
    primitives::Blob,
    types::DataKeySpec,
};
use awssim::{IdentityPolicy, KmsKey, User, World};

use crate::{EAST, Fixture, HOME, worker, world};

const ALIAS: &str = "alias/tidegate-ca";
const OURS: &str = "0a1b2c3d-0000-4000-8000-000000000001";
const OFF: &str = "0a1b2c3d-0000-4000-8000-000000000002";
const OTHER: &str = "0a1b2c3d-0000-4000-8000-000000000003";

fn keyed(actions: &[&str]) -> World {
    let mut world = world();
    let account = world.accounts.get_mut(HOME).unwrap();
    let keys = &mut account.regions.get_mut(EAST).unwrap().kms_keys;
    let named = KmsKey {
        alias: Some(ALIAS.to_owned()),
        ..KmsKey::default()
    };
    let off = KmsKey {
        disabled: true,
        ..KmsKey::default()
    };
    keys.extend([(OURS.to_owned(), named), (OFF.to_owned(), off)]);
    keys.insert(OTHER.to_owned(), KmsKey::default());
    let user: &mut User = account.users.values_mut().next().unwrap();
    user.policies
        .push(IdentityPolicy::allow(actions.iter().copied(), ["*"]));
    world
}

fn client(fixture: &Fixture) -> Client {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(fixture.sim.endpoint_url())
        .region(Region::new(EAST))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(worker())
        .build();
    Client::from_conf(config)
}

fn context(ca: &str) -> HashMap<String, String> {
    [("tidegate:ca".to_owned(), ca.to_owned())].into()
}

#[tokio::test]
async fn a_data_key_comes_back_for_its_own_context_and_key_alone() {
    let fixture = Fixture::api(keyed(&["kms:GenerateDataKey", "kms:Decrypt"])).await;
    let kms = client(&fixture);
    let made = kms
        .generate_data_key()
        .key_id(ALIAS)
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(context("host")))
        .send()
        .await
        .unwrap();
    let arn = format!("arn:aws:kms:{EAST}:{HOME}:key/{OURS}");
    assert_eq!(made.key_id(), Some(arn.as_str()));
    assert_eq!(made.plaintext().unwrap().as_ref().len(), 32);
    let blob = made.ciphertext_blob.unwrap();
    let decrypt = async |blob: Blob, ca: &str, key: Option<&str>| {
        kms.decrypt()
            .ciphertext_blob(blob)
            .set_key_id(key.map(str::to_owned))
            .set_encryption_context(Some(context(ca)))
            .send()
            .await
    };
    let opened = decrypt(blob.clone(), "host", None).await.unwrap();
    assert_eq!(opened.plaintext, made.plaintext);
    let other_context = decrypt(blob.clone(), "user", None).await.unwrap_err();
    assert_eq!(other_context.code(), Some("InvalidCiphertextException"));
    let other_key = decrypt(blob.clone(), "host", Some(OTHER))
        .await
        .unwrap_err();
    assert_eq!(other_key.code(), Some("IncorrectKeyException"));
    let mut changed = blob.into_inner();
    *changed.last_mut().unwrap() ^= 1;
    let changed = decrypt(Blob::new(changed), "host", None).await.unwrap_err();
    assert_eq!(changed.code(), Some("InvalidCiphertextException"));
}

#[tokio::test]
async fn a_key_that_is_disabled_missing_or_not_allowed_is_refused_as_aws_does() {
    let fixture = Fixture::api(keyed(&["kms:Encrypt"])).await;
    let kms = client(&fixture);
    let encrypt = async |key: &str| {
        let call = kms.encrypt().key_id(key).plaintext(Blob::new("x"));
        call.send().await
    };
    assert!(encrypt(OURS).await.is_ok());
    let code = |error: &dyn ProvideErrorMetadata| error.code().unwrap().to_owned();
    assert_eq!(code(&encrypt(OFF).await.unwrap_err()), "DisabledException");
    assert_eq!(
        code(&encrypt("alias/none").await.unwrap_err()),
        "NotFoundException"
    );
    let denied = kms
        .generate_data_key()
        .key_id(OURS)
        .key_spec(DataKeySpec::Aes256)
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&denied), "AccessDeniedException");
}
