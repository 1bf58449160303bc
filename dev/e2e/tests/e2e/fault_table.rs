//! One region of an account for each way in which AWS misbehaves, all at once, beside two healthy scopes.
//!
//! While it lasts every scope says what is wrong with it, changes elsewhere arrive, nothing is deleted, and labels keep
//! their last known value. Once it is over, the next scans bring all that happened meanwhile.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use awssim::{
    AccessKey, Cluster, ClusterId, Fault, FaultKind, IdentityPolicy, Role, TrustPolicy, Workgroup,
    World,
};
use serde_json::{Value, json};
use tidegate_e2e::{Lab, Part, lab::words, wait};
use tidegate_proto::v1;

/// The account in which things go wrong, and one in which they do not.
const ACCOUNT: &str = "111111111111";
const OTHER_ACCOUNT: &str = "222222222222";
const HEALTHY_REGION: &str = "us-east-1";
const LIST: &str = "redshift:DescribeClusters";
/// Longer than a call may take, with all its attempts.
const HANG: FaultKind = FaultKind::Delay { ms: 60_000 };

/// What is wrong with a region.
enum Trouble {
    /// Its listing of clusters, from this page on.
    Listing { page: u32, kind: FaultKind },
    /// The account has disabled it.
    NotOptedIn,
    /// The tags of its workgroups cannot be read.
    Tags,
}

/// A region with its trouble, and how its scope has to tell it.
struct Row {
    /// The databases are called `<name>-a` and so on; a page holds one.
    name: &'static str,
    region: &'static str,
    trouble: Trouble,
    class: &'static str,
    action: &'static str,
    aws_code: &'static str,
}

/// A row whose clusters cannot be listed from `page` on.
const fn listing(
    (name, region): (&'static str, &'static str),
    page: u32,
    kind: FaultKind,
    (class, aws_code): (&'static str, &'static str),
) -> Row {
    Row {
        name,
        region,
        trouble: Trouble::Listing { page, kind },
        class,
        action: LIST,
        aws_code,
    }
}

fn rows() -> Vec<Row> {
    use FaultKind::{
        AccessDenied, ClockSkew, ExpiredToken, MalformedField, RepeatedToken, Reset, Throttling,
    };
    let no_number = MalformedField {
        element: "Port".to_owned(),
        text: Some("many".to_owned()),
    };
    let skew = ClockSkew {
        seconds: 900,
        told: false,
    };
    vec![
        listing(
            ("denied", "us-east-2"),
            1,
            AccessDenied,
            ("access_denied", "AccessDenied"),
        ),
        listing(
            ("expired", "us-west-1"),
            1,
            ExpiredToken,
            ("expired_credentials", "ExpiredToken"),
        ),
        listing(
            ("throttled", "us-west-2"),
            2,
            Throttling,
            ("throttled", "Throttling"),
        ),
        listing(
            ("circle", "eu-west-1"),
            1,
            RepeatedToken,
            ("repeated_marker", ""),
        ),
        listing(("reset", "eu-west-2"), 2, Reset, ("unavailable", "")),
        listing(("odd", "eu-west-3"), 2, no_number, ("malformed", "")),
        listing(
            ("skewed", "eu-north-1"),
            1,
            skew,
            ("clock_skew", "SignatureDoesNotMatch"),
        ),
        listing(HUNG, 2, HANG, ("timeout", "")),
        Row {
            name: "disabled",
            region: "eu-central-1",
            trouble: Trouble::NotOptedIn,
            class: "region_disabled",
            action: LIST,
            aws_code: "InvalidClientTokenId",
        },
        Row {
            name: "tags",
            region: "ap-northeast-1",
            trouble: Trouble::Tags,
            class: "access_denied",
            action: "redshift-serverless:ListTagsForResource",
            aws_code: "AccessDeniedException",
        },
    ]
}

/// The row that takes the longest to tell.
const HUNG: (&str, &str) = ("hung", "ap-south-1");

impl Row {
    fn id(&self, which: &str) -> ClusterId {
        ClusterId::new(ACCOUNT, self.region, &self.database(which))
    }

    fn database(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    const fn kind(&self) -> &'static str {
        match self.trouble {
            Trouble::Tags => "redshift-serverless",
            Trouble::Listing { .. } | Trouble::NotOptedIn => "redshift",
        }
    }

    /// What has to happen in AWS for its trouble to begin.
    fn begin(&self, lab: &Lab) -> Result<()> {
        let order = |fault: Fault| {
            lab.aws()
                .fault(fault.in_account(ACCOUNT).in_region(self.region))
        };
        match &self.trouble {
            Trouble::Listing { page, kind } => {
                let fault = Fault::new(kind.clone()).on("redshift", "DescribeClusters");
                order(fault.at_page(*page))?;
            }
            Trouble::NotOptedIn => lab.aws().set_region_enabled(ACCOUNT, self.region, false)?,
            Trouble::Tags => {
                let denied = || Fault::new(FaultKind::AccessDenied);
                order(denied().on("tagging", "GetResources"))?;
                order(denied().on("redshift-serverless", "ListTagsForResource"))?;
            }
        }
        Ok(())
    }

    /// What is wrong with how its scope tells it; `None` when it is told as it should be.
    fn untold(&self, scopes: &[v1::ScopeStatus]) -> Option<String> {
        let is_its = |status: &&v1::ScopeStatus| {
            status.scope.as_ref().is_some_and(|scope| {
                let role = scope.assume_role.as_ref();
                scope.region == self.region
                    && scope.kind == self.kind()
                    && role.is_some_and(|role| role.role_arn.contains(ACCOUNT))
            })
        };
        let Some(scope) = scopes.iter().find(is_its) else {
            return Some(format!("{} has no scope", self.name));
        };
        let failure = scope.failure.clone().unwrap_or_default();
        let told = [&*failure.class, &*failure.action, &*failure.aws_code];
        let wanted = [self.class, self.action, self.aws_code];
        (told != wanted || failure.message.is_empty())
            .then(|| format!("{} tells {failure:?} instead of {wanted:?}", self.name))
    }

    /// Retags its second database, deletes its third, and creates a fourth.
    async fn change(&self, lab: &Lab) -> Result<()> {
        let aws = lab.aws();
        let after = tags("after");
        if matches!(self.trouble, Trouble::Tags) {
            aws.put_workgroup(&self.id("b"), Workgroup::with(after))
                .await?;
            aws.remove_workgroup(&self.id("c")).await?;
            aws.put_workgroup(&self.id("d"), Workgroup::with(after))
                .await?;
        } else {
            aws.set_tags(
                &self.id("b"),
                after.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            )
            .await?;
            aws.remove_cluster(&self.id("c")).await?;
            aws.add_cluster(&self.id("d"), Cluster::listed(after))
                .await?;
        }
        Ok(())
    }
}

const fn tags(note: &str) -> [(&str, &str); 2] {
    [("env", "prod"), ("note", note)]
}

fn world(rows: &[Row]) -> Result<World> {
    let mut world = World::new();
    world.page_records_max = Some(1);
    let (id, secret) = Part::Discovery.access_key().context("workers call AWS")?;
    let key = AccessKey {
        id: id.to_owned(),
        secret: secret.to_owned(),
    };
    let assume = IdentityPolicy::allow(["sts:AssumeRole"], ["*"]);
    world.account(ACCOUNT).put_user("worker", key, vec![assume]);
    let look = IdentityPolicy::allow(["redshift:*", "redshift-serverless:*", "tag:*"], ["*"]);
    for account in [ACCOUNT, OTHER_ACCOUNT] {
        let role = Role::new(TrustPolicy::allow([ACCOUNT]), vec![look.clone()]);
        world.account(account).put_role("look", role);
    }
    for row in rows {
        for which in ["a", "b", "c"] {
            let (id, before) = (row.id(which), tags("before"));
            match row.trouble {
                Trouble::Tags => world.put(&id, Workgroup::with(before)),
                _ => world.put_cluster(&id, Cluster::listed(before)),
            }
        }
    }
    for id in healthy("well") {
        world.put_cluster(&id, Cluster::listed(tags("before")));
    }
    Ok(world)
}

/// A cluster of this name in each healthy scope: another region, and another account in a region that is in trouble.
fn healthy(name: &str) -> [ClusterId; 2] {
    [
        ClusterId::new(ACCOUNT, HEALTHY_REGION, &format!("{name}-here")),
        ClusterId::new(OTHER_ACCOUNT, "us-east-2", &format!("{name}-there")),
    ]
}

fn matchers(rows: &[Row]) -> Value {
    let regions = |kind: &str| -> Vec<&str> {
        let of_kind = rows.iter().filter(|row| row.kind() == kind);
        of_kind.map(|row| row.region).collect()
    };
    let matcher = |kind: &str, regions: &[&str], account: &str| {
        json!({
            "types": [kind],
            "regions": regions,
            "tags": { "env": "prod" },
            "assume_role_arn": format!("arn:aws:iam::{account}:role/look"),
        })
    };
    let clusters = [regions("redshift"), vec![HEALTHY_REGION]].concat();
    json!([
        matcher("redshift", &clusters, ACCOUNT),
        matcher(
            "redshift-serverless",
            &regions("redshift-serverless"),
            ACCOUNT
        ),
        matcher("redshift", &["us-east-2"], OTHER_ACCOUNT),
    ])
}

/// Waits until each row's scope tells what is wrong with it.
async fn told(lab: &Lab, rows: &[&Row]) -> Result<()> {
    wait::until("every scope to tell its trouble", || async {
        let scopes = lab.scopes().await.map_err(|error| format!("{error:#}"))?;
        let untold: Vec<String> = rows.iter().filter_map(|row| row.untold(&scopes)).collect();
        if untold.is_empty() {
            Ok(())
        } else {
            Err(untold.join("\n"))
        }
    })
    .await
}

/// Waits until exactly these databases are listed; the label `note` of each.
async fn notes(lab: &Lab, names: &[String]) -> Result<BTreeMap<String, String>> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    let databases = lab.wait_for_databases(&names).await?;
    let note = |database: v1::Database| {
        let note = database.labels.get("note").cloned();
        (database.discovered_name, note.unwrap_or_default())
    };
    Ok(databases.into_iter().map(note).collect())
}

fn names(rows: &[Row], of_each: &[&str], healthy_ones: &[&str]) -> Vec<String> {
    let of_rows = rows
        .iter()
        .flat_map(|row| of_each.iter().map(|which| row.database(which)));
    let of_healthy = healthy_ones.iter().flat_map(|name| healthy(name));
    of_rows.chain(of_healthy.map(|id| id.id)).collect()
}

#[tokio::test]
async fn whatever_aws_does_a_scope_tells_it_alone_loses_nothing_and_heals() -> Result<()> {
    let rows = rows();
    let mut lab = Lab::start_in(world(&rows)?, &[Part::Auth]).await?;
    let auth_server = lab.auth_addr();
    lab.configure(
        Part::Discovery,
        json!({
            "tidegate": { "auth_server": auth_server, "proxy_server": null },
            "discovery_service": { "poll_interval": "1s", "aws": matchers(&rows) },
        }),
    );
    lab.start_part(Part::Discovery).await?;
    notes(&lab, &names(&rows, &["a", "b", "c"], &["well"])).await?;
    lab.tgctl(&["discovery", "status", "--check"]).await?;

    for row in &rows {
        row.begin(&lab)?;
    }
    // A skew that AWS tells of is no trouble.
    let told_skew = FaultKind::ClockSkew {
        seconds: 900,
        told: true,
    };
    let here = Fault::new(told_skew).in_region(HEALTHY_REGION);
    lab.aws().fault(Fault {
        service: Some("redshift".to_owned()),
        ..here.in_account(ACCOUNT)
    })?;
    let quick: Vec<&Row> = rows.iter().filter(|row| row.name != HUNG.0).collect();
    told(&lab, &quick).await?;
    for row in &rows {
        row.change(&lab).await?;
    }
    for id in healthy("new") {
        let new = Cluster::listed(tags("before"));
        lab.aws().add_cluster(&id, new).await?;
    }
    let during = names(&rows, &["a", "b", "c"], &["well", "new"]);
    notes(&lab, &during).await?;
    // Some 30 s, in which all others are scanned again and again.
    told(&lab, &rows.iter().collect::<Vec<_>>()).await?;
    let known = notes(&lab, &during).await?;
    ensure!(known.values().all(|note| note == "before"), "{known:?}");
    let scopes = lab.scopes().await?.into_iter();
    let failures: Vec<_> = scopes.filter_map(|scope| scope.failure).collect();
    ensure!(failures.len() == rows.len(), "{failures:#?}");
    let checked = lab
        .tgctl_with(&["discovery", "status", "--check"], BTreeMap::new())
        .await?;
    ensure!(checked.status.code() == Some(3), "{}", words(&checked));

    lab.aws().clear_faults();
    lab.aws()
        .set_region_enabled(ACCOUNT, "eu-central-1", true)?;
    let after = names(&rows, &["a", "b", "d"], &["well", "new"]);
    let healed = wait::until("all that happened meanwhile", || async {
        let known = notes(&lab, &after).await;
        let known = known.map_err(|error| format!("{error:#}"))?;
        let is_new = |row: &Row| known[&row.database("b")] == "after";
        if rows.iter().all(is_new) {
            Ok(known)
        } else {
            Err(format!("{known:?}"))
        }
    })
    .await?;
    ensure!(healed.len() == after.len(), "{healed:?}");
    wait::until("every scope to be well", || async {
        match lab.tgctl(&["discovery", "status", "--check"]).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    lab.stop().await
}
