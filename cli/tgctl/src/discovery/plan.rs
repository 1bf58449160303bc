//! `tgctl discovery plan`: what a configuration would change, before anybody puts it into force.
//!
//! The configuration is read ([`wanted`]) and expanded to scopes, which see AWS or the inventory ([`look`]); the
//! control plane says what would become of the databases ([`ask`]).

mod ask;
mod look;
mod wanted;

use tidegate_console::{
    Failure, Format, Output,
    client::Client,
    discovery::{
        Scope,
        plan::{DiscoveryPlan, Scopes, Summary, text},
        scopes,
    },
    output,
};

use crate::args::{FailOn, PlanArgs};
use look::Looked;
use wanted::Wanted;

pub(crate) async fn plan(client: &Client, args: PlanArgs) -> Result<(), Failure> {
    let wanted = wanted::read(&args)?;
    if wanted.group.is_empty() {
        output::remark(
            "The file names no `discovery_group`: it is planned as if it were that of the only worker without one.",
        );
    }
    let stored = super::statuses(client).await?;
    let looked = if args.live {
        look::live(&wanted, &stored).await?
    } else {
        look::recorded(&wanted, &stored)?
    };
    let file = match args.file.to_string_lossy() {
        name if name == "-" => "standard input".to_owned(),
        name => name.into_owned(),
    };
    let (plan, scopes) = make(client, wanted, looked, &scopes(stored), args.verbose).await?;
    match args.format {
        Format::Text => output::print(&text(&plan, &file, &scopes))?,
        Format::Json | Format::Yaml => Output::new(args.format).value(&plan, String::new)?,
    }
    verdict(&plan.summary, args.fail_on)
}

async fn make(
    client: &Client,
    wanted: Wanted,
    looked: Looked,
    stored: &[Scope],
    verbose: bool,
) -> Result<(DiscoveryPlan, Scopes), Failure> {
    let config = wanted.config.unwrap_or_default();
    let planned: Vec<Scope> = looked.scopes();
    let unjudged = looked.unknown_accounts(&planned);
    let scopes = Scopes::new(&wanted.group, &config, planned, stored);
    let source = looked.source;
    let answer = ask::ask(
        client,
        &wanted.group,
        &config,
        &looked.planned,
        source,
        &scopes,
    )
    .await?;
    let mut unseen = looked.unseen;
    if answer.summary.partial_scopes > 0 {
        unseen.extend(unjudged);
    }
    let complete = unseen.is_empty() && answer.summary.partial_scopes == 0;
    let plan = DiscoveryPlan {
        group: wanted.group,
        config,
        source,
        changes: answer.changes,
        kept: if verbose { answer.kept } else { Vec::new() },
        summary: Summary::of(&answer.summary, complete),
        unseen,
        left_out: looked.left_out,
    };
    Ok((plan, scopes))
}

/// Whether the plan is one that must not be.
fn verdict(summary: &Summary, fail_on: Option<FailOn>) -> Result<(), Failure> {
    let strikes = match fail_on {
        None => return Ok(()),
        Some(FailOn::Change) => summary.changes_something(),
        Some(FailOn::Remove) => summary.removed > 0,
    };
    if strikes {
        Err(Failure::unwell())
    } else if summary.complete {
        Ok(())
    } else {
        Err(Failure::incomplete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_comes_before_what_was_not_seen() {
        let code = |summary: Summary, fail_on| match verdict(&summary, fail_on) {
            Ok(()) => 0,
            Err(failure) => failure.exit().code(),
        };
        let quiet = Summary {
            complete: true,
            ..Summary::default()
        };
        let adds = Summary { added: 1, ..quiet };
        let removes = Summary {
            removed: 1,
            complete: false,
            ..quiet
        };
        let unseen = Summary {
            complete: false,
            ..quiet
        };
        for (summary, on_change, on_remove) in
            [(quiet, 0, 0), (adds, 3, 0), (removes, 3, 3), (unseen, 4, 4)]
        {
            assert_eq!(code(summary, None), 0);
            assert_eq!(code(summary, Some(FailOn::Change)), on_change);
            assert_eq!(code(summary, Some(FailOn::Remove)), on_remove);
        }
    }
}
