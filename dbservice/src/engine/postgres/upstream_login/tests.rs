//! The login against a scripted database, one authentication code after the other.

use postgres_protocol::authentication::md5_hash;
use secrecy::SecretString;
use tidegate_wire::{
    backend::{TxStatus, backend_key_data, parameter_status, ready_for_query},
    startup::ProtocolVersion,
};
use tokio::io::DuplexStream;

use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

fn challenge(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

fn vec32(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

/// What a database says after its consent.
fn welcome() -> Vec<u8> {
    [
        &parameter_status("server_version", "8.0.2")[..],
        &parameter_status("driver_token", "s3cret"),
        &backend_key_data(77, b"real"),
        &parameter_status("TimeZone", "UTC"),
        &ready_for_query(TxStatus::Idle),
        b"more",
    ]
    .concat()
}

async fn read_message(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.unwrap();
    let len = stream.read_u32().await.unwrap() as usize;
    let mut body = vec![0; len - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}

async fn read_startup(stream: &mut DuplexStream) {
    let len = stream.read_u32().await.unwrap() as usize;
    let mut body = vec![0; len - 4];
    stream.read_exact(&mut body).await.unwrap();
}

fn credentials() -> DbLogin {
    DbLogin {
        user: "IAM:alice".to_owned(),
        password: Some(SecretString::from("pass")),
    }
}

fn startup() -> StartupMessage {
    startup_for(
        StartupMessage::new(ProtocolVersion::V3_0),
        "IAM:alice",
        "dev",
    )
}

/// A database that asks once, checks the answer and welcomes.
async fn asked_once(
    asks: Vec<u8>,
    checks: impl Fn(u8, &[u8]) + Send + 'static,
) -> Result<LoggedIn, LoginFailure> {
    let (mut near, mut far) = tokio::io::duplex(64 << 10);
    let database = tokio::spawn(async move {
        read_startup(&mut far).await;
        far.write_all(&asks).await.unwrap();
        let (tag, body) = read_message(&mut far).await;
        checks(tag, &body);
        far.write_all(&challenge(0, b"")).await.unwrap();
        far.write_all(&welcome()).await.unwrap();
    });
    let logged_in = log_in(&mut near, &startup(), &credentials(), &ScramKeys::default()).await;
    database.await.unwrap();
    logged_in
}

#[tokio::test]
async fn code_3_logs_in_and_the_databases_key_stays_here() {
    let logged_in = asked_once(challenge(3, b""), |tag, body| {
        assert_eq!((tag, body), (b'p', &b"pass\0"[..]));
    })
    .await
    .unwrap();
    assert_eq!(logged_in.key.as_ref().unwrap().process_id, 77);
    let for_client = [logged_in.before_key, logged_in.after_key].concat();
    assert!(for_client.starts_with(&challenge(0, b"")));
    assert!(for_client.ends_with(&ready_for_query(TxStatus::Idle)));
    assert!(!for_client.windows(4).any(|bytes| bytes == b"real"));
    assert!(for_client.windows(6).any(|bytes| bytes == b"s3cret"));
    assert_eq!(&logged_in.rest[..], b"more");
}

#[tokio::test]
async fn code_5_logs_in() {
    let logged_in = asked_once(challenge(5, &[1, 2, 3, 4]), |tag, body| {
        let expected = md5_hash(b"IAM:alice", b"pass", [1, 2, 3, 4]);
        assert_eq!((tag, body), (b'p', format!("{expected}\0").as_bytes()));
    })
    .await;
    assert!(logged_in.is_ok());
}

#[tokio::test]
async fn code_13_logs_in_with_the_digest_in_its_own_message() {
    let body = [
        &0_u32.to_be_bytes()[..],
        &vec32(b"salt"),
        &vec32(b"server-nonce"),
    ]
    .concat();
    let logged_in = asked_once(challenge(13, &body), |tag, body| {
        assert_eq!(tag, b'd');
        let (digest, rest) = body[4..].split_at(32);
        let nonce = &rest[4..];
        let sha256 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let inner = sha256(b"passsalt");
        let outer = sha256(&[inner.as_ref(), b"server-nonce", nonce].concat());
        assert_eq!(digest, outer.as_ref());
    })
    .await;
    assert!(logged_in.is_ok());
}

/// Plays PostgreSQL's part of SCRAM by RFC 5802, with the keys made from the password itself.
#[tokio::test]
async fn code_10_logs_in_and_checks_the_databases_own_proof() {
    for honest in [true, false] {
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        let database = tokio::spawn(async move {
            read_startup(&mut far).await;
            far.write_all(&challenge(10, b"SCRAM-SHA-256\0\0"))
                .await
                .unwrap();
            let proof = scram_server(&mut far, if honest { "pass" } else { "other" }).await;
            let _ = far
                .write_all(&challenge(12, format!("v={proof}").as_bytes()))
                .await;
            let _ = far.write_all(&challenge(0, b"")).await;
            let _ = far.write_all(&welcome()).await;
        });
        let logged_in = log_in(&mut near, &startup(), &credentials(), &ScramKeys::default()).await;
        database.await.unwrap();
        assert_eq!(logged_in.is_ok(), honest, "{logged_in:?}");
    }
}

/// Up to the server's signature, in base64.
async fn scram_server(stream: &mut DuplexStream, password: &str) -> String {
    use aws_lc_rs::{hmac, pbkdf2};

    let (_, body) = read_message(stream).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    let client_first = &text[text.find("n=").unwrap()..];
    let nonce = client_first.split("r=").nth(1).unwrap();
    let server_first = format!("r={nonce}abc,s=c2FsdA==,i=4096");
    stream
        .write_all(&challenge(11, server_first.as_bytes()))
        .await
        .unwrap();
    let (_, body) = read_message(stream).await;
    let client_final = String::from_utf8_lossy(&body).into_owned();
    let without_proof = client_final.rsplit_once(",p=").unwrap().0.to_owned();
    let mut salted = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        4096.try_into().unwrap(),
        b"salt",
        password.as_bytes(),
        &mut salted,
    );
    let mac = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let server_key = mac(&salted, b"Server Key");
    let auth = format!("{client_first},{server_first},{without_proof}");
    base64(mac(server_key.as_ref(), auth.as_bytes()).as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .map(|chunk| {
            let word = chunk
                .iter()
                .chain([0; 2].iter())
                .take(3)
                .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
            (0..4)
                .map(|place| {
                    if place <= chunk.len() {
                        char::from(DIGITS[word >> (18 - 6 * place) & 63])
                    } else {
                        '='
                    }
                })
                .collect::<String>()
        })
        .collect()
}

#[tokio::test]
async fn a_refusal_keeps_the_databases_own_words() {
    let (mut near, mut far) = tokio::io::duplex(64 << 10);
    let words = ErrorResponse::fatal(
        tidegate_wire::SqlState::INVALID_PASSWORD,
        "password authentication failed",
    )
    .encode();
    let said = words.clone();
    tokio::spawn(async move {
        read_startup(&mut far).await;
        far.write_all(&said).await.unwrap();
        read_message(&mut far).await;
    });
    let failure = log_in(&mut near, &startup(), &credentials(), &ScramKeys::default())
        .await
        .unwrap_err();
    assert!(matches!(failure, LoginFailure::Refused { raw, .. } if raw == words));
}

#[tokio::test(start_paused = true)]
async fn a_silent_database_is_given_up() {
    let (mut near, _far) = tokio::io::duplex(64 << 10);
    let failure = log_in(&mut near, &startup(), &credentials(), &ScramKeys::default())
        .await
        .unwrap_err();
    assert!(matches!(failure, LoginFailure::TimedOut));
}

#[test]
fn drivers_parameters_pass_and_only_compression_is_taken_out() {
    let client = StartupMessage::new(ProtocolVersion::V3_0)
        .with_param("user", "reader")
        .with_param("client_protocol_version", "2")
        .with_param("_pq_.compression", "lz4")
        .with_param("driver_version", "Redshift 2.1");
    let ours = startup_for(client, "IAM:reader", "dev");
    let names: Vec<&str> = ours
        .params()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "user",
            "client_protocol_version",
            "driver_version",
            "database"
        ]
    );
    assert_eq!(ours.user(), Some("IAM:reader"));
}
