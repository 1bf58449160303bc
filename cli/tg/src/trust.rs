//! The cluster's CAs in the profile, as the cluster has them now: they change while a rotation is under way.

use tidegate_console::{
    Failure,
    client::Client,
    profile::{Profile, ProxyAddr},
    rpc,
};
use tidegate_identity::{CaPin, tls::Roots};
use tidegate_proto::v1::{GetTrustRequest, Trust};

/// Asks for the CAs, over a connection that the known ones verified, and keeps those that are new.
pub(crate) async fn refresh(profile: &Profile, client: &Client) -> Result<Trust, Failure> {
    let trust = rpc::call(
        "fetch the cluster's CA certificates",
        client.trust().get_trust(GetTrustRequest {}),
    )
    .await?;
    profile.keep_trust(&trust.host_ca_pem, &trust.db_ca_pem)?;
    Ok(trust)
}

/// Whether the auth service behind a proxy still shows a certificate of these CAs. One that cannot be reached counts: the
/// next call says why.
pub(crate) async fn is_known(proxy: &ProxyAddr, host_ca_pem: &str) -> Result<bool, Failure> {
    let client = Client::through_proxy(proxy, Roots::Pem(host_ca_pem), None)?;
    let asked = client.trust().get_trust(GetTrustRequest {}).await;
    Ok(!asked.is_err_and(|status| rpc::is_untrusted(&status)))
}

/// Whether one of the CAs in `cas_pem` signed a chain.
pub(crate) fn is_signed_by(chain_pem: &str, cas_pem: &str) -> bool {
    let signer = CaPin::of_signer(chain_pem);
    let trusted = CaPin::all_of_pem(cas_pem).unwrap_or_default();
    signer.is_ok_and(|signer| trusted.contains(&signer))
}
