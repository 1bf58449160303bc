//! What a request asks of a kind, checked.

use tidegate_core::predicate::{FieldType, Schema};
use tidegate_proto::{Invalid, v1};

use super::served::SERVED;
use crate::{
    grpc::inventory::selector,
    inventory::{Conditions, ListRequest, nearest},
    resources::KINDS,
};

/// A request for a listing, but for its kind and mask.
pub(super) struct Asked(v1::ListResourcesRequest);

impl Asked {
    pub(super) const fn new(request: v1::ListResourcesRequest) -> Self {
        Self(request)
    }

    /// As the listing of a kind with these fields takes it.
    pub(super) fn of(self, schema: &'static Schema) -> Result<ListRequest, Invalid> {
        check_selector(schema, self.0.selector.as_ref())?;
        Ok(ListRequest {
            page_size: self.0.page_size,
            page_token: self.0.page_token,
            selector: selector(self.0.selector)?,
            search: self.0.search,
            database: String::new(),
            filter: self.0.filter,
            order_by: self.0.order_by,
        })
    }
}

/// Which resources of a kind with these fields are meant.
pub(super) fn conditions(
    schema: &'static Schema,
    asked: v1::ResourceFilter,
) -> Result<Conditions, Invalid> {
    check_selector(schema, asked.selector.as_ref())?;
    Conditions::new(
        schema,
        selector(asked.selector)?,
        &asked.search,
        &asked.filter,
    )
}

fn check_selector(schema: &'static Schema, selector: Option<&v1::Selector>) -> Result<(), Invalid> {
    let has_labels = schema.iter().any(|field| field.holds == FieldType::Labels);
    if selector.is_some() && !has_labels {
        let problem = format!("is not offered: {} has no labels", schema.kind);
        return Err(Invalid::new("selector", problem));
    }
    Ok(())
}

/// What is said of a kind that there is not.
pub(super) fn unknown(name: &str) -> Invalid {
    let known = SERVED
        .into_iter()
        .chain(KINDS.iter().map(|kind| kind.name()));
    if name.is_empty() {
        let known: Vec<&str> = known.collect();
        return Invalid::new(
            "kind",
            format!("is missing: there are `{}`", known.join("`, `")),
        );
    }
    let shown: String = name.chars().take(60).collect();
    Invalid::new(
        "kind",
        format!("cannot be `{shown}`: {}", nearest(name, known)),
    )
}

/// What is said when no name is given.
pub(super) fn nothing_named() -> Invalid {
    Invalid::new("name", "is missing")
}
