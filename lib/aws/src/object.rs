//! Signs `s3:PutObject`, which whoever asks sends over a connection of its own.
//!
//! One call with a whole body needs nothing of the S3 client but its signature.
//!
//! Source: Amazon S3 API reference, `PutObject`; "Authenticating requests: using the Authorization header".

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use tidegate_core::Region;

use crate::{AwsFactory, SignError};

/// How long credentials may take to be found.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// A whole object to be put.
#[derive(Clone, Copy, Debug)]
pub struct ObjectPut<'a> {
    /// Scheme, host and path, encoded as they will be sent.
    pub url: &'a str,
    /// The host, with its port when that is not the scheme's.
    pub host: &'a str,
    /// Where the bucket is.
    pub region: &'a Region,
    /// What the object is, such as `application/x-ndjson`.
    pub content_type: &'a str,
    /// All of it.
    pub body: &'a [u8],
}

impl AwsFactory {
    /// Signs `s3:PutObject` with this process's own credentials, and gives all headers but the length.
    ///
    /// # Errors
    ///
    /// [`SignError`]: without credentials, or when the URL cannot be one.
    pub async fn sign_object_put(
        &self,
        put: ObjectPut<'_>,
    ) -> Result<Vec<(String, String)>, SignError> {
        let found = tokio::time::timeout(CREDENTIALS_TIMEOUT, self.own_credentials()).await;
        let credentials = found
            .map_err(|_| SignError::Slow)?
            .map_err(SignError::Credentials)?;
        signed(credentials, put, SystemTime::now())
    }
}

fn signed(
    credentials: Credentials,
    put: ObjectPut<'_>,
    at: SystemTime,
) -> Result<Vec<(String, String)>, SignError> {
    let unsignable = |error: Box<dyn std::error::Error + Send + Sync>| SignError::Unsignable(error);
    let identity = Identity::from(credentials);
    // S3 signs paths as they are sent, and wants the body's digest as a header.
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(put.region.as_str())
        .name("s3")
        .time(at)
        .settings(settings)
        .build()
        .map_err(|error| unsignable(error.into()))?
        .into();
    let ours = [("content-type", put.content_type), ("host", put.host)];
    let body = SignableBody::Bytes(put.body);
    let request = SignableRequest::new("PUT", put.url, ours.into_iter(), body)
        .map_err(|error| unsignable(error.into()))?;
    let (instructions, _) = sign(request, &params)
        .map_err(|error| unsignable(error.into()))?
        .into_parts();
    let headers = ours.into_iter().chain(instructions.headers());
    Ok(headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Authenticating requests" in the S3 API reference, but for its headers.
    #[test]
    fn the_body_and_the_path_are_under_the_signature() {
        let put = |path: &str, body: &'static [u8]| {
            let credentials = Credentials::new("AKIAEXAMPLE", "secret", None, None, "test");
            let region = "eu-central-1".parse().unwrap();
            let headers = signed(
                credentials,
                ObjectPut {
                    url: &format!("https://bucket.s3.eu-central-1.amazonaws.com/{path}"),
                    host: "bucket.s3.eu-central-1.amazonaws.com",
                    region: &region,
                    content_type: "application/x-ndjson",
                    body,
                },
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            )
            .unwrap();
            let of = |name: &str| {
                let found = headers.iter().find(|(given, _)| given == name);
                found.map(|(_, value)| value.clone()).unwrap()
            };
            (of("x-amz-content-sha256"), of("authorization"))
        };
        let (digest, authorization) = put("a/b%20c.jsonl", b"{}\n");
        assert_eq!(
            digest,
            "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
        );
        assert!(
            authorization.contains("AKIAEXAMPLE/20231114/eu-central-1/s3/aws4_request"),
            "{authorization}"
        );
        assert!(
            authorization
                .contains("SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date"),
            "{authorization}"
        );
        assert_ne!(put("a/b%20d.jsonl", b"{}\n").1, authorization);
        assert_ne!(put("a/b%20c.jsonl", b"{}").1, authorization);
    }
}
