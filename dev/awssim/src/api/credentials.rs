//! GetClusterCredentials and GetClusterCredentialsWithIAM: temporary database passwords.
//!
//! As in AWS, a database user that does not exist fails at log-in, not here. Groups are
//! authorised (`redshift:JoinGroup`) and otherwise without effect.

use jiff::Timestamp;

use super::error::ApiError;
use super::form::Form;
use super::xml::Xml;
use super::{Call, require};
use crate::clock::{after, iso};
use crate::iam::Context;
use crate::mint::{Grant, Mint};
use crate::sessions::Caller;
use crate::state::State;
use crate::world::{self, ClusterId, ResourceId, is_db_identifier};

/// How long before the end AWS advises to ask again, in seconds.
pub(super) const REFRESH_AHEAD_SECONDS: u32 = 300;

pub(super) async fn get_cluster_credentials(
    state: &State,
    call: &Call<'_>,
) -> Result<Xml, ApiError> {
    let form = call.form;
    let user = form.required("DbUser")?;
    check_identifier("DbUser", user)?;
    let asked = Asked::read(state, call)?;
    let creates_user = form.flag("AutoCreate")?;
    let context = asked.context(call, Some(user));
    let arn = |kind: &str, name: &str| asked.arn(kind, name);
    let require = |action: &str, arn: String| require(state, call.caller, action, &arn, &context);

    require("redshift:GetClusterCredentials", arn("dbuser", user))?;
    if let Some(database) = &asked.db_name {
        require("redshift:GetClusterCredentials", arn("dbname", database))?;
    }
    if creates_user {
        require("redshift:CreateClusterUser", arn("dbuser", user))?;
    }
    for group in form.list("DbGroups") {
        if group.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ApiError::invalid_parameter("DbGroups must be lower case"));
        }
        require("redshift:JoinGroup", arn("dbgroup", &group))?;
    }
    asked.check_exists(state)?;
    let prefix = if creates_user { "IAMA" } else { "IAM" };
    let mint = asked
        .mint(state, format!("{prefix}:{user}"), user, creates_user)
        .await?;
    Ok(reply(&mint))
}

pub(super) async fn get_cluster_credentials_with_iam(
    state: &State,
    call: &Call<'_>,
) -> Result<Xml, ApiError> {
    let asked = Asked::read(state, call)?;
    let context = asked.context(call, None);
    let database = asked.db_name.as_deref().unwrap_or("*");
    let action = "redshift:GetClusterCredentialsWithIAM";
    require(
        state,
        call.caller,
        action,
        &asked.arn("dbname", database),
        &context,
    )?;
    asked.check_exists(state)?;
    let login = iam_login(call.caller);
    let mint = asked.mint(state, login.clone(), &login, true).await?;
    let mut xml = reply(&mint);
    let refresh = asked.seconds.saturating_sub(REFRESH_AHEAD_SECONDS);
    xml.leaf("NextRefreshTime", iso(after(asked.now, refresh)));
    Ok(xml)
}

/// The database user that a caller is by its IAM identity.
pub(super) fn iam_login(caller: &Caller) -> String {
    match caller {
        Caller::User { name, .. } => format!("IAM:{name}"),
        Caller::Session(session) => format!("IAMR:{}", session.spec.role),
    }
}

fn reply(mint: &Mint) -> Xml {
    let mut xml = Xml::default();
    xml.leaf("DbUser", &mint.grant.login);
    xml.leaf("DbPassword", mint.password.expose());
    xml.leaf("Expiration", iso(mint.expires_at));
    xml
}

/// What both operations take.
struct Asked {
    cluster: ClusterId,
    db_name: Option<String>,
    seconds: u32,
    now: Timestamp,
}

impl Asked {
    fn read(state: &State, call: &Call<'_>) -> Result<Self, ApiError> {
        let form = call.form;
        let db_name = form.get("DbName").filter(|name| !name.is_empty());
        if let Some(name) = db_name {
            check_identifier("DbName", name)?;
        }
        Ok(Self {
            cluster: find_cluster(state, call, form)?,
            db_name: db_name.map(str::to_owned),
            seconds: form.number("DurationSeconds", 900..=3600, 900)?,
            now: state.clock.now(),
        })
    }

    fn arn(&self, kind: &str, name: &str) -> String {
        let ClusterId {
            account,
            region,
            id,
        } = &self.cluster;
        world::arn("redshift", region, account, &format!("{kind}:{id}/{name}"))
    }

    fn context(&self, call: &Call<'_>, user: Option<&str>) -> Context {
        let mut context = call.caller.context(call.region);
        context.set("redshift:DurationSeconds", self.seconds.to_string());
        if let Some(user) = user {
            context.set("redshift:DbUser", user);
        }
        if let Some(database) = &self.db_name {
            context.set("redshift:DbName", database.as_str());
        }
        context
    }

    /// Asked after authorisation: who may not ask does not learn what exists.
    fn check_exists(&self, state: &State) -> Result<(), ApiError> {
        match state.world().cluster(&self.cluster) {
            Some(_) => Ok(()),
            None => Err(ApiError::cluster_not_found(&self.cluster.id)),
        }
    }

    async fn mint(
        &self,
        state: &State,
        login: String,
        role: &str,
        creates_user: bool,
    ) -> Result<std::sync::Arc<Mint>, ApiError> {
        let grant = Grant {
            at: ResourceId::cluster(&self.cluster),
            login,
            role: role.to_owned(),
            creates_user,
            db_name: self.db_name.clone(),
        };
        let mint = state
            .mints
            .mint(grant, self.now, after(self.now, self.seconds));
        let told = state.tell_native(&mint, self.seconds).await;
        told.map_err(|error| ApiError::internal(crate::error_chain(&error)))?;
        Ok(mint)
    }
}

/// The cluster that is named, by identifier or by custom domain; it need not exist.
fn find_cluster(state: &State, call: &Call<'_>, form: &Form) -> Result<ClusterId, ApiError> {
    let account = call.caller.account();
    if let Some(id) = form.get("ClusterIdentifier") {
        return Ok(ClusterId::new(account, call.region, id));
    }
    let Some(domain) = form.get("CustomDomainName") else {
        form.required("ClusterIdentifier")?;
        return Err(ApiError::cluster_not_found(""));
    };
    let world = state.world();
    let clusters = world
        .region(account, call.region)
        .into_iter()
        .flat_map(|r| &r.clusters);
    let mut named = clusters.filter(|(_, c)| c.custom_domain_name.as_deref() == Some(domain));
    match named.next() {
        Some((id, _)) => Ok(ClusterId::new(account, call.region, id)),
        None => Err(ApiError::custom_domain_not_found(domain)),
    }
}

fn check_identifier(parameter: &str, name: &str) -> Result<(), ApiError> {
    if is_db_identifier(name) {
        return Ok(());
    }
    Err(ApiError::invalid_parameter(format!(
        "Invalid {parameter}: `{name}`"
    )))
}
