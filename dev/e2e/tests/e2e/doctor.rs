//! The doctor, asked of a live agent through the control plane.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use awssim::{CredentialSource, Machine, Role, TrustPolicy};
use serde_json::Value;
use tidegate_e2e::{Lab, Part, lab::words};

use crate::main_job::world;

const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];

async fn ask(lab: &Lab, name: &str) -> Result<(Option<i32>, Value)> {
    let question = ["db", "doctor", name, "--db-user=reader", "--format=json"];
    let output = lab.tgctl_with(&question, BTreeMap::new()).await?;
    let told = serde_json::from_slice(&output.stdout).with_context(|| words(&output))?;
    Ok((output.status.code(), told))
}

fn failed(told: &Value) -> Option<&str> {
    let steps = told["steps"].as_array()?;
    let failed = steps.iter().find(|step| step["status"] == "failed")?;
    failed["step"].as_str()
}

#[tokio::test]
async fn a_live_agent_tells_a_healthy_database_from_one_whose_role_trusts_it_no_longer()
-> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    let servers = lab.wait_for_servers(&["analytics"], 1).await?;
    let server = servers.first().context("a server")?;
    let name = &server.database.as_ref().context("its database")?.name;
    let (code, told) = ask(&lab, name).await?;
    ensure!(
        code == Some(0) && told["verdict"]["code"] == "ok",
        "{told:#}"
    );

    let role = server
        .effective_role
        .as_ref()
        .context("a role")?
        .role_arn
        .clone();
    let account = role.split(':').nth(4).context("an ARN")?;
    let short = role.rsplit('/').next().context("a role's name")?;
    let trust = awssim::TrustPolicy::allow(["999999999999"]);
    lab.aws()
        .put_role(account, short, awssim::Role::new(trust, Vec::new()))?;
    let (code, told) = ask(&lab, name).await?;
    ensure!(code == Some(3) && failed(&told) == Some("role"), "{told:#}");
    ensure!(told["verdict"]["code"] == "aws_access_denied", "{told:#}");
    let fix = &told["verdict"]["fixes"][0];
    ensure!(
        fix["policy"] == "trust" && fix["of"] == role.as_str(),
        "{told:#}"
    );
    ensure!(
        lab.audit("db.diagnose").await?.len() == 2,
        "both are audited"
    );
    lab.stop().await
}

#[tokio::test]
async fn an_agent_in_a_container_behind_the_hop_limit_of_its_instance_is_told_as_that() -> Result<()>
{
    let mut world = world()?;
    let (home, role) = ("111111111111", "container");
    let trust = TrustPolicy::allow_service("ec2.amazonaws.com");
    let instance = CredentialSource::Instance {
        beyond_hop_limit: true,
    };
    world
        .account(home)
        .put_role(role, Role::new(trust, Vec::new()));
    let machine = Machine::new(&format!("arn:aws:iam::{home}:role/{role}"), instance);
    let mut lab = Lab::start_in(world, &PARTS[..3]).await?;
    lab.aws().put_machine("box", machine)?;
    lab.run_on(Part::AgentA, "box");
    lab.start_part(Part::AgentA).await?;
    let servers = lab.wait_for_servers(&["analytics"], 1).await?;
    let server = servers.first().context("a server")?;
    let name = &server.database.as_ref().context("its database")?.name;

    let (code, told) = ask(&lab, name).await?;
    ensure!(
        code == Some(3) && failed(&told) == Some("credentials"),
        "{told:#}"
    );
    let verdict = &told["verdict"];
    ensure!(
        verdict["code"] == "aws_credentials" && verdict["who"] == "operator",
        "{told:#}"
    );
    let how = verdict["how"][0].as_str().context("what to do")?;
    ensure!(how.contains("--http-put-response-hop-limit 2"), "{told:#}");
    lab.stop().await
}
