//! How to reach a database, as `db_service.databases` and the `db` resource both write it.

use std::{path::Path, str::FromStr as _};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tidegate_core::{
    AwsMetadata, Database, DatabaseKind, DatabaseName, Labels, Origin, Protocol, TlsMode,
    TlsSettings, Uri, endpoint,
};

use super::{
    metadata,
    section::{Item, Section},
    values,
    words::quote,
};

/// How certificates are given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Certificates {
    /// `ca_cert_file`: a path, in configuration files.
    InFile,
    /// `ca_cert`: PEM in place, in resources, which travel.
    InPlace,
}

/// The part that both forms share.
pub(super) struct Spec {
    protocol: Protocol,
    uri: Uri,
    tls: TlsSettings,
    aws: AwsMetadata,
    kind: Option<DatabaseKind>,
}

impl Spec {
    pub(super) fn into_database(
        self,
        name: DatabaseName,
        description: String,
        labels: Labels,
        origin: Origin,
    ) -> Database {
        Database {
            name,
            description,
            labels,
            origin,
            protocol: self.protocol,
            uri: self.uri,
            tls: self.tls,
            aws: self.aws,
            kind: self.kind,
            identity: String::new(),
            discovered_name: String::new(),
            unavailable: String::new(),
        }
    }
}

/// Reads the shared keys out of a section that may have others.
pub(super) fn read(section: &mut Section<'_>, certificates: Certificates) -> Option<Spec> {
    let protocol = section.require("protocol").and_then(|item| protocol(&item));
    let uri_item = section.require("uri");
    let uri = uri_item.as_ref().and_then(uri);
    let tls = tls(section, certificates);
    let (mut aws, mut kind) = metadata::read(section);
    section.ignore(&["ad", "azure", "gcp", "mongo_atlas", "oracle"]);
    without_effect(section);
    if let (Some(item), Some(uri)) = (&uri_item, &uri) {
        fill_in(item, uri, &mut aws, &mut kind);
    }
    if kind.is_none() && aws.region.is_some() {
        kind = Some(DatabaseKind::Rds);
    }
    Some(Spec {
        protocol: protocol?,
        uri: uri?,
        tls,
        aws,
        kind,
    })
}

/// Keys that are read in full and change nothing here; each says why.
fn without_effect(section: &mut Section<'_>) {
    if let Some(item) = section.get("admin_user").filter(Item::is_given)
        && let Some(mut inner) = item.section()
    {
        for key in ["name", "default_database"] {
            if let Some(item) = inner.get(key) {
                item.text();
            }
        }
        inner.finish();
        item.warn("ignored: AWS makes the users that roles ask for, and nobody logs in as an administrator for it");
    }
    if let Some(item) = section.get("mysql").filter(Item::is_given)
        && let Some(mut inner) = item.section()
    {
        if let Some(version) = inner.get("server_version").filter(Item::is_given) {
            version.text();
            version.warn("ignored: clients are told one version for all databases before it is known which they ask for");
        }
        inner.finish();
    }
}

fn protocol(item: &Item<'_>) -> Option<Protocol> {
    item.choice(&[("postgres", Protocol::Postgres), ("mysql", Protocol::Mysql)])
}

fn uri(item: &Item<'_>) -> Option<Uri> {
    let text = item.full_text()?;
    if endpoint::kind_of(text).is_some_and(is_redshift) {
        return Uri::new(text, endpoint::REDSHIFT_PORT).ok();
    }
    let uri = Uri::from_str(text);
    if uri.is_err() {
        item.error_expected(
            format!("{} is not the address of a database", quote(text)),
            "`host:port`",
        );
    }
    uri.ok()
}

fn is_redshift(kind: DatabaseKind) -> bool {
    matches!(
        kind,
        DatabaseKind::Redshift | DatabaseKind::RedshiftServerless
    )
}

fn tls(section: &mut Section<'_>, certificates: Certificates) -> TlsSettings {
    let deprecated = match certificates {
        Certificates::InFile => section.get("ca_cert_file").filter(Item::is_given),
        Certificates::InPlace => section.get("ca_cert").filter(Item::is_given),
    };
    let mut tls = TlsSettings::default();
    let mut ca = None;
    if let Some(mut inner) = section.get("tls").and_then(|item| item.section()) {
        let modes = [
            ("verify-full", TlsMode::VerifyFull),
            ("verify-ca", TlsMode::VerifyCa),
            ("insecure", TlsMode::Insecure),
        ];
        tls.mode = inner
            .get("mode")
            .filter(Item::is_given)
            .and_then(|item| item.choice(&modes))
            .unwrap_or_default();
        tls.server_name = inner
            .get("server_name")
            .filter(Item::is_given)
            .and_then(|item| item.text().map(str::to_owned));
        ca = match certificates {
            Certificates::InFile => inner.get("ca_cert_file").filter(Item::is_given),
            Certificates::InPlace => inner.get("ca_cert").filter(Item::is_given),
        };
        tls.trust_system_pool = inner
            .get("trust_system_cert_pool")
            .filter(Item::is_given)
            .and_then(|item| item.boolean())
            .unwrap_or_default();
        inner.finish();
    }
    if let (Some(old), Some(_)) = (&deprecated, &ca) {
        old.warn("ignored: the certificates under `tls` are used");
    }
    tls.ca_cert_pem = ca.or(deprecated).and_then(|item| match certificates {
        Certificates::InFile => certificates_in_file(&item),
        Certificates::InPlace => certificates_in_place(&item),
    });
    tls
}

fn certificates_in_file(item: &Item<'_>) -> Option<String> {
    let path = Path::new(item.full_text()?);
    match values::read_named_file(path) {
        Ok(pem) if holds_certificates(&pem) => Some(pem),
        Ok(_) => {
            item.error(format!("{} holds no PEM certificates", path.display()));
            None
        }
        Err(error) => {
            item.error(format!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

fn certificates_in_place(item: &Item<'_>) -> Option<String> {
    let pem = item.full_text()?;
    if !holds_certificates(pem) {
        item.error_expected(
            "holds no PEM certificates",
            "`-----BEGIN CERTIFICATE-----` and so on",
        );
        return None;
    }
    Some(pem.to_owned())
}

/// At least one certificate, and nothing broken.
fn holds_certificates(pem: &str) -> bool {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.is_ok_and(|certificates| !certificates.is_empty())
}

/// Takes from the endpoint what the `aws` section does not say.
fn fill_in(item: &Item<'_>, uri: &Uri, aws: &mut AwsMetadata, kind: &mut Option<DatabaseKind>) {
    match endpoint::read(uri.host()) {
        Ok(None) => {}
        Ok(Some(found)) => {
            let kind = *kind.get_or_insert(found.kind);
            let region = aws.region.get_or_insert_with(|| found.region.clone());
            if *region != found.region {
                item.warn(format!(
                    "is in region `{}`, and `aws.region` says `{region}`, which is used",
                    found.region
                ));
            }
            if let Some(account) = found.account {
                aws.account_id.get_or_insert(account);
            }
            if kind == found.kind {
                found.name.fill_in(aws);
            }
        }
        Err(endpoint::NotAnEndpoint(DatabaseKind::Redshift)) => item.error_expected(
            format!(
                "{} is not an endpoint of Amazon Redshift",
                quote(uri.host())
            ),
            "`<cluster>.<hash>.<region>.redshift.amazonaws.com:5439`",
        ),
        Err(endpoint::NotAnEndpoint(kind)) => item.warn(format!(
            "is not an endpoint in the form that `{}` has",
            kind.as_str()
        )),
    }
}
