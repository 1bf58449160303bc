//! Joining without a secret, by what AWS says of who asks, and with a token that is for one host.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::{Lab, Part, wait};
use tidegate_identity::KeyPair;
use tidegate_proto::v1::{self, trust_service_client::TrustServiceClient};
use tonic::Code;

use crate::main_job::world;

/// Hosts that show one token at once, at each of two instances of the control plane.
const RIVALS: usize = 10;

/// A token of method `iam` as the guide writes it.
fn token(name: &str, account: &str) -> String {
    format!(
        "kind: token
version: v2
metadata:
  name: {name}
spec:
  roles: [Db]
  join_method: iam
  allow:
  - aws_account: \"{account}\"
    aws_arn: arn:aws:iam::{account}:user/tidegate-agent-*
"
    )
}

async fn create(lab: &Lab, text: &str) -> Result<String> {
    let file = lab.dir().join("token.yaml");
    std::fs::write(&file, text)?;
    let file = file.to_str().context("an odd path")?;
    lab.tgctl(&["create", "-f", file]).await
}

/// Lets an agent join by its AWS identity instead of the laboratory's token.
fn join_by_iam(lab: &mut Lab, agent: Part, token: &str) {
    let changes = json!({ "tidegate": {
        "auth_token": null,
        "join_params": { "token_name": token, "method": "iam" },
    }});
    lab.configure(agent, changes);
}

#[tokio::test]
async fn an_agent_joins_by_its_aws_identity_and_serves_and_one_of_another_account_is_told_why()
-> Result<()> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery];
    let mut lab = Lab::start_in(world()?, &parts).await?;
    let said = create(&lab, &token("agents", "111111111111")).await?;
    ensure!(said.contains("by method iam"), "{said}");
    create(&lab, &token("strangers", "999999999999")).await?;
    join_by_iam(&mut lab, Part::AgentA, "agents");
    join_by_iam(&mut lab, Part::AgentB, "strangers");
    lab.start_part(Part::AgentA).await?;
    lab.start_part(Part::AgentB).await?;

    lab.wait_for_servers(&["analytics"], 1)
        .await
        .with_context(|| lab.log(Part::AgentA))?;
    let alice = lab.person("alice", "*", "*").await?;
    let rows = lab.query(&alice, "analytics", "reader", "SELECT 1").await?;
    ensure!(rows == "1", "{rows}");

    let refusal = "no allow rule of the join token is for this host's AWS account 111111111111";
    wait::until("the refusal", || async {
        let log = lab.log(Part::AgentB);
        if log.contains(refusal) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await?;
    lab.kill_part(Part::AgentB).await?;

    let events = lab.audit("instance.join").await?;
    let by_iam = |code: &str| {
        events
            .iter()
            .find(|event| {
                event.code == code && event.fields.get("method").is_some_and(|m| m == "iam")
            })
            .with_context(|| format!("{events:?}"))
    };
    let arn = "arn:aws:iam::111111111111:user/tidegate-agent-a";
    ensure!(by_iam("TJ002I")?.fields["aws.arn"] == arn, "{events:?}");
    ensure!(
        by_iam("TJ002E")?.fields["aws.account"] == "111111111111",
        "{events:?}"
    );
    let listed = lab.tgctl(&["tokens", "ls", "--format=json"]).await?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let used = listed
        .as_array()
        .into_iter()
        .flatten()
        .find(|token| token["metadata"]["name"] == "agents");
    ensure!(
        used.is_some_and(|token| token["status"]["uses"] == 1),
        "{listed}"
    );
    lab.stop().await
}

fn rival(token: &str, key: &KeyPair) -> v1::JoinRequest {
    v1::JoinRequest {
        token: token.to_owned(),
        public_key: key.public_key_der(),
        hostname: "rival".to_owned(),
        services: vec!["db".to_owned()],
        ..v1::JoinRequest::default()
    }
}

#[tokio::test]
async fn of_hosts_that_show_one_token_at_once_at_two_instances_one_joins() -> Result<()> {
    let auths = [Part::Auth, Part::AuthB];
    let lab = Lab::start_over_etcd(world()?, &auths).await?;
    let token = lab
        .tgctl(&[
            "tokens",
            "add",
            "--type=db",
            "--single-use",
            "--format=text",
        ])
        .await?;
    let keys: Vec<KeyPair> = (0..RIVALS)
        .map(|_| KeyPair::generate())
        .collect::<Result<_, _>>()?;
    let asked = auths.iter().flat_map(|auth| {
        let channel = lab.admin_of(*auth);
        let (token, keys) = (&token, &keys);
        keys.iter().map(move |key| {
            let mut trust = TrustServiceClient::new(channel.clone());
            async move { trust.join(rival(token, key)).await }
        })
    });
    let outcomes = join_all(asked).await;
    let joined: Vec<&v1::JoinResponse> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().ok())
        .map(tonic::Response::get_ref)
        .collect();
    // The winner shows its key at both instances, and is the same host to both.
    let first = joined.first().context("nobody joined")?;
    ensure!(
        joined.len() <= auths.len() && joined.iter().all(|joined| joined.host_id == first.host_id),
        "{joined:?}"
    );
    for status in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        ensure!(status.code() == Code::PermissionDenied, "{status:?}");
        ensure!(status.message().contains("used up"), "{status:?}");
    }
    lab.stop().await
}
