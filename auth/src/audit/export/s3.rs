//! Objects in a bucket, one a batch.
//!
//! An object is named by the log and the place that its batch begins after, so that a batch which is put again, after
//! its answer or its position was lost, takes the place of the first one.
//!
//! One `PutObject` a batch over a connection of its own. Not here: its signature (`lib/aws/src/object.rs`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use jiff::{civil::Date, tz::TimeZone};
use tidegate_aws::{AwsFactory, ObjectPut};
use tidegate_core::Region;
use tidegate_service::{https::Https, settings::S3Target};
use tokio::sync::OnceCell;

use super::{ExportError, batch::Batch};
use crate::store::BoxError;

/// One attempt from credentials to the answer.
const PUT_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest code of an error that is passed on.
const CODE_CHARS_MAX: usize = 64;
const CONTENT_TYPE: &str = "application/x-ndjson";

/// A part of a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    prefix: String,
    region: Region,
    at: Address,
    aws: OnceCell<AwsFactory>,
    https: Https,
}

/// Where requests go, and how keys become paths there.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    is_tls: bool,
    host: String,
    port: u16,
    /// The host, and the port unless it is the scheme's own.
    authority: String,
    /// `/`, or `/bucket/` where the host is not the bucket's.
    base: String,
}

impl Address {
    fn new(place: &S3Target) -> Self {
        let by_path = format!("/{}/", place.bucket);
        if let Some(endpoint) = &place.endpoint {
            let (is_tls, authority) = endpoint.strip_prefix("http://").map_or_else(
                || (true, endpoint.trim_start_matches("https://")),
                |authority| (false, authority),
            );
            let default = if is_tls { 443 } else { 80 };
            let split = authority
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host, port.parse().ok()?)));
            let (host, port) = split.unwrap_or((authority, default));
            return Self {
                is_tls,
                host: host.trim_matches(['[', ']']).to_owned(),
                port,
                authority: authority.to_owned(),
                base: by_path,
            };
        }
        // Both are in every region, under the partition's own domain.
        let service = place.region.sts_host().replacen("sts.", "s3.", 1);
        // A certificate for one level of names does not cover a bucket with dots.
        let (host, base) = if place.bucket.contains('.') {
            (service, by_path)
        } else {
            (format!("{}.{service}", place.bucket), "/".to_owned())
        };
        Self {
            is_tls: true,
            authority: host.clone(),
            host,
            port: 443,
            base,
        }
    }
}

impl Bucket {
    /// Nothing is connected to yet. Credentials are those of this process, unless a test gives others.
    pub(super) fn new(place: &S3Target, aws: Option<AwsFactory>) -> Self {
        Self {
            prefix: place.prefix.clone(),
            region: place.region.clone(),
            at: Address::new(place),
            aws: OnceCell::new_with(aws),
            https: Https::default(),
        }
    }

    /// Puts a batch as one object.
    pub(super) async fn put(&self, batch: &Batch) -> Result<(), ExportError> {
        let put = tokio::time::timeout(PUT_TIMEOUT, self.try_put(batch)).await;
        let answer =
            put.unwrap_or_else(|_| Err(format!("no answer within {PUT_TIMEOUT:?}").into()));
        let host = self.at.authority.clone();
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(ExportError::Refused {
                host,
                status: answer.status().as_u16(),
                code: code(answer.body()),
            }),
            Err(source) => Err(ExportError::Unreachable { host, source }),
        }
    }

    async fn try_put(&self, batch: &Batch) -> Result<Response<Bytes>, BoxError> {
        let aws = self.aws.get_or_init(AwsFactory::load).await;
        let path = format!("{}{}", self.at.base, encoded(&self.key(batch)));
        let scheme = if self.at.is_tls { "https" } else { "http" };
        let put = ObjectPut {
            url: &format!("{scheme}://{}{path}", self.at.authority),
            host: &self.at.authority,
            region: &self.region,
            content_type: CONTENT_TYPE,
            body: &batch.text,
        };
        let mut request = Request::put(path.as_str());
        for (name, value) in aws.sign_object_put(put).await? {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(batch.text.clone()))?;
        let Address { host, port, .. } = &self.at;
        self.https.ask(host, *port, self.at.is_tls, request).await
    }

    /// By day, so that a range of time is found by listing; then the log and the place, which sort as they were written.
    fn key(&self, batch: &Batch) -> String {
        let day: Date = batch.begins.to_zoned(TimeZone::UTC).date();
        let name = format!("{day}/{}-{:019}.jsonl", batch.log, batch.after);
        if self.prefix.is_empty() {
            name
        } else {
            format!("{}/{name}", self.prefix)
        }
    }
}

/// A key as it stands in a path: S3 signs it like that.
fn encoded(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// The code in an answer of S3, which is XML.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map(|(code, _)| code).unwrap_or_default();
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(CODE_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str, region: &str, endpoint: Option<&str>) -> S3Target {
        S3Target {
            bucket: bucket.to_owned(),
            prefix: "audit".to_owned(),
            region: region.parse().unwrap(),
            endpoint: endpoint.map(str::to_owned),
        }
    }

    #[test]
    fn a_bucket_is_a_host_where_its_certificate_allows_and_a_path_elsewhere() {
        let at = |bucket: &str, region: &str, endpoint: Option<&str>| {
            let Address {
                is_tls,
                host,
                port,
                authority,
                base,
            } = Address::new(&place(bucket, region, endpoint));
            format!("{is_tls} {host} {port} {authority} {base}")
        };
        assert_eq!(
            at("logs", "eu-central-1", None),
            "true logs.s3.eu-central-1.amazonaws.com 443 logs.s3.eu-central-1.amazonaws.com /"
        );
        assert_eq!(
            at("my.logs", "cn-north-1", None),
            "true s3.cn-north-1.amazonaws.com.cn 443 s3.cn-north-1.amazonaws.com.cn /my.logs/"
        );
        assert_eq!(
            at("logs", "eu-central-1", Some("https://s3.example.com")),
            "true s3.example.com 443 s3.example.com /logs/"
        );
        assert_eq!(
            at("logs", "eu-central-1", Some("http://[::1]:9000")),
            "false ::1 9000 [::1]:9000 /logs/"
        );
    }

    #[test]
    fn keys_are_encoded_as_s3_signs_them() {
        assert_eq!(encoded("a b/c+d=e~f"), "a%20b/c%2Bd%3De~f");
    }

    #[test]
    fn the_code_of_an_answer_is_found_and_bounded() {
        assert_eq!(
            code(b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
            "AccessDenied"
        );
        assert_eq!(code(b"<html>"), "");
    }
}
