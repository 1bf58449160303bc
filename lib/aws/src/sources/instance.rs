//! What the instance's metadata service answers, asked byte by byte.
//!
//! The SDK says only that it "could not communicate" when the service's token does not arrive. Three cases look the same
//! to it and are put right in three places: there is no such service; it is switched off; or it answers everything but
//! the token, since the answer to that request alone may be sent with an IP hop limit of 1, which ends at the host of a
//! container.
//!
//! Source: Amazon EC2 user guide, "Use the Instance Metadata Service to access instance metadata" and "Modify instance
//! metadata options" (`HttpPutResponseHopLimit`, `HttpEndpoint`, `HttpTokens`).

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long the service may take; it is a hop away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes that are read of an answer: the first line is what counts.
const ANSWER_BYTES_MAX: usize = 512;
/// Where the service is, unless the environment says otherwise.
const ENDPOINT: &str = "http://169.254.169.254";
const ENDPOINT_IPV6: &str = "http://[fd00:ec2::254]";
const TOKEN_REQUEST: &str = "PUT {path}/latest/api/token HTTP/1.1\r\nHost: {host}\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
     Content-Length: 0\r\nConnection: close\r\n\r\n";
const PLAIN_REQUEST: &str =
    "GET {path}/latest/meta-data/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n";

/// What the metadata service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceAnswer {
    /// Requests without a token are answered, and the token's request is not: its answer dies on the way, which is what
    /// a hop limit of 1 does to a container.
    HopLimit {
        /// Where it was asked.
        at: String,
    },
    /// It refuses tokens: it is switched off for the instance.
    Off {
        /// Where it was asked.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// It gives tokens, and no credentials: mostly an instance without a role.
    TokensOnly {
        /// Where it was asked.
        at: String,
    },
    /// Nothing answers there.
    Unreachable {
        /// Where it was asked.
        at: String,
        /// Why not.
        why: String,
    },
}

/// Asks; `None` when the environment switches the service off, or names it in a way that is not understood here.
pub(super) async fn ask() -> Option<InstanceAnswer> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_off =
        set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_off {
        return None;
    }
    let is_ipv6 = set("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
        .is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    let endpoint = set("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        .unwrap_or_else(|| if is_ipv6 { ENDPOINT_IPV6 } else { ENDPOINT }.to_owned());
    let host = endpoint.strip_prefix("http://")?.trim_end_matches('/');
    Some(ask_at(host).await)
}

/// Asks `host` or `host:port`, below the path behind it if there is one.
async fn ask_at(host: &str) -> InstanceAnswer {
    let at = host.to_owned();
    match status(host, TOKEN_REQUEST).await {
        Ok(200) => InstanceAnswer::TokensOnly { at },
        Ok(status) => InstanceAnswer::Off { at, status },
        Err(Silence::Answer) => match status(host, PLAIN_REQUEST).await {
            Ok(_) => InstanceAnswer::HopLimit { at },
            Err(silence) => unreachable_at(at, silence),
        },
        Err(silence) => unreachable_at(at, silence),
    }
}

fn unreachable_at(at: String, silence: Silence) -> InstanceAnswer {
    let why = match silence {
        Silence::Answer => "it takes connections and answers nothing".to_owned(),
        Silence::Connection(why) => why,
    };
    InstanceAnswer::Unreachable { at, why }
}

/// Why there is no status.
enum Silence {
    /// A connection, but no answer on it.
    Answer,
    /// No connection.
    Connection(String),
}

async fn status(place: &str, request: &str) -> Result<u16, Silence> {
    let (host, path) = match place.find('/') {
        Some(at) => place.split_at(at),
        None => (place, ""),
    };
    let has_port = host.rsplit_once(':').is_some_and(|(front, port)| {
        port.parse::<u16>().is_ok() && (!front.contains(':') || front.ends_with(']'))
    });
    let address = if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let connecting = timeout(ANSWER_TIMEOUT, TcpStream::connect(&address)).await;
    let mut stream = match connecting {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Silence::Connection(error.to_string())),
        Err(_) => {
            let why = format!("no connection within {} s", ANSWER_TIMEOUT.as_secs());
            return Err(Silence::Connection(why));
        }
    };
    let request = request.replace("{host}", host).replace("{path}", path);
    let asking = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while answer.len() < ANSWER_BYTES_MAX && !answer.contains(&b'\n') {
            if stream.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(answer)
    };
    match timeout(ANSWER_TIMEOUT, asking).await {
        Ok(Ok(answer)) => status_of(&answer).ok_or(Silence::Answer),
        Ok(Err(_)) | Err(_) => Err(Silence::Answer),
    }
}

/// The status in `HTTP/1.1 200 OK`.
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A metadata service that answers `PUT` and `GET` with these; `None` is silence.
    async fn service(put: Option<&'static str>, get: Option<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 512];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let answer = if request[..read].starts_with(b"PUT") {
                    put
                } else {
                    get
                };
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => kept.push(stream),
                }
            }
        });
        host
    }

    const OK: Option<&str> = Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    const UNAUTHORIZED: Option<&str> = Some("HTTP/1.1 401 Unauthorized\r\n\r\n");
    const FORBIDDEN: Option<&str> = Some("HTTP/1.1 403 Forbidden\r\n\r\n");

    #[tokio::test]
    async fn a_token_that_never_comes_where_the_rest_is_answered_is_the_hop_limit() {
        let at = service(None, UNAUTHORIZED).await;
        assert_eq!(ask_at(&at).await, InstanceAnswer::HopLimit { at });
    }

    #[tokio::test]
    async fn a_service_that_refuses_tokens_is_off_and_one_that_gives_them_has_no_role() {
        let at = service(FORBIDDEN, FORBIDDEN).await;
        assert_eq!(ask_at(&at).await, InstanceAnswer::Off { at, status: 403 });
        let at = service(OK, UNAUTHORIZED).await;
        assert_eq!(ask_at(&at).await, InstanceAnswer::TokensOnly { at });
    }

    #[tokio::test]
    async fn a_service_below_a_path_is_asked_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 512];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(OK.unwrap().as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        ask_at(&format!("{host}/machine")).await;
        let request = asked.await.unwrap();
        assert!(
            request.starts_with("PUT /machine/latest/api/token HTTP/1.1\r\n")
                && request.contains(&format!("Host: {host}\r\n")),
            "{request}"
        );
    }

    #[tokio::test]
    async fn silence_all_over_is_no_metadata_service() {
        let at = service(None, None).await;
        let answer = ask_at(&at).await;
        assert!(
            matches!(answer, InstanceAnswer::Unreachable { why, .. } if why.contains("answers nothing"))
        );
        // Nobody listens on a port that was just given back.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(matches!(
            ask_at(&at).await,
            InstanceAnswer::Unreachable { .. }
        ));
    }

    #[test]
    fn a_status_is_read_and_nothing_else_is() {
        assert_eq!(status_of(b"HTTP/1.1 401 Unauthorized\r\n"), Some(401));
        for other in [&b""[..], b"HTTP/2 200", b"HTTP/1.1", b"\xff\n"] {
            assert_eq!(status_of(other), None);
        }
    }
}
