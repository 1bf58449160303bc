//! Tokens as resources, and tokens for few hosts.

use std::time::Duration;

use tidegate_identity::KeyPair;
use tidegate_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::iam::iam_token;
use crate::house::{House, code};

const SECRET: &str = "0123456789abcdef";

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

fn request(token: &str, key: &KeyPair) -> v1::JoinRequest {
    v1::JoinRequest {
        token: token.to_owned(),
        public_key: key.public_key_der(),
        hostname: "node".to_owned(),
        services: vec!["db".to_owned()],
        names: Vec::new(),
        host_id: String::new(),
    }
}

async fn single_use(house: &House) -> String {
    let request = v1::CreateTokenRequest {
        types: vec!["db".to_owned()],
        max_uses: 1,
        ..v1::CreateTokenRequest::default()
    };
    let created = house.admin().access().create_token(request).await;
    created.unwrap().into_inner().secret
}

async fn join(house: &House, token: &str, key: &KeyPair) -> Result<v1::JoinResponse, Status> {
    let mut trust = house.stranger().trust();
    let joined = trust.join(request(token, key)).await?;
    Ok(joined.into_inner())
}

async fn upsert(
    house: &House,
    name: &str,
    token: v1::Token,
    replace: bool,
) -> Result<v1::Token, Status> {
    let request = v1::UpsertTokenRequest {
        token: Some(token),
        name: name.to_owned(),
        replace,
    };
    let made = house.admin().joining().upsert_token(request).await?;
    Ok(made.into_inner())
}

#[tokio::test]
async fn of_many_hosts_at_once_one_joins_with_a_token_for_one() {
    let house = House::new().await;
    let token = single_use(&house).await;
    let keys: Vec<KeyPair> = (0..8).map(|_| KeyPair::generate().unwrap()).collect();
    let all = keys.iter().map(|key| join(&house, &token, key));
    let outcomes = futures::future::join_all(all).await;
    let refused: Vec<&Status> = outcomes
        .iter()
        .filter_map(|joined| joined.as_ref().err())
        .collect();
    assert_eq!(refused.len(), 7);
    for status in refused {
        assert_eq!(
            (status.code(), reason(status).as_str()),
            (Code::PermissionDenied, "TOKEN_USED")
        );
    }
}

#[tokio::test]
async fn who_lost_the_answer_is_answered_again_for_a_while() {
    let house = House::new().await;
    let token = single_use(&house).await;
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let first = join(&house, &token, &key).await.unwrap();
    house.clock.advance(Duration::from_secs(60));
    let again = join(&house, &token, &key).await.unwrap();
    assert_eq!(again.host_id, first.host_id);
    let thief = join(&house, &token, &other).await.unwrap_err();
    assert_eq!(reason(&thief), "TOKEN_USED");
    house.clock.advance(Duration::from_secs(600));
    let late = join(&house, &token, &key).await.unwrap_err();
    assert!(late.message().contains("used up"), "{}", late.message());
}

#[tokio::test]
async fn what_cannot_be_fulfilled_costs_no_use() {
    let house = House::new().await;
    let token = single_use(&house).await;
    let key = KeyPair::generate().unwrap();
    let mut wrong = request(&token, &key);
    wrong.public_key = vec![1, 2, 3];
    assert_eq!(
        code(house.stranger().trust().join(wrong).await),
        Code::InvalidArgument
    );
    assert!(house.join(&token, &["proxy"], "").await.is_err());
    assert!(join(&house, &token, &key).await.is_ok());
}

#[tokio::test]
async fn a_secret_that_was_chosen_opens_and_is_never_told() {
    let house = House::new().await;
    let token = v1::Token {
        types: vec!["Db".to_owned()],
        max_uses: 2,
        ..v1::Token::default()
    };
    let made = upsert(&house, SECRET, token.clone(), false).await.unwrap();
    assert!(!format!("{made:?}").contains(SECRET));
    assert_eq!((made.id.len(), made.join_method.as_str()), (8, "token"));
    let key = KeyPair::generate().unwrap();
    join(&house, SECRET, &key).await.unwrap();
    let twice = upsert(&house, SECRET, token.clone(), false)
        .await
        .unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists);
    assert!(!twice.message().contains(SECRET), "{}", twice.message());

    let replaced = upsert(&house, SECRET, token.clone(), true).await.unwrap();
    assert_eq!((replaced.uses, replaced.max_uses), (1, 2));
    let short = upsert(&house, &made.id, token, false).await.unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_revision_that_is_not_the_stored_one_replaces_nothing() {
    let house = House::new().await;
    let rules = [("111122223333", "")];
    let made = upsert(&house, "agents", iam_token(&rules), false)
        .await
        .unwrap();
    let at = |revision| v1::Token {
        revision,
        ..iam_token(&rules)
    };
    let stale = upsert(&house, "agents", at(made.revision + 1), true).await;
    assert_eq!(code(stale), Code::Aborted);
    let changed = upsert(&house, "agents", at(made.revision), true)
        .await
        .unwrap();
    assert!(changed.revision > made.revision);
    assert_eq!(changed.created_at, made.created_at);
    let gone = upsert(&house, "others", at(1), true).await;
    assert_eq!(code(gone), Code::Aborted);
}

#[tokio::test]
async fn what_becomes_of_a_token_is_told() {
    let house = House::new().await;
    upsert(&house, "agents", iam_token(&[("111122223333", "")]), false)
        .await
        .unwrap();
    upsert(&house, "agents", iam_token(&[("444455556666", "")]), true)
        .await
        .unwrap();
    let mut access = house.admin().access();
    let request = v1::DeleteTokenRequest {
        token: "agents".to_owned(),
    };
    access.delete_token(request).await.unwrap();
    for (event, code) in [
        ("join_token.create", "TJT00I"),
        ("join_token.update", "TJT02I"),
        ("join_token.delete", "TJT01I"),
    ] {
        let told = super::told(&house, event, 1).await;
        assert_eq!(told[0].code, code);
        assert_eq!(told[0].fields["name"], "agents");
    }
}

#[tokio::test]
async fn a_token_with_an_end_goes_and_keeps_its_end_when_it_is_used() {
    let house = House::new().await;
    let token = single_use(&house).await;
    let key = KeyPair::generate().unwrap();
    join(&house, &token, &key).await.unwrap();
    house.clock.advance(Duration::from_secs(3601));
    let late = join(&house, &token, &key).await.unwrap_err();
    assert_eq!(late.code(), Code::Unauthenticated);
    let listed = house
        .admin()
        .access()
        .list_tokens(v1::ListTokensRequest {})
        .await;
    let listed = listed.unwrap().into_inner().tokens;
    assert!(listed.iter().all(|token| token.is_static), "{listed:?}");
}
