//! KMS, as far as envelope encryption goes: `Encrypt`, `Decrypt`, `GenerateDataKey` with symmetric keys.
//!
//! A ciphertext names its key in clear and is bound to its encryption context, as those of AWS are. Keys have no bytes of
//! their own: they are derived from their ARNs, so that a world that is started again decrypts what it encrypted.
//! Grants, key policies, keys of other accounts and imported material are not simulated.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Call, error::ApiError};
use crate::{
    crypto::{random_bytes, sha256},
    state::State,
    world::{KmsKey, World},
};

/// First byte of every ciphertext.
const FORMAT: u8 = 1;
/// Most bytes of one `Encrypt`.
const PLAINTEXT_BYTES_MAX: usize = 4096;
/// Most bytes of a data key.
const DATA_KEY_BYTES_MAX: usize = 1024;

/// A key that a call names and may use.
struct Found {
    arn: String,
}

/// Finds a key by id, ARN, alias or ARN of an alias.
fn find(world: &World, call: &Call<'_>, named: &str) -> Result<(String, KmsKey), ApiError> {
    let prefix = call.arn("kms", "");
    let local = named.strip_prefix(&prefix).unwrap_or(named);
    let keys = world
        .region(call.caller.account(), call.region)
        .map(|region| &region.kms_keys);
    let (is_alias, id) = match local.strip_prefix("key/") {
        Some(id) => (false, id),
        None => (local.starts_with("alias/"), local),
    };
    let found = keys.into_iter().flatten().find(|(key_id, key)| {
        if is_alias {
            key.alias.as_deref() == Some(id)
        } else {
            *key_id == id
        }
    });
    found
        .map(|(id, key)| (id.clone(), key.clone()))
        .ok_or_else(|| {
            let message = if is_alias {
                format!("Alias {prefix}{id} is not found.")
            } else {
                format!("Key '{prefix}key/{id}' does not exist")
            };
            ApiError::new(400, "NotFoundException", message)
        })
}

/// The key that a call names, when the caller may use it and it is enabled.
fn usable(state: &State, call: &Call<'_>, named: &str) -> Result<Found, ApiError> {
    let (id, key) = find(&state.world(), call, named)?;
    let arn = call.arn("kms", &format!("key/{id}"));
    call.require(state, &arn)?;
    if key.disabled {
        let message = format!("{arn} is disabled.");
        return Err(ApiError::new(409, "DisabledException", message));
    }
    Ok(Found { arn })
}

impl Found {
    fn cipher(&self) -> RandomizedNonceKey {
        let bytes = sha256(format!("awssim kms key {}", self.arn).as_bytes());
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).expect("a SHA-256 digest has 32 bytes")
    }

    fn encrypt(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .cipher()
            .seal_in_place_append_tag(Aad::from(context), &mut sealed)
            .expect("the system has randomness");
        let arn = self.arn.as_bytes();
        let length = u16::try_from(arn.len()).expect("an ARN is short");
        let head = [&[FORMAT][..], &length.to_be_bytes(), arn].concat();
        [&head, nonce.as_ref().as_slice(), &sealed].concat()
    }

    fn decrypt(&self, nonce_and_sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = nonce_and_sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut buffer = sealed.to_vec();
        let plain = self
            .cipher()
            .open_in_place(nonce, Aad::from(context), &mut buffer)
            .ok()?;
        Some(plain.to_vec())
    }
}

/// The ARN in a ciphertext, and what follows it.
fn parts(blob: &[u8]) -> Option<(&str, &[u8])> {
    let (head, rest) = blob.split_at_checked(3)?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    let (arn, rest) = rest.split_at_checked(length)?;
    let arn = std::str::from_utf8(arn).ok()?;
    (head[0] == FORMAT).then_some((arn, rest))
}

/// The encryption context as associated data.
fn context(call: &Call<'_>) -> Vec<u8> {
    let pairs: BTreeMap<&str, &str> = call.form.under("EncryptionContext").collect();
    let mut bytes = Vec::new();
    for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn bytes(call: &Call<'_>, name: &str) -> Result<Vec<u8>, ApiError> {
    let text = call.form.required(name)?;
    let bad = |_| {
        ApiError::new(
            400,
            "SerializationException",
            format!("{name} is no base64"),
        )
    };
    STANDARD.decode(text).map_err(bad)
}

fn invalid_ciphertext() -> ApiError {
    ApiError::new(400, "InvalidCiphertextException", "")
}

fn refuse_unknown(call: &Call<'_>) -> Result<(), ApiError> {
    for name in ["EncryptionAlgorithm", "DryRun"] {
        let given = call.form.non_empty(name);
        if given.is_some_and(|given| !matches!(given, "SYMMETRIC_DEFAULT" | "false")) {
            return Err(ApiError::not_simulated(name));
        }
    }
    Ok(())
}

/// Answers Encrypt.
pub(super) fn encrypt(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    refuse_unknown(call)?;
    let key = usable(state, call, call.form.required("KeyId")?)?;
    let plain = bytes(call, "Plaintext")?;
    if plain.is_empty() || plain.len() > PLAINTEXT_BYTES_MAX {
        let rule = "Member must have length from 1 to 4096";
        return Err(ApiError::constraint("*****", "plaintext", rule));
    }
    Ok(json!({
        "CiphertextBlob": STANDARD.encode(key.encrypt(&plain, &context(call))),
        "KeyId": key.arn,
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }))
}

/// Answers Decrypt.
pub(super) fn decrypt(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    refuse_unknown(call)?;
    let blob = bytes(call, "CiphertextBlob")?;
    let (arn, rest) = parts(&blob).ok_or_else(invalid_ciphertext)?;
    let named = call.form.non_empty("KeyId").unwrap_or(arn);
    let key = usable(state, call, named)?;
    if key.arn != arn {
        let message =
            "The key ID in the request does not identify a CMK that can perform this operation.";
        return Err(ApiError::new(400, "IncorrectKeyException", message));
    }
    let plain = key
        .decrypt(rest, &context(call))
        .ok_or_else(invalid_ciphertext)?;
    Ok(json!({
        "KeyId": key.arn,
        "Plaintext": STANDARD.encode(plain),
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }))
}

/// Answers GenerateDataKey.
pub(super) fn generate_data_key(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    refuse_unknown(call)?;
    let key = usable(state, call, call.form.required("KeyId")?)?;
    let length = match (call.form.get("KeySpec"), call.form.get("NumberOfBytes")) {
        (Some("AES_256"), None) => 32,
        (Some("AES_128"), None) => 16,
        (None, Some(number)) => number
            .parse()
            .ok()
            .filter(|length| (1..=DATA_KEY_BYTES_MAX).contains(length))
            .ok_or_else(|| {
                let rule = "Member must have value from 1 to 1024";
                ApiError::constraint(number, "numberOfBytes", rule)
            })?,
        _ => {
            let message = "Please specify either number of bytes or key spec.";
            return Err(ApiError::validation(message));
        }
    };
    let plain = &random_bytes::<DATA_KEY_BYTES_MAX>()[..length];
    Ok(json!({
        "CiphertextBlob": STANDARD.encode(key.encrypt(plain, &context(call))),
        "Plaintext": STANDARD.encode(plain),
        "KeyId": key.arn,
    }))
}
