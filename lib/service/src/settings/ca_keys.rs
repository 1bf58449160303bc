//! Key `ca_key_params` of section `auth_service`: what the private keys of the cluster's CAs are encrypted with in the
//! state store.

use std::path::PathBuf;

use super::{
    CaKey, CaKeySettings,
    section::{Item, Section},
    words::quote,
};

/// Most keys that may be named: one that encrypts, and those before it.
const KEYS_MAX: usize = 8;
/// The ways in which Teleport keeps CA keys outside of its store, which Tidegate does not speak.
const ELSEWHERE: [&str; 2] = ["gcp_kms", "pkcs11"];

/// Reads it; `None` is nothing to encrypt with, or an error that was reported.
pub(super) fn read(item: &Item<'_>) -> Option<CaKeySettings> {
    let mut section = item.section()?;
    refuse_elsewhere(&mut section);
    let mut keys = keys(&mut section)?;
    let older = section
        .get("previous")
        .filter(Item::is_given)
        .and_then(|item| previous(&item));
    section.finish();
    if keys.is_empty() {
        item.error_expected(
            "names no key",
            "`key_file: /path` or `aws_kms: {key_id: …, region: …}`",
        );
        return None;
    }
    let seal = keys.remove(0);
    keys.extend(older.unwrap_or_default());
    if keys.len() >= KEYS_MAX {
        item.error(format!("names more than {KEYS_MAX} keys"));
        return None;
    }
    Some(CaKeySettings {
        seal,
        previous: keys,
    })
}

/// Keys that only decrypt: of another kind than the one that encrypts.
fn previous(item: &Item<'_>) -> Option<Vec<CaKey>> {
    let mut section = item.section()?;
    refuse_elsewhere(&mut section);
    let found = keys(&mut section);
    section.finish();
    found
}

fn refuse_elsewhere(section: &mut Section<'_>) {
    for key in ELSEWHERE {
        if let Some(item) = section.get(key).filter(Item::is_given) {
            item.error_expected("is not supported", "`key_file` or `aws_kms`");
        }
    }
}

/// The keys of one section, in order: one kind or the other.
fn keys(section: &mut Section<'_>) -> Option<Vec<CaKey>> {
    let files = section.get("key_file").filter(Item::is_given);
    let kms = section.get("aws_kms").filter(Item::is_given);
    match (files, kms) {
        (Some(_), Some(kms)) => {
            kms.error_expected(
                "stands beside `key_file`",
                "one of them, and the one that was used before it under `previous`",
            );
            None
        }
        (Some(files), None) => files.one_or_many().iter().map(key_file).collect(),
        (None, Some(kms)) => Some(vec![aws_kms(&kms)?]),
        (None, None) => Some(Vec::new()),
    }
}

fn key_file(item: &Item<'_>) -> Option<CaKey> {
    let path = PathBuf::from(item.full_text()?);
    if !path.is_absolute() {
        item.error_expected(
            format!("{} is not an absolute path", quote(&path.to_string_lossy())),
            "such as `/etc/tidegate/ca.key`",
        );
        return None;
    }
    Some(CaKey::File(path))
}

/// A key of AWS KMS: by id, ARN or alias. The region of an ARN need not be said again.
fn aws_kms(item: &Item<'_>) -> Option<CaKey> {
    let mut section = item.section()?;
    let id = section.get("key_id").filter(Item::is_given);
    let arn = section.get("key_arn").filter(Item::is_given);
    let region = section.text("region");
    // Teleport's own keys live in KMS for ever; what its other keys say does not apply to a key that encrypts.
    section.ignore(&["account", "multi_region", "policy", "tags"]);
    section.finish();
    let given = match (id, arn) {
        (Some(_), Some(arn)) => {
            arn.error_expected("stands beside `key_id`", "one of them");
            return None;
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => {
            item.error_expected(
                "names no key",
                "`key_id` or `key_arn`, such as `alias/tidegate-ca`",
            );
            return None;
        }
    };
    let key = given.full_text()?.trim();
    let of_arn = arn_region(key);
    if key.starts_with("arn:") && of_arn.is_none() {
        given.error_expected(
            format!("{} is not the ARN of a KMS key", quote(key)),
            "`arn:aws:kms:us-east-1:123456789012:key/…`",
        );
        return None;
    }
    match (of_arn, region) {
        (Some(of_arn), Some(region)) if *of_arn != region => {
            given.error_expected(
                format!(
                    "is in region {}, and `region` says {}",
                    quote(of_arn),
                    quote(&region)
                ),
                "one region",
            );
            None
        }
        (None, None) => {
            item.error_expected(
                "names no region",
                "`region` such as `us-east-1`, or the key's ARN",
            );
            None
        }
        (of_arn, region) => Some(CaKey::AwsKms {
            region: region.or_else(|| of_arn.map(ToOwned::to_owned))?,
            key: key.to_owned(),
        }),
    }
}

/// The region in the ARN of a key or an alias of KMS.
fn arn_region(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let (arn, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, _account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = arn == "arn"
        && service == "kms"
        && !region.is_empty()
        && (resource.starts_with("key/") || resource.starts_with("alias/"));
    sound.then_some(region)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::parse, *};

    fn read(params: &str) -> Result<Option<CaKeySettings>, String> {
        let text = format!(
            "tidegate:\n  nodename: a.example.com\nauth_service:\n  enabled: true\n  ca_key_params:\n{params}"
        );
        match parse(&text, Path::new("t.yaml")) {
            Ok(settings) => Ok(settings.auth.unwrap().ca_keys),
            Err(error) => Err(error.to_string()),
        }
    }

    fn file(path: &str) -> CaKey {
        CaKey::File(path.into())
    }

    #[test]
    fn the_first_key_file_encrypts_and_the_others_decrypt() {
        let keys = read("    key_file: /a.key\n").unwrap().unwrap();
        assert_eq!((keys.seal, keys.previous), (file("/a.key"), vec![]));
        let keys = read("    key_file: [/b.key, /a.key]\n").unwrap().unwrap();
        assert_eq!(
            (keys.seal, keys.previous),
            (file("/b.key"), vec![file("/a.key")])
        );
    }

    #[test]
    fn a_kms_key_is_named_by_id_arn_or_alias_and_older_files_may_follow_it() {
        let kms = |key: &str| CaKey::AwsKms {
            key: key.to_owned(),
            region: "us-east-1".to_owned(),
        };
        let id = "    aws_kms: {key_id: alias/ca, region: us-east-1}\n    previous: {key_file: /a.key}\n";
        let keys = read(id).unwrap().unwrap();
        assert_eq!(
            (keys.seal, keys.previous),
            (kms("alias/ca"), vec![file("/a.key")])
        );
        let arn = "arn:aws:kms:us-east-1:123456789012:key/abc";
        let keys = read(&format!("    aws_kms: {{key_arn: \"{arn}\"}}\n"))
            .unwrap()
            .unwrap();
        assert_eq!(keys.seal, kms(arn));
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_what_was_expected() {
        for (params, said) in [
            ("    key_file: ca.key\n", "not an absolute path"),
            ("    key_fil: /ca.key\n", "key_file"),
            (
                "    key_file: /a\n    aws_kms: {key_id: x, region: r}\n",
                "`previous`",
            ),
            ("    aws_kms: {key_id: x}\n", "names no region"),
            ("    aws_kms: {region: us-east-1}\n", "names no key"),
            (
                "    aws_kms: {key_arn: \"arn:aws:s3:::x\"}\n",
                "not the ARN",
            ),
            (
                "    aws_kms: {key_arn: \"arn:aws:kms:eu-west-1:1:key/x\", region: us-east-1}\n",
                "eu-west-1",
            ),
            ("    gcp_kms: {keyring: x}\n", "not supported"),
        ] {
            let refused = read(params).unwrap_err();
            assert!(refused.contains(said), "{params}: {refused}");
            let at_line = (5..=7).any(|line| refused.contains(&format!("t.yaml:{line}:")));
            assert!(at_line, "{refused}");
        }
    }
}
