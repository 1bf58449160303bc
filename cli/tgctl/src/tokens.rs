//! `tgctl tokens`: what services join with.

use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table, client::Client, output, resource, rpc, when,
};
use tidegate_proto::v1::{self, CreateTokenRequest, DeleteTokenRequest, ListTokensRequest};

use crate::{args::TokensAddArgs, users::duration};

/// A new token; the secret is here and nowhere else.
#[derive(Serialize)]
struct Added {
    token: String,
    id: String,
    types: Vec<String>,
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
    };
    let created = rpc::call("create a join token", client.access().create_token(request)).await?;
    let token = resource::Token::from(&created.token.unwrap_or_default());
    let added = Added {
        token: created.secret,
        id: token.metadata.name,
        types: token.spec.types,
        expires: token.metadata.expires,
    };
    Output::new(args.format).value(&added, || format!("{}\n", added.token))?;
    if args.format == Format::Text && output::for_a_person() {
        let until = added.expires.map(when::utc).unwrap_or_default();
        output::remark(&format!(
            "Join token for {}, good until {until}. It is shown only now; `tgctl tokens rm {}` takes it back.",
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
    let mut table = Table::new(["Token", "Type", "Expiry Time (UTC)"]);
    for token in tokens {
        let expires = token.metadata.expires.map_or("never".to_owned(), when::utc);
        table.row([
            token.metadata.name.as_str(),
            &token.spec.types.join(","),
            &expires,
        ]);
    }
    table
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
