//! Redshift Serverless: workgroups, their VPC endpoints, their tags.

use serde_json::{Value, json};

use super::Call;
use super::error::ApiError;
use super::page::{NEXT_TOKEN, Paging};
use crate::lag::View;
use crate::state::State;
use crate::world::{
    Kind, Region, VpcEndpoint, Workgroup, World, arn, derived_hex, derived_uuid,
    serverless_endpoint_label, serverless_host,
};

/// Where a listing looks.
struct Place<'a> {
    account: &'a str,
    region: &'a str,
    view: View<'a>,
}

impl<'a> Place<'a> {
    fn new(state: &'a State, call: &'a Call<'_>) -> Self {
        Self {
            account: call.caller.account(),
            region: call.region,
            view: state.lag.view(state.clock.now()),
        }
    }

    fn of<'w>(&self, world: &'w World) -> Option<&'w Region> {
        world.region(self.account, self.region)
    }

    fn hides(&self, name: &str) -> bool {
        self.view
            .hides(Kind::Workgroup, self.account, self.region, name)
    }

    fn workgroup<'w>(&self, world: &'w World, name: &str) -> Result<&'w Workgroup, ApiError> {
        let found = self
            .of(world)
            .and_then(|region| region.workgroups.get(name));
        found
            .filter(|_| !self.hides(name))
            .ok_or_else(|| not_found(&format!("Workgroup {name}")))
    }

    fn id(&self, name: &str) -> String {
        workgroup_id(self.account, self.region, name)
    }

    /// Ends in an id, not in the name.
    fn arn(&self, name: &str) -> String {
        workgroup_arn(self.account, self.region, name)
    }

    fn host(&self, label: &str) -> String {
        serverless_host(self.account, self.region, label)
    }

    fn workgroup_json(&self, name: &str, workgroup: &Workgroup) -> Value {
        let mut json = json!({
            "workgroupName": name,
            "workgroupArn": self.arn(name),
            "workgroupId": self.id(name),
            "namespaceName": workgroup.namespace,
            "status": workgroup.status,
            "port": workgroup.port,
            "publiclyAccessible": workgroup.publicly_accessible,
            "workgroupVersion": workgroup.version,
            "patchVersion": workgroup.version,
            "baseCapacity": 8,
            "enhancedVpcRouting": false,
            "subnetIds": [],
            "securityGroupIds": [],
        });
        if workgroup.has_endpoint() {
            let endpoint = VpcEndpoint {
                vpc_id: workgroup.vpc_id.clone(),
                ..VpcEndpoint::default()
            };
            json["endpoint"] = json!({
                "address": self.host(name),
                "port": workgroup.port,
                "vpcEndpoints": [self.vpc_json(name, &endpoint)],
            });
        }
        if let Some(domain) = &workgroup.custom_domain_name {
            json["customDomainName"] = json!(domain);
        }
        json
    }

    fn vpc_json(&self, name: &str, endpoint: &VpcEndpoint) -> Value {
        let full = format!("serverless/{}/{}/{name}", self.account, self.region);
        json!({
            "vpcEndpointId": derived_hex("vpce-", &full),
            "vpcId": endpoint.vpc_id,
            "networkInterfaces": [],
        })
    }

    fn endpoint_json(&self, name: &str, of: &EndpointOf<'_>) -> Value {
        let full = format!("endpoint/{}/{}/{name}", self.account, self.region);
        let resource = format!("managedvpcendpoint/{}", derived_uuid(&full));
        let mut json = json!({
            "endpointName": name,
            "endpointArn": arn("redshift-serverless", self.region, self.account, &resource),
            "endpointStatus": of.endpoint.status,
            "workgroupName": of.workgroup_name,
            "vpcEndpoint": self.vpc_json(name, of.endpoint),
            "subnetIds": [],
            "vpcSecurityGroups": [],
        });
        if of.endpoint.has_address() {
            let label = serverless_endpoint_label(self.account, self.region, name);
            json["address"] = json!(self.host(&label));
            json["port"] = json!(of.workgroup.port);
        }
        json
    }
}

fn workgroup_id(account: &str, region: &str, name: &str) -> String {
    derived_uuid(&format!("workgroup/{account}/{region}/{name}"))
}

pub(super) fn workgroup_arn(account: &str, region: &str, name: &str) -> String {
    let resource = format!("workgroup/{}", workgroup_id(account, region, name));
    arn("redshift-serverless", region, account, &resource)
}

/// A VPC endpoint with its workgroup.
struct EndpointOf<'a> {
    workgroup_name: &'a str,
    workgroup: &'a Workgroup,
    endpoint: &'a VpcEndpoint,
}

pub(super) fn list_workgroups(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    call.require(state, "*")?;
    let world = state.world();
    check_owner(call)?;
    let paging = Paging::read(call, &world, &NEXT_TOKEN)?;
    let place = Place::new(state, call);
    let rest = place
        .of(&world)
        .map(|region| paging.rest(&region.workgroups));
    let shown = |(name, _): &(&String, &Workgroup)| !place.hides(name);
    let (page, token) = paging.cut(rest.into_iter().flatten().filter(shown));
    let page = page.into_iter();
    let workgroups: Vec<Value> = page
        .map(|(name, workgroup)| place.workgroup_json(name, workgroup))
        .collect();
    Ok(with_token(json!({ "workgroups": workgroups }), token))
}

pub(super) fn get_workgroup(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    let name = call.form.required("workgroupName")?;
    let place = Place::new(state, call);
    call.require(state, &place.arn(name))?;
    let world = state.world();
    let workgroup = place.workgroup(&world, name)?;
    Ok(json!({ "workgroup": place.workgroup_json(name, workgroup) }))
}

pub(super) fn list_endpoint_access(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    call.require(state, "*")?;
    let world = state.world();
    check_owner(call)?;
    let paging = Paging::read(call, &world, &NEXT_TOKEN)?;
    let place = Place::new(state, call);
    let wanted = call.form.non_empty("workgroupName");
    let vpc_id = call.form.non_empty("vpcId");
    if let Some(name) = wanted {
        place.workgroup(&world, name)?;
    }
    let workgroups = place
        .of(&world)
        .into_iter()
        .flat_map(|region| &region.workgroups);
    let mut endpoints: Vec<(&String, EndpointOf<'_>)> = workgroups
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name.as_str()))
        .filter(|(name, _)| !place.hides(name))
        .flat_map(|(workgroup_name, workgroup)| {
            workgroup.vpc_endpoints.iter().map(move |(name, endpoint)| {
                let of = EndpointOf {
                    workgroup_name,
                    workgroup,
                    endpoint,
                };
                (name, of)
            })
        })
        .filter(|(_, of)| vpc_id.is_none_or(|wanted| wanted == of.endpoint.vpc_id))
        .filter(|(name, _)| name.as_str() > paging.after())
        .collect();
    endpoints.sort_by_key(|(name, _)| *name);
    let (page, token) = paging.cut(endpoints.into_iter());
    let page = page.iter();
    let endpoints: Vec<Value> = page
        .map(|(name, of)| place.endpoint_json(name, of))
        .collect();
    Ok(with_token(json!({ "endpoints": endpoints }), token))
}

pub(super) fn list_tags(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    let wanted = call.form.required("resourceArn")?;
    call.require(state, wanted)?;
    let world = state.world();
    let place = Place::new(state, call);
    let mut workgroups = place
        .of(&world)
        .into_iter()
        .flat_map(|region| &region.workgroups);
    let found = workgroups.find(|(name, _)| place.arn(name) == wanted && !place.hides(name));
    let (name, workgroup) = found.ok_or_else(|| not_found(&format!("Resource {wanted}")))?;
    let (account, region) = (place.account, place.region);
    let tags = place
        .view
        .tags(Kind::Workgroup, account, region, name, &workgroup.tags);
    let tags: Vec<Value> = tags
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    Ok(json!({ "tags": tags }))
}

/// Workgroups that other accounts share are not simulated.
fn check_owner(call: &Call<'_>) -> Result<(), ApiError> {
    match call.form.non_empty("ownerAccount") {
        Some(owner) if owner != call.caller.account() => {
            Err(ApiError::not_simulated("ownerAccount of another account"))
        }
        _ => Ok(()),
    }
}

fn with_token(mut json: Value, token: Option<String>) -> Value {
    if let Some(token) = token {
        json["nextToken"] = json!(token);
    }
    json
}

pub(super) fn not_found(what: &str) -> ApiError {
    let message = format!("{what} was not found.");
    ApiError::new(400, "ResourceNotFoundException", message)
}
