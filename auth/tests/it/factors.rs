//! Second factors, seen from outside: added, used once, taken away.

use std::time::Duration;

use tidegate_identity::KeyPair;
use tidegate_proto::v1;
use tidegate_service::{clock::Clock as _, settings::SecondFactor};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use totp_rs::{Builder, Secret};

use crate::house::{House, Identity, PASSWORD, code};

/// How long an event may take to be listed.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// What an app shows, some seconds from now.
fn shown(house: &House, secret: &str, seconds: i64) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let app = Builder::new().with_secret(secret).build().unwrap();
    let at = house.clock.now().as_second() + seconds;
    app.generate(u64::try_from(at).unwrap()).to_string()
}

fn proof(otp: &str) -> v1::Proof {
    v1::Proof {
        user: "alice".to_owned(),
        password: PASSWORD.to_owned(),
        otp: otp.to_owned(),
    }
}

async fn login(house: &House, otp: &str, enrolment: &str) -> Result<Identity, Status> {
    login_with(house, PASSWORD, otp, enrolment).await
}

async fn login_with(
    house: &House,
    password: &str,
    otp: &str,
    enrolment: &str,
) -> Result<Identity, Status> {
    let key = KeyPair::generate().unwrap();
    let request = v1::LoginRequest {
        user: "alice".to_owned(),
        password: password.to_owned(),
        public_key: key.public_key_der(),
        otp: otp.to_owned(),
        enrolment: enrolment.to_owned(),
        ..v1::LoginRequest::default()
    };
    let answer = house.stranger().session().login(request).await?;
    Ok(Identity {
        key,
        chain_pem: answer.into_inner().certificate_pem,
        host_id: String::new(),
    })
}

async fn begin(house: &House, otp: &str, name: &str) -> Result<v1::BeginFactorResponse, Status> {
    let request = v1::BeginFactorRequest {
        proof: Some(proof(otp)),
        name: name.to_owned(),
    };
    let begun = house.stranger().people().begin_factor(request).await?;
    Ok(begun.into_inner())
}

async fn confirm(house: &House, enrolment: &str, otp: &str) -> Result<v1::Factor, Status> {
    let request = v1::ConfirmFactorRequest {
        user: "alice".to_owned(),
        enrolment: enrolment.to_owned(),
        otp: otp.to_owned(),
    };
    let confirmed = house.stranger().people().confirm_factor(request).await?;
    Ok(confirmed.into_inner())
}

/// Alice, who signed up, where second factors are asked for like this.
async fn with_alice(second_factor: SecondFactor) -> House {
    let house = House::with_second_factor(second_factor).await;
    let request = v1::SignUpRequest {
        token: house.add_user("alice", &["access"]).await,
        password: PASSWORD.to_owned(),
    };
    house.stranger().session().sign_up(request).await.unwrap();
    house
}

/// Alice with a second factor, whose code of now was used.
async fn with_a_factor(second_factor: SecondFactor) -> (House, String) {
    let house = with_alice(second_factor).await;
    let begun = begin(&house, "", "phone").await.unwrap();
    let code = shown(&house, &begun.secret, 0);
    confirm(&house, &begun.enrolment, &code).await.unwrap();
    (house, begun.secret)
}

async fn users(house: &House) -> Vec<v1::User> {
    let mut access = house.admin().access();
    let listed = access.list_users(v1::ListUsersRequest {}).await.unwrap();
    listed.into_inner().users
}

/// The first event of a kind, once it is told.
async fn event(house: &House, event: &str) -> v1::AuditEvent {
    let request = v1::ListEventsRequest {
        event: event.to_owned(),
        ..v1::ListEventsRequest::default()
    };
    let told = timeout(TOLD_WITHIN, async {
        loop {
            let listed = house.admin().audit().list_events(request.clone()).await;
            match listed.unwrap().into_inner().events.into_iter().next() {
                Some(event) => return event,
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    });
    told.await.unwrap_or_else(|_| panic!("no event {event}"))
}

#[tokio::test]
async fn where_everybody_needs_one_the_first_login_adds_it_and_its_code_opens_nothing_else() {
    let house = with_alice(SecondFactor::On).await;
    let needed = login(&house, "", "").await.err().unwrap();
    assert_eq!(needed.code(), Code::FailedPrecondition);
    assert_eq!(reason(&needed), "SECOND_FACTOR_NEEDED");

    let begun = begin(&house, "", "").await.unwrap();
    assert_eq!(begun.name, "app");
    assert!(begun.otpauth_url.starts_with("otpauth://totp/"));
    let wrong = login(&house, "000000", &begun.enrolment).await;
    assert_eq!(wrong.err().unwrap().code(), Code::Unauthenticated);
    let code = shown(&house, &begun.secret, 0);
    assert!(login(&house, &code, &begun.enrolment).await.is_ok());
    assert_eq!(users(&house).await[0].second_factors, 1);

    for enrolment in ["", &begun.enrolment] {
        let again = login(&house, &code, enrolment).await.err().unwrap();
        assert_eq!(reason(&again), "UNPROVEN");
    }
    house.clock.advance(Duration::from_secs(30));
    let next = shown(&house, &begun.secret, 0);
    let alice = login(&house, &next, "").await.unwrap();
    let listed = house
        .known(&alice)
        .people()
        .list_own_factors(v1::ListOwnFactorsRequest {})
        .await;
    let factors = listed.unwrap().into_inner().factors;
    assert_eq!(factors.len(), 1);
    assert!(factors[0].last_used_at.is_some());
    let told = event(&house, "mfa.add").await;
    assert_eq!(
        (told.code.as_str(), told.user.as_str()),
        ("T1006I", "alice")
    );
}

#[tokio::test]
async fn one_that_was_begun_and_forgotten_changes_nothing() {
    let house = with_alice(SecondFactor::Optional).await;
    let first = begin(&house, "", "").await.unwrap();
    assert!(login(&house, "", "").await.is_ok());
    assert_eq!(users(&house).await[0].second_factors, 0);
    // Another one takes its place.
    let second = begin(&house, "", "").await.unwrap();
    let code = shown(&house, &first.secret, 0);
    let replaced = confirm(&house, &first.enrolment, &code).await;
    assert_eq!(replaced.unwrap_err().code(), Code::Unauthenticated);
    house.clock.advance(Duration::from_secs(601));
    let code = shown(&house, &second.secret, 0);
    let late = confirm(&house, &second.enrolment, &code).await;
    assert_eq!(late.unwrap_err().code(), Code::Unauthenticated);
    assert!(login(&house, "", "").await.is_ok());
}

#[tokio::test]
async fn a_code_counts_one_step_early_and_late_and_no_further() {
    let (house, secret) = with_a_factor(SecondFactor::Optional).await;
    house.clock.advance(Duration::from_secs(120));
    for seconds in [-60, 60] {
        let otp = shown(&house, &secret, seconds);
        let refused = login(&house, &otp, "").await.err().unwrap();
        assert_eq!(reason(&refused), "UNPROVEN", "{seconds}");
    }
    for seconds in [-30, 0, 30] {
        let otp = shown(&house, &secret, seconds);
        assert!(login(&house, &otp, "").await.is_ok(), "{seconds}");
    }
}

#[tokio::test]
async fn two_logins_at_once_with_one_code_are_one() {
    let (house, secret) = with_a_factor(SecondFactor::Optional).await;
    house.clock.advance(Duration::from_secs(30));
    let otp = shown(&house, &secret, 0);
    let (one, other) = tokio::join!(login(&house, &otp, ""), login(&house, &otp, ""));
    let refused = match (one, other) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        (Ok(_), Ok(_)) => panic!("a code counted twice"),
        (Err(one), Err(other)) => panic!("a code counted never: {one} {other}"),
    };
    assert_eq!(reason(&refused), "UNPROVEN");
}

#[tokio::test]
async fn a_wrong_code_a_wrong_password_and_an_unknown_name_are_told_alike_and_counted_alike() {
    let (house, secret) = with_a_factor(SecondFactor::Optional).await;
    house.clock.advance(Duration::from_secs(30));
    let right = shown(&house, &secret, 0);
    let no_code = login(&house, "", "").await.err().unwrap();
    let wrong_code = login(&house, "000000", "").await.err().unwrap();
    let wrong_password = login_with(&house, "wrong password", &right, "").await;
    let wrong_password = wrong_password.err().unwrap();
    let unknown = house.login("nobody", PASSWORD).await.err().unwrap();
    for refused in [&wrong_code, &wrong_password, &unknown] {
        assert_eq!(refused.code(), no_code.code());
        assert_eq!(refused.message(), no_code.message());
        assert_eq!(reason(refused), reason(&no_code));
    }
    for _ in 0..2 {
        assert!(login(&house, "000000", "").await.is_err());
    }
    let waiting = login(&house, &right, "").await.err().unwrap();
    assert_eq!(reason(&waiting), "LOCKED_OUT");
    assert_eq!(event(&house, "user.locked_out").await.user, "alice");
    assert!(users(&house).await[0].locked_out_until.is_some());

    let unlock = v1::UnlockUserRequest {
        user: "alice".to_owned(),
    };
    let mut people = house.admin().people();
    let unlocked = people.unlock_user(unlock).await.unwrap().into_inner();
    assert!(unlocked.was_locked_out);
    assert!(login(&house, &right, "").await.is_ok());
    assert_eq!(users(&house).await[0].locked_out_until, None);
}

#[tokio::test]
async fn a_lock_out_outlives_a_restart() {
    let house = with_alice(SecondFactor::Optional).await;
    for _ in 0..6 {
        assert!(login_with(&house, "wrong password", "", "").await.is_err());
        house.clock.advance(Duration::from_secs(1));
    }
    let house = house.restart().await;
    let waiting = login(&house, "", "").await.err().unwrap();
    assert_eq!(reason(&waiting), "LOCKED_OUT");
    house.clock.advance(Duration::from_secs(60));
    assert!(login(&house, "", "").await.is_ok());
}

#[tokio::test]
async fn the_last_one_stays_where_everybody_needs_one() {
    let (house, secret) = with_a_factor(SecondFactor::On).await;
    let remove = |otp: &str, name: &str| v1::RemoveFactorRequest {
        proof: Some(proof(otp)),
        name: name.to_owned(),
    };
    let mut people = house.stranger().people();
    house.clock.advance(Duration::from_secs(30));
    let last = people.remove_factor(remove(&shown(&house, &secret, 0), "phone"));
    assert_eq!(reason(&last.await.unwrap_err()), "LAST_FACTOR");
    house.clock.advance(Duration::from_secs(30));
    let second = begin(&house, &shown(&house, &secret, 0), "tablet").await;
    let second = second.unwrap();
    let code = shown(&house, &second.secret, 0);
    confirm(&house, &second.enrolment, &code).await.unwrap();
    house.clock.advance(Duration::from_secs(30));
    let otp = shown(&house, &second.secret, 0);
    people.remove_factor(remove(&otp, "phone")).await.unwrap();
    assert_eq!(event(&house, "mfa.delete").await.code, "T1007I");
    house.clock.advance(Duration::from_secs(30));
    assert!(login(&house, &shown(&house, &secret, 0), "").await.is_err());
    let otp = shown(&house, &second.secret, 0);
    assert!(login(&house, &otp, "").await.is_ok());
}

#[tokio::test]
async fn an_administrator_takes_second_factors_away_and_password_and_logins_stay() {
    let (house, secret) = with_a_factor(SecondFactor::Optional).await;
    house.clock.advance(Duration::from_secs(30));
    let otp = shown(&house, &secret, 0);
    let caller = house.known(&login(&house, &otp, "").await.unwrap());
    let reset = v1::ResetFactorsRequest {
        user: "alice".to_owned(),
    };
    let refused = caller.people().reset_factors(reset.clone()).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    let mut people = house.admin().people();
    let user = people.reset_factors(reset).await.unwrap().into_inner();
    assert_eq!(user.second_factors, 0);
    assert!(login(&house, "", "").await.is_ok());
    assert!(caller.database_names().await.is_empty());
}

#[tokio::test]
async fn codes_are_not_looked_at_where_second_factors_are_off() {
    let house = with_alice(SecondFactor::Off).await;
    let refused = begin(&house, "", "").await.unwrap_err();
    assert_eq!(reason(&refused), "SECOND_FACTOR_OFF");
    assert!(login(&house, "", "").await.is_ok());
    let wrong = login_with(&house, "wrong password", "", "").await;
    assert_eq!(
        wrong.err().unwrap().message(),
        "wrong user name or password"
    );
}

#[tokio::test]
async fn a_password_is_changed_by_the_old_one_and_a_code_and_rules_are_named() {
    let (house, secret) = with_a_factor(SecondFactor::Optional).await;
    house.clock.advance(Duration::from_secs(30));
    let change = |otp: &str, new: &str| v1::ChangePasswordRequest {
        proof: Some(proof(otp)),
        new_password: new.to_owned(),
    };
    let mut people = house.stranger().people();
    for (new, rule) in [
        ("short", "at least 12 characters"),
        ("alice in wonderland", "user name"),
        ("password123456", "too common"),
        (PASSWORD, "is the one that you have"),
    ] {
        let refused = people.change_password(change("", new)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(rule), "{}", refused.message());
    }
    let new = "seven tall green trees";
    let no_code = people.change_password(change("", new)).await.unwrap_err();
    assert_eq!(reason(&no_code), "UNPROVEN");
    let otp = shown(&house, &secret, 0);
    people.change_password(change(&otp, new)).await.unwrap();
    assert_eq!(event(&house, "user.password_change").await.code, "T1005I");
    house.clock.advance(Duration::from_secs(30));
    let otp = shown(&house, &secret, 0);
    assert!(login(&house, &otp, "").await.is_err());
    assert!(login_with(&house, new, &otp, "").await.is_ok());
}
