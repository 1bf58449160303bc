//! Certificate authorities, and the certificates they give.
//!
//! A cluster has three: `host` signs services, `user` signs people, `db` signs what agents show to clients. Each has
//! its own common name, by which [`crate::PeerIdentity`] knows whom it may speak for.

use std::{fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use secrecy::SecretString;
use tidegate_core::{ClusterName, HostId};
use tidegate_proto::v1;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    CA_TTL, CLOCK_SKEW, CaPin, HostHolder, IdentityError, KeyPair, SERVER_NAME_AUTH,
    SERVER_NAME_PROXY, UserHolder, secret, tls,
};

/// The private extension that holds a [`v1::Identity`].
pub(crate) const IDENTITY_OID: &[u64] = &[1, 3, 9999, 4, 1];

/// The attribute of a name that tells two CAs of one kind apart (X.520, `serialNumber`).
const SERIAL_NUMBER_OID: &[u64] = &[2, 5, 4, 5];

/// What a CA signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaKind {
    /// What agents show to clients.
    Db,
    /// Services.
    Host,
    /// People.
    User,
}

impl CaKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Db, Self::Host, Self::User];

    /// The short name: `db`, `host`, `user`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Host => "host",
            Self::User => "user",
        }
    }

    pub(crate) const fn common_name(self) -> &'static str {
        match self {
            Self::Db => "Tidegate db CA",
            Self::Host => "Tidegate host CA",
            Self::User => "Tidegate user CA",
        }
    }
}

/// A certificate that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, then its CA, in PEM.
    pub chain_pem: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a service's certificate says.
#[derive(Clone, Copy, Debug)]
pub struct HostLeaf<'l> {
    /// SubjectPublicKeyInfo in DER.
    pub public_key: &'l [u8],
    /// The cluster.
    pub cluster: &'l ClusterName,
    /// The process's id.
    pub host_id: &'l HostId,
    /// Its name for people.
    pub hostname: &'l str,
    /// What it may run.
    pub services: &'l [String],
    /// DNS names and addresses it is reached by, besides those of its services.
    pub names: &'l [String],
}

/// What a person's certificate says.
#[derive(Clone, Copy, Debug)]
pub struct UserLeaf<'l> {
    /// SubjectPublicKeyInfo in DER.
    pub public_key: &'l [u8],
    /// The cluster.
    pub cluster: &'l ClusterName,
    /// The person.
    pub user: &'l UserHolder,
}

/// A CA with its private key.
pub struct CertificateAuthority {
    cert_pem: String,
    pin: CaPin,
    key: KeyPair,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new CA with a new key, valid for ten years.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes to give.
    pub fn create(
        kind: CaKind,
        cluster: &ClusterName,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = base_params(now, CA_TTL)?;
        params
            .distinguished_name
            .push(DnType::OrganizationName, cluster.as_str());
        params
            .distinguished_name
            .push(DnType::CommonName, kind.common_name());
        // While a rotation is under way there are two of a kind: some clients look a CA up by its name alone.
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes);
        params.distinguished_name.push(
            DnType::CustomDnType(SERIAL_NUMBER_OID.to_vec()),
            secret::hex(&serial.unwrap_or_default()),
        );
        as_ca(&mut params);
        params.use_authority_key_identifier_extension = false;
        let cert_pem = params.self_signed(key.inner())?.pem();
        Self::assemble(cert_pem, key)
    }

    /// A CA that was made earlier.
    ///
    /// # Errors
    ///
    /// When either text does not hold what it should.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        Self::assemble(cert_pem.to_owned(), KeyPair::from_pem(key_pem)?)
    }

    /// A certificate by this CA for another one of the same kind. Whoever trusts this CA alone can verify what the other
    /// one signed, when the certificate is in the chain that is shown.
    ///
    /// # Errors
    ///
    /// When the other CA's certificate cannot be read.
    pub fn cross_sign(&self, other: &Self, now: Timestamp) -> Result<String, IdentityError> {
        let mut params = base_params(now, CA_TTL)?;
        params.distinguished_name = subject(&other.cert_pem)?;
        as_ca(&mut params);
        let public_key = SubjectPublicKeyInfo::from_der(&other.key.public_key_der())?;
        Ok(params.signed_by(&public_key, &self.issuer)?.pem())
    }

    /// When its certificate ends.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be read.
    pub fn expires_at(&self) -> Result<Timestamp, IdentityError> {
        let malformed = |problem: String| IdentityError::Malformed(problem);
        let der = tls::first_certificate_der(&self.cert_pem)?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
        Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|error| malformed(error.to_string()))
    }

    fn assemble(cert_pem: String, key: KeyPair) -> Result<Self, IdentityError> {
        let signing = rcgen::KeyPair::from_pem(&key.inner().serialize_pem())?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, signing)?;
        Ok(Self {
            pin: CaPin::of_pem(&cert_pem)?,
            cert_pem,
            key,
            issuer,
        })
    }

    /// The CA's certificate in PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's private key in PEM, for the store.
    #[must_use]
    pub fn key_pem(&self) -> SecretString {
        self.key.to_pem()
    }

    /// The CA's pin.
    #[must_use]
    pub const fn pin(&self) -> CaPin {
        self.pin
    }

    /// A service's certificate, for both ends of a connection.
    ///
    /// # Errors
    ///
    /// When the public key or a name cannot be used.
    pub fn issue_host(
        &self,
        leaf: HostLeaf<'_>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let mut params = base_params(now, ttl)?;
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.host_id.as_str());
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params
            .subject_alt_names
            .push(spiffe(leaf.cluster, "host", leaf.host_id.as_str())?);
        let own_names = leaf
            .services
            .iter()
            .filter_map(|service| match service.as_str() {
                "auth" => Some(SERVER_NAME_AUTH),
                "proxy" => Some(SERVER_NAME_PROXY),
                _ => None,
            });
        for name in own_names.chain(leaf.names.iter().map(String::as_str)) {
            params.subject_alt_names.push(server_name(name)?);
        }
        let holder = HostHolder {
            host_id: leaf.host_id.clone(),
            services: leaf.services.to_vec(),
            hostname: leaf.hostname.to_owned(),
        };
        add_identity(
            &mut params,
            leaf.cluster,
            v1::identity::Holder::Host((&holder).into()),
        );
        self.sign(params, leaf.public_key, now, ttl)
    }

    /// A person's certificate.
    ///
    /// # Errors
    ///
    /// When the public key cannot be used.
    pub fn issue_user(
        &self,
        leaf: UserLeaf<'_>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let mut params = base_params(now, ttl)?;
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.user.name.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
            .subject_alt_names
            .push(spiffe(leaf.cluster, "user", &uri_escaped(&leaf.user.name))?);
        add_identity(
            &mut params,
            leaf.cluster,
            v1::identity::Holder::User(leaf.user.into()),
        );
        self.sign(params, leaf.public_key, now, ttl)
    }

    /// The certificate that an agent shows to clients: `*.db.<cluster>`.
    ///
    /// # Errors
    ///
    /// When the public key cannot be used.
    pub fn issue_database_server(
        &self,
        public_key: &[u8],
        cluster: &ClusterName,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let mut params = base_params(now, ttl)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Tidegate databases");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
            .subject_alt_names
            .push(server_name(&format!("*.db.{cluster}"))?);
        self.sign(params, public_key, now, ttl)
    }

    fn sign(
        &self,
        params: CertificateParams,
        public_key: &[u8],
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let public_key = SubjectPublicKeyInfo::from_der(public_key)?;
        let leaf = params.signed_by(&public_key, &self.issuer)?.pem();
        Ok(Issued {
            chain_pem: format!("{leaf}{}", self.cert_pem),
            expires_at: end(now, ttl),
        })
    }
}

/// The name in a certificate that [`CertificateAuthority::create`] made: its texts are UTF-8, in this order.
fn subject(cert_pem: &str) -> Result<DistinguishedName, IdentityError> {
    let malformed = |problem: String| IdentityError::Malformed(problem);
    let der = tls::first_certificate_der(cert_pem)?;
    let (_, parsed) =
        X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    let mut name = DistinguishedName::new();
    for attribute in parsed.subject().iter_attributes() {
        let text = attribute
            .as_str()
            .map_err(|error| malformed(error.to_string()))?;
        let oid: Vec<u64> = attribute
            .attr_type()
            .iter()
            .map(Iterator::collect)
            .unwrap_or_default();
        name.push(DnType::from_oid(&oid), text);
    }
    Ok(name)
}

/// Makes a certificate one of a CA that signs leaves alone.
fn as_ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
}

fn base_params(now: Timestamp, ttl: Duration) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before =
        calendar(now.as_second() - i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or(0))?;
    params.not_after = calendar(end(now, ttl).as_second())?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let mut serial = secret::random_bytes::<16>()?;
    serial[0] &= 0x7f; // a positive integer
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// The end of a life that starts now, in whole seconds as certificates have them.
fn end(now: Timestamp, ttl: Duration) -> Timestamp {
    let end = now
        .as_second()
        .saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
}

fn calendar(second: i64) -> Result<OffsetDateTime, IdentityError> {
    OffsetDateTime::from_unix_timestamp(second)
        .map_err(|error| IdentityError::Malformed(error.to_string()))
}

fn add_identity(
    params: &mut CertificateParams,
    cluster: &ClusterName,
    holder: v1::identity::Holder,
) {
    let identity = v1::Identity {
        cluster: cluster.to_string(),
        holder: Some(holder),
    };
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(
            IDENTITY_OID,
            identity.encode_to_vec(),
        ));
}

fn spiffe(cluster: &ClusterName, kind: &str, name: &str) -> Result<SanType, IdentityError> {
    Ok(SanType::URI(
        format!("spiffe://{cluster}/{kind}/{name}").try_into()?,
    ))
}

fn server_name(name: &str) -> Result<SanType, IdentityError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

/// Percent-encodes what a URI path segment may not hold (RFC 3986, section 3.3).
fn uri_escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~@+".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests;
