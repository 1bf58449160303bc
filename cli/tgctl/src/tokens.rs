//! `tgctl tokens`: what services join with.

use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table, client::Client, output, resource, rpc, table::visible, when,
};
use tidegate_proto::v1::{
    self, CreateTokenRequest, DeleteTokenRequest, ListTokensRequest, UpsertTokenRequest,
};

use crate::{args::TokensAddArgs, users::duration};

/// A new token; the secret is here and nowhere else.
#[derive(Serialize)]
struct Added {
    token: String,
    id: String,
    types: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<jiff::Timestamp>,
}

pub(crate) async fn add(client: &Client, args: TokensAddArgs) -> Result<(), Failure> {
    let request = CreateTokenRequest {
        types: args
            .types
            .iter()
            .map(|kind| kind.trim().to_ascii_lowercase())
            .collect(),
        ttl: args.ttl.map(duration),
        max_uses: u32::from(args.single_use),
        value: args.value.unwrap_or_default(),
    };
    let created = rpc::call("create a join token", client.access().create_token(request)).await?;
    let made = created.token.unwrap_or_default();
    let token = resource::Token::from(&made);
    let added = Added {
        token: created.secret,
        id: token.metadata.name,
        types: made.types,
        max_uses: token.spec.max_uses,
        expires: token.metadata.expires,
    };
    Output::new(args.format).value(&added, || format!("{}\n", added.token))?;
    if args.format == Format::Text && output::for_a_person() {
        let until = added.expires.map(when::utc).unwrap_or_default();
        let hosts = match added.max_uses {
            Some(1) => "for one host, ",
            _ => "",
        };
        output::remark(&format!(
            "Join token for {}, {hosts}good until {until}. It is shown only now; `tgctl tokens rm {}` takes it back.",
            added.types.join(", "),
            added.id,
        ));
    }
    Ok(())
}

pub(crate) async fn ls(client: &Client, format: Format) -> Result<(), Failure> {
    let tokens = list(client).await?;
    Output::new(format).list(&tokens, || table(&tokens))
}

pub(crate) async fn list(client: &Client) -> Result<Vec<resource::Token>, Failure> {
    let listed = rpc::call(
        "list join tokens",
        client.access().list_tokens(ListTokensRequest {}),
    )
    .await?;
    Ok(listed.tokens.iter().map(resource::Token::from).collect())
}

pub(crate) fn table(tokens: &[resource::Token]) -> Table {
    let mut table = Table::new(["Token", "Type", "Method", "Uses", "Expiry Time (UTC)"]);
    for token in tokens {
        let expires = token.metadata.expires.map_or("never".to_owned(), when::utc);
        table.row([
            token.metadata.name.as_str(),
            &token.spec.roles.join(","),
            &token.spec.join_method,
            &uses(token),
            &expires,
        ]);
    }
    table
}

/// `0 of 1`, `3`, or nothing where they are not counted.
fn uses(token: &resource::Token) -> String {
    let status = token.status.as_ref();
    let counted = status.and_then(|status| status.uses);
    match (counted, token.spec.max_uses) {
        (Some(uses), Some(max)) => format!("{uses} of {max}"),
        (Some(uses), None) => uses.to_string(),
        (None, _) => String::new(),
    }
}

/// Creates a token that a file asks for.
pub(crate) async fn create(
    client: &Client,
    mut request: UpsertTokenRequest,
    replace: bool,
) -> Result<(), Failure> {
    request.replace = replace;
    let made = client.joining().upsert_token(request).await;
    let made = match made {
        Ok(made) => made.into_inner(),
        Err(status) => {
            let failure = rpc::failure("create the join token", &status);
            return Err(crate::create::exists_hint(failure, status.code()));
        }
    };
    let token = resource::Token::from(&made);
    let until = token.metadata.expires.map_or(String::new(), |end| {
        format!(", good until {}", when::utc(end))
    });
    output::print(&format!(
        "Join token \"{}\" has been created: for {} by method {}{until}.\n",
        visible(&token.metadata.name),
        made.types.join(", "),
        token.spec.join_method,
    ))
}

pub(crate) async fn rm(client: &Client, token: &str) -> Result<(), Failure> {
    let request = DeleteTokenRequest {
        token: token.to_owned(),
    };
    let _: v1::DeleteTokenResponse = rpc::call(
        "remove the join token",
        client.access().delete_token(request),
    )
    .await?;
    output::print("The join token has been removed.\n")
}
