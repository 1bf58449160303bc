//! Connections to a database whose certificate's CA changes.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tidegate_core::{Database, DatabaseKind, Problem, TlsMode};
use tidegate_identity::{
    CaKind, CertificateAuthority, CertificateFacts, KeyPair,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_service::{
    clock::SystemClock,
    metrics::Metrics,
    settings::{CaBundlePlace, DatabaseSettings},
};
use tidegate_wire::mysql::{
    Capabilities,
    handshake::{Greeting, NATIVE_PASSWORD},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use super::{Trust, bundles::REFRESH_APART_MIN};
use crate::{
    engine::{Connector, mysql},
    metrics::ServiceMetrics,
    testing::redshift,
};

const CLUSTER: &str = "tg.test";
const REGION: &str = "us-gov-west-1";
const TTL: Duration = Duration::from_secs(3600);

struct Ca(CertificateAuthority);

impl Ca {
    fn new() -> Self {
        let cluster = CLUSTER.parse().unwrap();
        Self(CertificateAuthority::create(CaKind::Db, &cluster, Timestamp::now()).unwrap())
    }

    /// What a database shows that this CA signed for.
    fn signs(&self) -> Arc<rustls::ServerConfig> {
        let (key, cluster) = (KeyPair::generate().unwrap(), CLUSTER.parse().unwrap());
        let public = key.public_key_der();
        let issued = self
            .0
            .issue_database_server(&public, &cluster, Timestamp::now(), TTL);
        tls::server_config(ServerTls {
            chain_pem: &issued.unwrap().chain_pem,
            key: &key,
            clients: ClientAuth::None,
            alpn: &[],
        })
        .unwrap()
    }

    /// Makes it all that the region's bundle holds.
    fn is_published_in(&self, folder: &Path) {
        let folder = folder.join(REGION);
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{REGION}-bundle.pem"));
        std::fs::write(file, self.0.cert_pem()).unwrap();
    }
}

struct Bed {
    dir: tempfile::TempDir,
    connector: Connector,
    database: Database,
    shows: watch::Sender<Arc<rustls::ServerConfig>>,
}

impl Bed {
    /// An RDS database in a region that nothing is compiled in for.
    async fn new(first: &Ca) -> Self {
        Self::that_opens_with(Opening::Postgres, first).await
    }

    async fn that_opens_with(opening: Opening, first: &Ca) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("published");
        first.is_published_in(&place);
        let settings = watch::Sender::new(DatabaseSettings {
            ca_bundles: Some(CaBundlePlace::Folder(place)),
            ..DatabaseSettings::default()
        });
        let kept = dir.path().join("kept");
        let trust = Trust::new(kept, settings.subscribe(), Arc::new(SystemClock));
        let metrics = ServiceMetrics::register(&Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut database = redshift("orders", &[]);
        database.kind = Some(DatabaseKind::Rds);
        database.aws.region = Some(REGION.parse().unwrap());
        database.uri = listener.local_addr().unwrap().to_string().parse().unwrap();
        database.tls.server_name = Some(format!("orders.db.{CLUSTER}"));
        let shows = watch::Sender::new(first.signs());
        tokio::spawn(serve(listener, opening, shows.subscribe()));
        Self {
            dir,
            connector: Connector::new(metrics.connect_seconds, Arc::new(trust)),
            database,
            shows,
        }
    }

    async fn connect(&self) -> Result<CertificateFacts, Problem> {
        let stream = self.connector.tcp(&self.database).await?;
        let upstream = self.connector.tls(&self.database, stream).await?;
        Ok(CertificateFacts::of_peer(upstream.get_ref().1).unwrap())
    }

    /// As to a database that speaks MySQL.
    async fn connect_mysql(&self) -> Result<CertificateFacts, Problem> {
        let greeted = mysql::greeted(&self.database, self.connector.tcp(&self.database).await?);
        let request = |_: &Greeting| Bytes::from_static(&[0; 8]);
        let (connector, greeted) = (&self.connector, greeted.await?);
        let secured = mysql::secured(connector, &self.database, greeted, request).await?;
        Ok(CertificateFacts::of_peer(secured.0.get_ref().1).unwrap())
    }

    fn publish(&self, ca: &Ca) {
        ca.is_published_in(&self.dir.path().join("published"));
    }
}

/// What comes before TLS.
#[derive(Clone, Copy, PartialEq)]
enum Opening {
    Mysql,
    Postgres,
}

fn greeting() -> Greeting {
    Greeting {
        server_version: Bytes::from_static(b"8.0.36"),
        thread_id: 1,
        scramble: *b"12345678901234567890",
        capabilities: Capabilities::COMMON | Capabilities::SSL,
        charset: 45,
        status: 2,
        plugin: NATIVE_PASSWORD.to_owned(),
    }
}

async fn serve(
    listener: TcpListener,
    opening: Opening,
    shows: watch::Receiver<Arc<rustls::ServerConfig>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(shows.borrow().clone());
        tokio::spawn(async move {
            if opening == Opening::Mysql {
                stream.write_all(&greeting().encode()).await.unwrap();
            }
            // Eight bytes either way: what they are is looked at elsewhere.
            stream.read_exact(&mut [0; 8]).await.unwrap();
            if opening == Opening::Postgres {
                stream.write_all(b"S").await.unwrap();
            }
            // Who does not trust the certificate hangs up, and others do when they have seen it.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        });
    }
}

/// As if the last refresh were a minute ago.
async fn a_minute_later() {
    tokio::time::pause();
    tokio::time::advance(REFRESH_APART_MIN).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_certificate_of_a_rotated_ca_is_trusted_at_the_first_connection() {
    let (old, new) = (Ca::new(), Ca::new());
    let bed = Bed::new(&old).await;
    let shown = bed.connect().await.unwrap();
    assert!(shown.not_after > Timestamp::now() && !shown.is_ca);

    bed.shows.send_replace(new.signs());
    bed.publish(&new);
    a_minute_later().await;
    bed.connect().await.unwrap();
    // And what only the old one signed is trusted no longer.
    bed.shows.send_replace(old.signs());
    assert!(bed.connect().await.is_err());
}

#[tokio::test]
async fn over_mysql_too_a_certificate_of_a_rotated_ca_is_trusted_at_the_first_connection() {
    let (old, new) = (Ca::new(), Ca::new());
    let bed = Bed::that_opens_with(Opening::Mysql, &old).await;
    bed.connect_mysql().await.unwrap();
    bed.shows.send_replace(new.signs());
    bed.publish(&new);
    a_minute_later().await;
    bed.connect_mysql().await.unwrap();
    bed.shows.send_replace(old.signs());
    assert!(bed.connect_mysql().await.is_err());
}

#[tokio::test]
async fn a_stranger_s_certificate_is_refused_and_says_what_was_trusted() {
    let (known, stranger) = (Ca::new(), Ca::new());
    let bed = Bed::new(&known).await;
    bed.connect().await.unwrap();
    bed.shows.send_replace(stranger.signs());
    for _ in 0..2 {
        let problem = bed.connect().await.unwrap_err();
        let operator = &problem.operator;
        assert!(
            operator.contains("CA bundle of RDS in us-gov-west-1, fetched since the start"),
            "{operator}"
        );
        assert!(problem.hint.unwrap().contains("tls.ca_cert_file"));
        a_minute_later().await;
    }
}

#[tokio::test]
async fn verify_ca_lets_another_name_pass_and_no_other_ca() {
    let (known, stranger) = (Ca::new(), Ca::new());
    let mut bed = Bed::new(&known).await;
    bed.database.tls.server_name = Some("elsewhere.example.com".to_owned());
    let problem = bed.connect().await.unwrap_err();
    assert!(problem.hint.unwrap().contains("tls.server_name"));
    bed.database.tls.mode = TlsMode::VerifyCa;
    bed.connect().await.unwrap();
    bed.shows.send_replace(stranger.signs());
    assert!(bed.connect().await.is_err());
    bed.database.tls.mode = TlsMode::Insecure;
    bed.connect().await.unwrap();
}
