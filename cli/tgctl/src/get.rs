//! `tgctl get` with a question: which resources of a kind, in which order, or as they change.
//!
//! The auth service answers it ([`tidegate_proto::v1`]'s `ResourceService`), so what may be asked is the same for every
//! kind. Without a question, `tgctl get` of the kinds that files can hold is in [`crate::resources`].

mod shown;

use std::str::FromStr;

use clap::Args;
use tidegate_console::{
    Failure, Format, Output, client::Client, labels, output, rpc, table::visible,
};
use tidegate_core::{Predicate, predicate::reference::KINDS};
use tidegate_proto::v1::{self, watch_resources_response::Event};

use crate::resources::{self, Reference};

/// Asked for at once: with many long labels each, this many still fit into a message.
const PAGE_SIZE: u32 = 250;
/// A listing of more pages than this has no end that anybody waits for.
const PAGES_MAX: usize = 10_000;
/// Kinds that no file holds: they are only ever looked at.
const LOOKED_AT: [(&str, &[&str]); 3] = [
    ("discovery_scope", &["discovery_scopes", "scope", "scopes"]),
    ("instance", &["instances", "agent", "agents"]),
    ("proxy", &["proxies"]),
];

/// What is to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A kind that files can hold.
    Kept(Reference),
    /// A kind that is only looked at, and a name when one of it is meant.
    LookedAt(&'static str, Option<String>),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind.to_ascii_lowercase(), Some(name)),
            None => (text.to_ascii_lowercase(), None),
        };
        let is_it =
            |(word, also): &&(&str, &[&str])| *word == kind || also.contains(&kind.as_str());
        match LOOKED_AT.iter().find(is_it) {
            Some(_) if name == Some("") => Err("a name is missing after the slash".to_owned()),
            Some((word, _)) => Ok(Self::LookedAt(word, name.map(str::to_owned))),
            None => text.parse().map(Self::Kept).map_err(|problem: String| {
                let others: Vec<&str> = LOOKED_AT.iter().map(|(word, _)| *word).collect();
                format!("{problem}; and, to look at, {}", others.join(", "))
            }),
        }
    }
}

/// Which resources, and how.
#[derive(Debug, Default, Args)]
pub(crate) struct QueryArgs {
    /// Only resources for which this predicate holds.
    #[arg(long, value_name = "PREDICATE")]
    query: Option<String>,
    /// Only resources in which all these words occur.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    search: Vec<String>,
    /// Only resources with these labels: `key=value,other=value`. Of databases and database servers.
    #[arg(long, value_name = "LABELS")]
    labels: Option<String>,
    /// Fields to order by, with commas between: `roles,name:desc` [default: by name].
    #[arg(long, value_name = "FIELDS", conflicts_with = "watch")]
    sort: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "COUNT", conflicts_with = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Print what there is, then each change, until interrupted.
    #[arg(short, long)]
    watch: bool,
}

impl QueryArgs {
    const fn asks(&self) -> bool {
        self.query.is_some()
            || !self.search.is_empty()
            || self.labels.is_some()
            || self.sort.is_some()
            || self.limit.is_some()
            || self.watch
    }

    fn filter(&self, kind: &str) -> Result<v1::ResourceFilter, Failure> {
        let filter = self.query.clone().unwrap_or_default();
        check(kind, &filter)?;
        let selector = self.labels.as_deref().map(labels::filter).transpose()?;
        Ok(v1::ResourceFilter {
            kind: kind.to_owned(),
            selector: selector.map(Into::into),
            search: self.search.clone(),
            filter,
        })
    }

    /// As the service takes it: `name desc` for `name:desc`.
    fn order_by(&self) -> String {
        let fields = self.sort.as_deref().unwrap_or_default().split(',');
        let fields = fields.map(|field| match field.rsplit_once(':') {
            Some((field, way @ ("asc" | "desc"))) => format!("{field} {way}"),
            _ => field.to_owned(),
        });
        fields.collect::<Vec<_>>().join(",")
    }
}

/// A predicate that does not parse is told with its place before anything is asked.
fn check(kind: &str, filter: &str) -> Result<(), Failure> {
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    let Some((_, schema)) = known.filter(|_| !filter.trim().is_empty()) else {
        return Ok(());
    };
    let parsed = Predicate::parse_for(schema, filter);
    parsed.map(drop).map_err(|error| {
        let shown = error.with_caret(filter);
        let lines = shown.lines().map(|line| format!("\n  {}", visible(line)));
        let lines: String = lines.collect();
        Failure::usage(format!("the query does not parse:{lines}"))
    })
}

pub(crate) async fn get(
    client: &Client,
    wanted: Wanted,
    args: QueryArgs,
    format: Format,
) -> Result<(), Failure> {
    let (kind, name) = match wanted {
        Wanted::Kept(reference) if !args.asks() => {
            return resources::get(client, reference, format).await;
        }
        Wanted::Kept(Reference { kind, name }) => (kind.word(), name),
        Wanted::LookedAt(kind, name) => (kind, name),
    };
    match name {
        Some(_) if args.asks() => Err(Failure::usage("a name and a question exclude each other")
            .hint("leave the name out, and ask with --query='name == \"…\"'")),
        Some(name) => {
            let found = one(client, kind, name).await?;
            shown::print(vec![found], Output::new(format))
        }
        None if args.watch => watch(client, args.filter(kind)?, format).await,
        None => {
            let found = list(client, kind, &args).await?;
            shown::print(found, Output::new(format))
        }
    }
}

async fn one(client: &Client, kind: &str, name: String) -> Result<v1::Resource, Failure> {
    let request = v1::GetResourceRequest {
        kind: kind.to_owned(),
        name,
        read_mask: None,
    };
    let doing = format!("get the {kind}");
    rpc::call(&doing, client.resources().get_resource(request)).await
}

async fn list(client: &Client, kind: &str, args: &QueryArgs) -> Result<Vec<v1::Resource>, Failure> {
    let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let filter = args.filter(kind)?;
    let mut request = v1::ListResourcesRequest {
        page_size: i32::try_from(args.limit.unwrap_or(PAGE_SIZE).min(PAGE_SIZE))
            .unwrap_or_default(),
        kind: filter.kind,
        selector: filter.selector,
        search: filter.search,
        filter: filter.filter,
        order_by: args.order_by(),
        ..v1::ListResourcesRequest::default()
    };
    let doing = format!("list {kind}");
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = client.resources().list_resources(request.clone()).await;
        let page = rpc::call(&doing, std::future::ready(page)).await?;
        found.extend(page.resources);
        if page.next_page_token.is_empty() || found.len() >= limit {
            found.truncate(limit);
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
    Err(Failure::new(format!(
        "could not list {kind}: more than {PAGES_MAX} pages of {PAGE_SIZE}"
    ))
    .hint("narrow the listing with --query or --search"))
}

/// Prints what there is and each change, until the service or the person ends it.
async fn watch(client: &Client, filter: v1::ResourceFilter, format: Format) -> Result<(), Failure> {
    let doing = format!("watch {}", filter.kind);
    let request = v1::WatchResourcesRequest {
        kinds: vec![filter],
        after_revision: 0,
    };
    let mut events = rpc::call(&doing, client.resources().watch_resources(request)).await?;
    loop {
        let next = events.message().await;
        let next = next.map_err(|status| rpc::failure(&doing, &status))?;
        let Some(v1::WatchResourcesResponse { revision, event }) = next else {
            return Ok(());
        };
        match event {
            Some(Event::Upserted(resource)) => {
                shown::print_event("upserted", revision, resource, format)?
            }
            Some(Event::Deleted(key)) => {
                let resource = v1::Resource {
                    kind: key.kind,
                    name: key.name,
                    ..v1::Resource::default()
                };
                shown::print_event("deleted", revision, resource, format)?;
            }
            Some(Event::Synced(_)) if format == Format::Text => {
                output::remark(&format!(
                    "All of {} up to now; changes follow.",
                    visible(&doing["watch ".len()..])
                ));
            }
            Some(Event::Synced(_) | Event::Bookmark(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_only_looked_at_are_wanted_by_their_names() {
        let wanted = |text: &str| text.parse::<Wanted>();
        assert_eq!(wanted("agents"), Ok(Wanted::LookedAt("instance", None)));
        assert_eq!(
            wanted("proxy/h1"),
            Ok(Wanted::LookedAt("proxy", Some("h1".to_owned())))
        );
        assert!(matches!(wanted("users"), Ok(Wanted::Kept(_))));
        let refused = wanted("node").unwrap_err();
        assert!(refused.contains("instance"), "{refused}");
        assert!(wanted("proxy/").is_err());
    }

    #[test]
    fn a_query_that_does_not_parse_is_shown_with_its_fault() {
        let failure = check("user", "contians(roles, \"x\")").unwrap_err();
        let message = failure.message();
        assert!(message.contains("\n  contians("), "{message}");
        assert!(message.contains("did you mean `contains`"), "{message}");
        assert!(check("user", "!signed_up").is_ok());
    }

    #[test]
    fn a_sort_goes_either_way() {
        let order_by = |sort: &str| {
            let args = QueryArgs {
                sort: Some(sort.to_owned()),
                ..QueryArgs::default()
            };
            args.order_by()
        };
        assert_eq!(order_by("name:desc"), "name desc");
        assert_eq!(order_by("labels.a:b,name:asc"), "labels.a:b,name asc");
        assert_eq!(order_by("labels.env desc"), "labels.env desc");
        assert_eq!(QueryArgs::default().order_by(), "");
    }
}
