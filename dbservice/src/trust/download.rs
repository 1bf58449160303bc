//! Fetching a bundle from where AWS, or a mirror, has it.
//!
//! One request, asking for another version than the one that is held. It is bounded in time and size; nothing is
//! followed elsewhere, and no proxy is used.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use tidegate_service::https::{BoxError, Https};

use super::{
    accept::BUNDLE_BYTES_MAX,
    files::{ETAG_BYTES_MAX, Kept, read_bounded},
    source::Location,
};

/// One download from name look-up to the last byte.
pub(super) const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a bundle was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DownloadError {
    /// The place answered with something else.
    #[error("{location} answered with status {status}")]
    Status { location: String, status: u16 },

    /// No answer in time.
    #[error("{location} did not answer within {} s", DOWNLOAD_TIMEOUT.as_secs())]
    TimedOut { location: String },

    /// No answer that can be read.
    #[error("cannot fetch {location}: {source}")]
    Unreachable { location: String, source: BoxError },
}

/// What the place has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// These bytes.
    Bytes(Kept),
    /// The version that is held already.
    Same,
}

/// A client whose answers may be as large as a bundle.
pub(super) fn client() -> Https {
    Https::with_answers_to(BUNDLE_BYTES_MAX)
}

/// Fetches a bundle, unless the place still has the version `etag`.
///
/// # Errors
///
/// [`DownloadError`]. Whether what came is a bundle is not looked at.
pub(super) async fn fetch(
    https: &Https,
    location: &Location,
    etag: Option<&str>,
) -> Result<Fetched, DownloadError> {
    let fetching = tokio::time::timeout(DOWNLOAD_TIMEOUT, async {
        match location {
            Location::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read_bounded(&path, BUNDLE_BYTES_MAX))
                    .await
                    .map_err(BoxError::from)
                    .and_then(|read| Ok(read?))
                    .and_then(|bytes| bytes.ok_or_else(|| "there is no such file".into()))
                    .map(|bytes| Ok(Fetched::Bytes(Kept { bytes, etag: None })))
            }
            Location::Http {
                tls,
                host,
                port,
                path,
            } => {
                let authority = if *tls && *port == 443 {
                    host.clone()
                } else {
                    format!("{host}:{port}")
                };
                let mut request = Request::get(path.as_str()).header(header::HOST, authority);
                if let Some(etag) = etag {
                    request = request.header(header::IF_NONE_MATCH, etag);
                }
                let request = request.body(Full::new(Bytes::new()))?;
                let answer = https.ask(host, *port, *tls, request).await?;
                Ok(read(answer))
            }
        }
    });
    let location = || location.to_string();
    match fetching.await {
        Ok(Ok(Ok(fetched))) => Ok(fetched),
        Ok(Ok(Err(status))) => Err(DownloadError::Status {
            location: location(),
            status: status.as_u16(),
        }),
        Ok(Err(source)) => Err(DownloadError::Unreachable {
            location: location(),
            source,
        }),
        Err(_) => Err(DownloadError::TimedOut {
            location: location(),
        }),
    }
}

fn read(answer: hyper::Response<Bytes>) -> Result<Fetched, StatusCode> {
    match answer.status() {
        StatusCode::OK => {
            let etag = answer.headers().get(header::ETAG);
            let etag = etag.and_then(|etag| etag.to_str().ok());
            Ok(Fetched::Bytes(Kept {
                etag: etag
                    .filter(|etag| etag.len() <= ETAG_BYTES_MAX)
                    .map(str::to_owned),
                bytes: answer.into_body().to_vec(),
            }))
        }
        StatusCode::NOT_MODIFIED => Ok(Fetched::Same),
        status => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one connection with these bytes, and gives what was asked.
    async fn answering(answer: &'static [u8]) -> (Location, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = Location::Http {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            path: "/us-east-1/us-east-1-bundle.pem".to_owned(),
        };
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            // Who was asked may have hung up by now.
            let _ = stream.write_all(answer).await;
            String::from_utf8(asked[..read].to_vec()).unwrap()
        });
        (location, asked)
    }

    #[tokio::test]
    async fn a_bundle_comes_with_its_version_and_the_next_request_names_that() {
        let answer = b"HTTP/1.1 200 OK\r\netag: \"v1\"\r\ncontent-length: 3\r\n\r\npem";
        let (location, asked) = answering(answer).await;
        let fetched = fetch(&client(), &location, None).await.unwrap();
        let kept = Kept {
            bytes: b"pem".to_vec(),
            etag: Some("\"v1\"".to_owned()),
        };
        assert_eq!(fetched, Fetched::Bytes(kept));
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /us-east-1/us-east-1-bundle.pem HTTP/1.1"));
        assert!(!asked.contains("if-none-match"), "{asked}");

        let (location, asked) = answering(b"HTTP/1.1 304 Not Modified\r\n\r\n").await;
        let fetched = fetch(&client(), &location, Some("\"v1\"")).await.unwrap();
        assert_eq!(fetched, Fetched::Same);
        assert!(asked.await.unwrap().contains("if-none-match: \"v1\""));
    }

    #[tokio::test]
    async fn every_other_answer_is_an_error_that_names_the_place() {
        for (answer, expected) in [
            (
                &b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"[..],
                "302",
            ),
            (
                b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
                "403",
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ncut",
                "cannot fetch",
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n",
                "cannot fetch",
            ),
            (b"SSH-2.0-OpenSSH\r\n", "cannot fetch"),
        ] {
            let (location, _asked) = answering(answer).await;
            let error = fetch(&client(), &location, None)
                .await
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains("127.0.0.1"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_place_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = Location::Http {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            path: "/".to_owned(),
        };
        let holding = tokio::spawn(async move {
            let connection = listener.accept().await;
            std::future::pending::<()>().await;
            drop(connection);
        });
        tokio::time::pause();
        let error = fetch(&client(), &location, None).await.unwrap_err();
        assert!(matches!(error, DownloadError::TimedOut { .. }), "{error}");
        holding.abort();
    }

    #[tokio::test]
    async fn a_folder_is_a_mirror_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let missing = fetch(&client(), &Location::File(path.clone()), None).await;
        assert!(missing.unwrap_err().to_string().contains("no such file"));
        std::fs::write(&path, "pem").unwrap();
        let kept = Kept {
            bytes: b"pem".to_vec(),
            etag: None,
        };
        let fetched = fetch(&client(), &Location::File(path), None).await.unwrap();
        assert_eq!(fetched, Fetched::Bytes(kept));
    }
}
