use super::*;

const SECRET: &[u8] = b"12345678901234567890";
/// Shown by that secret at the 59th second.
const CODE: &str = "287082";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn factor(name: &str, secret: &[u8]) -> FactorRecord {
    FactorRecord {
        name: name.to_owned(),
        secret: secret.to_vec(),
        last_step: 0,
        created_at: None,
        last_used_at: None,
    }
}

fn with(factors: Vec<FactorRecord>) -> FactorsRecord {
    FactorsRecord {
        factors,
        pending: None,
    }
}

fn begun() -> FactorsRecord {
    FactorsRecord {
        factors: Vec::new(),
        pending: Some(PendingRecord {
            enrolment_digest: "digest".to_owned(),
            factor: Some(factor("phone", SECRET)),
            expires_at: Some(convert::timestamp(at(600))),
        }),
    }
}

fn judged(record: &FactorsRecord, asked: SecondFactor, code: &str) -> Judged {
    judge(record, asked, code, None, at(59))
}

#[test]
fn who_has_none_needs_one_only_where_everybody_does() {
    let none = with(Vec::new());
    for (asked, expected) in [
        (SecondFactor::Off, Judged::NotAsked),
        (SecondFactor::Optional, Judged::NotAsked),
        (SecondFactor::On, Judged::Missing),
    ] {
        assert_eq!(judged(&none, asked, ""), expected, "{asked:?}");
    }
}

#[test]
fn who_has_one_gives_its_code_wherever_they_are_not_off() {
    let one = with(vec![factor("phone", SECRET)]);
    assert_eq!(judged(&one, SecondFactor::Off, ""), Judged::NotAsked);
    for asked in [SecondFactor::Optional, SecondFactor::On] {
        assert_eq!(judged(&one, asked, ""), Judged::Wrong);
        assert_eq!(judged(&one, asked, "000000"), Judged::Wrong);
        assert!(matches!(judged(&one, asked, CODE), Judged::Right(_)));
    }
}

#[test]
fn any_of_several_will_do_and_a_code_is_used_up_by_what_is_stored() {
    let two = with(vec![
        factor("old", b"another secret of it"),
        factor("phone", SECRET),
    ]);
    let Judged::Right(used) = judged(&two, SecondFactor::On, CODE) else {
        panic!("the second one shows it")
    };
    assert_eq!(used.factors[0].last_step, 0);
    assert_eq!(used.factors[1].last_step, 1);
    assert!(used.factors[1].last_used_at.is_some());
    assert_eq!(judged(&used, SecondFactor::On, CODE), Judged::Wrong);
}

#[test]
fn one_that_was_begun_counts_for_nothing_until_it_is_confirmed() {
    let record = begun();
    assert_eq!(
        judged(&record, SecondFactor::Optional, ""),
        Judged::NotAsked
    );
    assert_eq!(judged(&record, SecondFactor::On, CODE), Judged::Missing);
    let confirm =
        |digest, code, second| judge(&record, SecondFactor::On, code, Some(digest), at(second));
    assert_eq!(confirm("other", CODE, 59), Judged::Wrong);
    assert_eq!(confirm("digest", "000000", 59), Judged::Wrong);
    let Judged::RightAndConfirms(stored) = confirm("digest", CODE, 59) else {
        panic!("it is the code of the one that was begun")
    };
    assert_eq!(stored.pending, None);
    assert_eq!(stored.factors[0].name, "phone");
    // The code that confirmed it opens nothing else.
    assert_eq!(judged(&stored, SecondFactor::On, CODE), Judged::Wrong);
}

#[test]
fn one_that_was_begun_too_long_ago_confirms_nothing() {
    let record = begun();
    assert!(pending(&record, "digest", at(599)).is_some());
    assert!(pending(&record, "digest", at(600)).is_none());
}

#[test]
fn who_has_one_cannot_log_in_by_confirming_another() {
    let mut record = begun();
    record.factors.push(factor("old", b"another secret of it"));
    let judged = judge(&record, SecondFactor::On, CODE, Some("digest"), at(59));
    assert_eq!(judged, Judged::Wrong);
}

#[test]
fn names_are_unique_and_given_when_none_is_asked_for() {
    let two = with(vec![factor("app", SECRET), factor("app-2", SECRET)]);
    assert_eq!(free_name(&two, "").unwrap(), "app-3");
    assert_eq!(free_name(&two, "phone").unwrap(), "phone");
    assert!(matches!(
        free_name(&two, "app"),
        Err(AccessError::Exists { .. })
    ));
    let full = with(vec![factor("x", SECRET); FACTORS_MAX]);
    assert!(free_name(&full, "").is_err());
}
