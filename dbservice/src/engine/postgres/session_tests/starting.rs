//! Who is let in, who is not, and what each is told.

use super::*;

#[tokio::test]
async fn a_client_without_certificate_gets_28000_and_a_hint() {
    let bed = Bed::new().await;
    let (mut client, _) = bed.client_as(None, "orders").await;
    client.write_all(&startup("reader")).await.unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "28000");
    assert!(error.hint.unwrap().contains("tg db connect"));
}

#[tokio::test]
async fn a_services_certificate_opens_no_database() {
    let bed = Bed::new().await;
    let key = KeyPair::generate().unwrap();
    let leaf = HostLeaf {
        public_key: &key.public_key_der(),
        cluster: &cluster(),
        host_id: &"h1".parse().unwrap(),
        hostname: "h1",
        services: &["db".to_owned()],
        names: &[],
    };
    let issued = bed.user_ca.issue_host(leaf, Timestamp::now(), TTL).unwrap();
    let (mut client, _) = bed
        .client_as(Some(&(issued.chain_pem, key)), "orders")
        .await;
    client.write_all(&startup("reader")).await.unwrap();
    assert_eq!(error(&mut client).await.code.as_str(), "28000");
}

#[tokio::test]
async fn a_second_ssl_request_and_a_malformed_start_are_protocol_violations() {
    for words in [
        &SSL_REQUEST[..],
        &[0, 0, 0x40, 0, 0, 3, 0, 0],
        &[0, 0, 0, 9, 0, 3, 0, 0, b'x'],
    ] {
        let bed = Bed::new().await;
        let (mut client, _) = bed.client().await;
        client.write_all(words).await.unwrap();
        assert_eq!(error(&mut client).await.code.as_str(), "08P01", "{words:?}");
    }
}

#[tokio::test]
async fn a_proxy_cannot_lead_a_client_to_another_database() {
    let bed = Bed::new().await;
    let (mut client, serving) = bed.client_as(Some(&bed.alice()), "users").await;
    let _ = client.write_all(&startup("reader")).await;
    serving.await.unwrap();
    assert!(client.read_u8().await.is_err());
}

#[tokio::test]
async fn who_is_denied_is_told_and_audited() {
    let mut bed = Bed::new().await;
    let (mut client, serving) = bed.client().await;
    client.write_all(&startup("admin")).await.unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "28000");
    assert!(error.message.contains("orders"));
    assert!(error.hint.unwrap().contains("admin"));
    drop(client);
    serving.await.unwrap();
    let event = bed.event();
    assert_eq!(
        (event.code.as_str(), event.user.as_str(), event.success),
        ("TDB00W", "alice", false)
    );
    assert_eq!(
        (event.db_user.as_str(), event.db_name.as_str()),
        ("admin", "dev")
    );
    assert!(
        event.error.contains("role `access`") && event.error.contains("db_users no `admin` in")
    );
}

#[tokio::test]
async fn before_the_roles_are_known_nobody_gets_in_and_may_try_again() {
    let bed = Bed::new().await;
    let mut engine = Arc::try_unwrap(bed.engine).unwrap();
    engine.roles = Roles::default();
    let bed = Bed {
        engine: Arc::new(engine),
        ..bed
    };
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    assert_eq!(error(&mut client).await.code.as_str(), "57P03");
}

#[tokio::test]
async fn a_paused_database_says_that_it_is_paused() {
    let bed = Bed::with(Ok(()), |wanted| {
        wanted.database_mut().unavailable = "paused".to_owned();
    })
    .await;
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "57P03");
    assert!(error.message.contains("paused"));
}

#[tokio::test]
async fn what_aws_refuses_is_told_with_what_to_do() {
    let problem = Problem::new(ErrorCode::AwsAccessDenied, "x was denied")
        .because("secret cause")
        .hint("add a statement");
    let mut bed = Bed::with(Err(problem), |_| ()).await;
    let (mut client, serving) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "08001");
    let hint = error.hint.unwrap_or_default();
    assert!(hint.starts_with("add a statement; "), "{hint}");
    assert!(
        hint.ends_with("tidegate db doctor orders --db-user=reader"),
        "{hint}"
    );
    let detail = error.detail.unwrap_or_default();
    assert!(detail.contains("as database user `reader`"), "{detail}");
    assert!(
        detail.contains("tidegate error `aws_access_denied`"),
        "{detail}"
    );
    drop(client);
    serving.await.unwrap();
    assert!(bed.event().error.contains("secret cause"));
}

#[tokio::test]
async fn a_database_that_is_not_there_gives_08006() {
    let mut bed = Bed::new().await;
    // A port that nobody listens on any more.
    bed.database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "08006");
    assert!(!error.message.contains("127.0.0.1"));
}

#[tokio::test]
async fn a_database_whose_certificate_is_of_another_ca_gets_no_login() {
    let other = CertificateAuthority::create(CaKind::Db, &cluster(), Timestamp::now()).unwrap();
    let bed = Bed::with(Ok(()), |wanted| {
        wanted.database_mut().tls.ca_cert_pem = Some(other.cert_pem().to_owned());
    })
    .await;
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let accept = async {
        let (mut stream, _) = bed.database.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"S").await.unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = bed
            .db_ca
            .issue_database_server(&key.public_key_der(), &cluster(), Timestamp::now(), TTL)
            .unwrap();
        let config = tls::server_config(tls::ServerTls {
            chain_pem: &issued.chain_pem,
            key: &key,
            clients: tls::ClientAuth::None,
            alpn: &[],
        })
        .unwrap();
        TlsAcceptor::from(config).accept(stream).await
    };
    let (accepted, error) = tokio::join!(accept, error(&mut client));
    assert!(accepted.is_err());
    assert!(
        error.message.contains("no trusted TLS"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().contains("ca_cert_file"));
}

#[tokio::test]
async fn verify_ca_lets_any_name_pass_and_verify_full_does_not() {
    for (mode, code) in [
        (TlsMode::VerifyCa, None),
        (TlsMode::VerifyFull, Some("08006")),
    ] {
        let bed = Bed::with(Ok(()), |wanted| {
            wanted.database_mut().tls.mode = mode;
            wanted.database_mut().tls.server_name = Some("elsewhere.example.com".to_owned());
        })
        .await;
        let (mut client, _) = bed.client().await;
        client.write_all(&startup("reader")).await.unwrap();
        match code {
            None => {
                bed.welcome().await;
                assert_eq!(message(&mut client).await.0, b'R');
            }
            Some(code) => {
                let database = async {
                    let (mut stream, _) = bed.database.accept().await.unwrap();
                    stream.read_exact(&mut [0; 8]).await.unwrap();
                    stream.write_all(b"S").await.unwrap();
                    let key = KeyPair::generate().unwrap();
                    let issued = bed
                        .db_ca
                        .issue_database_server(
                            &key.public_key_der(),
                            &cluster(),
                            Timestamp::now(),
                            TTL,
                        )
                        .unwrap();
                    let config = tls::server_config(tls::ServerTls {
                        chain_pem: &issued.chain_pem,
                        key: &key,
                        clients: tls::ClientAuth::None,
                        alpn: &[],
                    })
                    .unwrap();
                    let _ = TlsAcceptor::from(config).accept(stream).await;
                };
                let ((), error) = tokio::join!(database, error(&mut client));
                assert_eq!(error.code.as_str(), code);
                assert!(error.hint.unwrap().contains("server_name"));
            }
        }
    }
}

#[tokio::test]
async fn the_databases_refusal_reaches_the_client_as_it_came() {
    let bed = Bed::new().await;
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let mut database = bed.upstream().await;
    first(&mut database).await;
    let words = b"E\0\0\0\x1eSFATAL\0C28000\0Mno pg_hba\0\0";
    database.write_all(words).await.unwrap();
    let (tag, body) = message(&mut client).await;
    assert_eq!((tag, &body[..]), (b'E', &words[5..]));
}

#[tokio::test]
async fn a_kept_password_that_the_database_takes_no_longer_is_replaced_within_the_login() {
    let bed = Bed::new().await.and_another("another");
    let refusal = b"E\0\0\0\x1eSFATAL\0C28P01\0Mno pg_hba\0\0";
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let mut database = bed.upstream().await;
    first(&mut database).await;
    database.write_all(refusal).await.unwrap();
    bed.welcome_with("another").await;
    assert_eq!(message(&mut client).await.0, b'R');

    // There is no third one: what the database says to that is its last word.
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let mut database = bed.upstream().await;
    first(&mut database).await;
    database.write_all(refusal).await.unwrap();
    let (tag, body) = message(&mut client).await;
    assert_eq!((tag, &body[..]), (b'E', &refusal[5..]));
}

#[tokio::test]
async fn the_minted_user_replaces_the_clients_and_drivers_parameters_pass() {
    let bed = Bed::new().await;
    let (mut client, _) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let (_, sent) = bed.welcome().await;
    assert_eq!(
        (
            sent.user(),
            sent.database(),
            sent.get("client_protocol_version")
        ),
        (Some("IAM:reader"), Some("dev"), Some("2"))
    );
}
