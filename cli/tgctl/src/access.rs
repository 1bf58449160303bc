//! `tgctl access`: why somebody may or may not use a database.

use serde::Serialize;
use serde_json::Value;
use tidegate_console::{Failure, Output, client::Client, inventory, resource, rpc, table::visible};
use tidegate_proto::v1::ExplainAccessRequest;

use crate::args::ExplainAccessArgs;

/// A decision, and everything that led to it.
#[derive(Serialize)]
struct Explained {
    allowed: bool,
    /// The lock that strikes, whatever roles allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<resource::Lock>,
    /// The question, the outcome, and what each clause of each role said.
    reason: Value,
}

pub(crate) async fn explain(client: &Client, args: ExplainAccessArgs) -> Result<(), Failure> {
    let database = inventory::find(&mut client.inventory(), &args.db).await?;
    let request = ExplainAccessRequest {
        user: args.user,
        database: database.name,
        db_user: args.db_user,
        db_name: args.db_name,
    };
    let answer = rpc::call(
        "explain the access",
        client.access().explain_access(request),
    )
    .await?;
    let reason = serde_json::from_str(&answer.reason_json).map_err(|error| {
        Failure::new(format!(
            "the auth service's explanation is no JSON: {error}"
        ))
    })?;
    let explained = Explained {
        allowed: answer.allowed,
        lock: answer.lock.as_ref().map(resource::Lock::from),
        reason,
    };
    Output::new(args.format).value(&explained, || {
        let mut text = String::new();
        for line in &answer.lines {
            text.push_str(&visible(line));
            text.push('\n');
        }
        text
    })?;
    if args.check && !explained.allowed {
        return Err(Failure::unwell());
    }
    Ok(())
}
