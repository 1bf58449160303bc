//! What checks have shown of one database, and what that comes to. Pure.
//!
//! The first result decides at once. After that the status turns when as many results in a row speak against it as the
//! configuration asks for, so that a database that flaps is left alone. A check that got no further than TCP because TLS
//! was not due counts like any other; so that it cannot speak well of a database whose certificate is bad, TLS is part of
//! every check until it has passed after the last failure.
//!
//! What people's sessions saw of the layers above is kept here and told, and turns nothing: a refused login says more
//! of the one who asked than of the database.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_core::{
    HealthLayer, HealthStatus, SessionsSaw, TargetHealth, Uri, health::HealthChecks,
};

/// About how long a certificate that was good is believed before the next handshake. A handshake costs some twenty times
/// what a TCP connect does.
pub(super) const TLS_INTERVAL: Duration = Duration::from_mins(5);

/// Most checks from one with TLS to the next.
const TLS_CHECKS_MAX: u8 = 60;

/// Days to the end of a certificate below which that is said: once at each.
const CERTIFICATE_WARN_DAYS: [i64; 2] = [14, 7];

/// The longest text of an error that is kept.
const ERROR_CHARS_MAX: usize = 512;

/// What is checked: `TCP`, whatever else was looked at beside it.
const PROTOCOL: &str = "TCP";

/// What one check found.
pub(super) type Checked = Result<Passed, Failure>;

/// A check that found nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// TLS was not due.
    Tcp,
    /// With TLS; when the certificate ends, if it says so.
    Tls(Option<Timestamp>),
}

/// The layer at which a check stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) layer: HealthLayer,
    pub(super) error: String,
}

impl Failure {
    pub(super) fn new(layer: HealthLayer, error: impl std::fmt::Display) -> Self {
        let error = error.to_string();
        Self {
            layer,
            error: error.chars().take(ERROR_CHARS_MAX).collect(),
        }
    }
}

/// Why the status is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// No configuration matches.
    Disabled,
    /// There was no result yet.
    Initialized,
    /// Enough results in a row.
    ThresholdReached,
}

/// What one result changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// The status before, when it is another one now.
    pub(super) from: Option<HealthStatus>,
    /// Whether the cluster should hear of it.
    pub(super) is_news: bool,
    /// Days to the end of the certificate, when that has to be said now.
    pub(super) certificate_days: Option<i64>,
}

/// What people's sessions saw of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heard {
    now: Option<SessionsSaw>,
    /// What the cluster was told. It follows at checks, so that sessions in turns cannot make it chatter.
    told: Option<SessionsSaw>,
}

impl Heard {
    fn hear(&mut self, passed: bool, now: Timestamp) {
        if self.now.is_none_or(|saw| saw.passed != passed) {
            self.now = Some(SessionsSaw { passed, since: now });
        }
    }

    fn tell(&mut self) -> bool {
        let passed = |saw: Option<SessionsSaw>| saw.map(|saw| saw.passed);
        let is_news = passed(self.now) != passed(self.told);
        if is_news {
            self.told = self.now;
        }
        is_news
    }
}

/// What checks of one address have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    status: HealthStatus,
    reason: Reason,
    since: Option<Timestamp>,
    /// Results in a row that brought the status.
    brought_by: u32,
    /// Results in a row that speak against the status.
    against: u32,
    /// Boxed since most databases have none.
    failure: Option<Box<Failure>>,
    certificate_not_after: Option<Timestamp>,
    /// How many of [`CERTIFICATE_WARN_DAYS`] were said.
    warned: usize,
    /// Checks that need no TLS before the next that does.
    tcp_checks: u8,
    credential: Heard,
    login: Heard,
}

impl State {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self {
            status: HealthStatus::Unknown,
            reason: Reason::Initialized,
            since: None,
            brought_by: 0,
            against: 0,
            failure: None,
            certificate_not_after: None,
            warned: 0,
            tcp_checks: 0,
            credential: Heard::default(),
            login: Heard::default(),
        }
    }

    /// It is checked no longer; what was known is forgotten, except what sessions saw.
    pub(super) fn disable(&mut self, now: Timestamp) {
        *self = Self {
            reason: Reason::Disabled,
            since: Some(now),
            credential: self.credential,
            login: self.login,
            ..Self::new()
        };
    }

    /// It is checked again.
    pub(super) fn enable(&mut self, now: Timestamp) {
        self.disable(now);
        self.reason = Reason::Initialized;
    }

    pub(super) const fn status(&self) -> HealthStatus {
        self.status
    }

    pub(super) const fn is_disabled(&self) -> bool {
        matches!(self.reason, Reason::Disabled)
    }

    pub(super) const fn certificate_not_after(&self) -> Option<Timestamp> {
        self.certificate_not_after
    }

    /// The failure that made it unhealthy, or a later one at another layer.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    /// Whether the next check goes on to TLS.
    pub(super) const fn is_tls_due(&self) -> bool {
        self.tcp_checks == 0
    }

    /// The next check goes on to TLS.
    pub(super) const fn doubt(&mut self) {
        self.tcp_checks = 0;
    }

    /// What a session saw of a layer above TLS; nothing else is heard.
    pub(super) fn hear(&mut self, layer: HealthLayer, passed: bool, now: Timestamp) {
        match layer {
            HealthLayer::Credential => self.credential.hear(passed, now),
            HealthLayer::Login => self.login.hear(passed, now),
            HealthLayer::Dns | HealthLayer::Tcp | HealthLayer::Tls => {}
        }
    }

    /// Takes one result. `random` is at least 0 and below 1.
    pub(super) fn observe(
        &mut self,
        checked: Checked,
        checks: &HealthChecks,
        random: f64,
        now: Timestamp,
    ) -> Turn {
        let mut turn = Turn {
            is_news: self.credential.tell() | self.login.tell(),
            ..Turn::default()
        };
        self.plan_tls(&checked, checks.interval, random);
        if let Ok(Passed::Tls(not_after)) = &checked {
            turn.is_news |= *not_after != self.certificate_not_after;
            turn.certificate_days = self.take_certificate(*not_after, now);
        }
        let (status, threshold) = match &checked {
            Ok(_) => (HealthStatus::Healthy, checks.healthy_threshold),
            Err(_) => (HealthStatus::Unhealthy, checks.unhealthy_threshold),
        };
        if status == self.status {
            self.against = 0;
            if let (Some(known), Err(failure)) = (&mut self.failure, checked)
                && known.layer != failure.layer
            {
                **known = failure;
                turn.is_news = true;
            }
            return turn;
        }
        self.against = self.against.saturating_add(1);
        if self.status != HealthStatus::Unknown && self.against < threshold {
            return turn;
        }
        turn.from = Some(self.status);
        turn.is_news = true;
        self.status = status;
        self.reason = Reason::ThresholdReached;
        self.since = Some(now);
        self.brought_by = self.against;
        self.against = 0;
        self.failure = checked.err().map(Box::new);
        turn
    }

    /// Decides when TLS is due again. After the first handshake that is drawn evenly from the whole span, so that the
    /// handshakes of many databases that were added together spread out.
    fn plan_tls(&mut self, checked: &Checked, interval: Duration, random: f64) {
        self.tcp_checks = match checked {
            Err(_) => 0,
            Ok(Passed::Tcp) => self.tcp_checks.saturating_sub(1),
            Ok(Passed::Tls(_)) => {
                let span = (TLS_INTERVAL.as_secs_f64() / interval.as_secs_f64())
                    .clamp(1.0, f64::from(TLS_CHECKS_MAX));
                let checks = if self.certificate_not_after.is_none() {
                    span * random
                } else {
                    span - 1.0
                };
                // In bounds by the clamp.
                checks as u8
            }
        };
    }

    fn take_certificate(&mut self, not_after: Option<Timestamp>, now: Timestamp) -> Option<i64> {
        if not_after != self.certificate_not_after {
            self.certificate_not_after = not_after;
            self.warned = 0;
        }
        let days = not_after?.duration_since(now).as_hours().div_euclid(24);
        let due = CERTIFICATE_WARN_DAYS
            .iter()
            .filter(|at| days < **at)
            .count();
        let is_news = due > self.warned;
        self.warned = self.warned.max(due);
        is_news.then_some(days)
    }

    /// As the cluster is told it.
    pub(super) fn told(&self, address: &Uri) -> TargetHealth {
        let plural = |count: u32| if count == 1 { "check" } else { "checks" };
        let count = self.brought_by;
        let message = match (self.reason, self.status) {
            (Reason::Disabled, _) => "no health_check_config matches this database".to_owned(),
            (Reason::Initialized, _) | (_, HealthStatus::Unknown) => "not checked yet".to_owned(),
            (_, HealthStatus::Healthy) => format!("{count} health {} passed", plural(count)),
            (_, HealthStatus::Unhealthy) => format!("{count} health {} failed", plural(count)),
        };
        let reason = match self.reason {
            Reason::Disabled => "disabled",
            Reason::Initialized => "initialized",
            Reason::ThresholdReached => "threshold_reached",
        };
        let failure = self.failure.as_deref();
        TargetHealth {
            address: address.to_string(),
            protocol: PROTOCOL.to_owned(),
            status: self.status,
            transition_timestamp: self.since,
            transition_reason: reason.to_owned(),
            transition_error: failure
                .map(|failure| failure.error.clone())
                .unwrap_or_default(),
            message,
            failed_layer: failure.map(|failure| failure.layer),
            certificate_not_after: self.certificate_not_after,
            credential: self.credential.told,
            login: self.login.told,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn refused() -> Checked {
        Err(Failure::new(HealthLayer::Tcp, "refused"))
    }

    fn in_days(days: i64) -> Checked {
        let hours = SignedDuration::from_hours(days * 24 + 1);
        Ok(Passed::Tls(Some(now() + hours)))
    }

    fn see(state: &mut State, checked: Checked) -> Turn {
        state.observe(checked, &HealthChecks::default(), 0.5, now())
    }

    fn told(state: &State) -> TargetHealth {
        state.told(&"h:1".parse().unwrap())
    }

    #[test]
    fn the_first_result_decides_at_once() {
        let mut state = State::new();
        assert_eq!(told(&state).transition_reason, "initialized");
        assert_eq!(
            see(&mut state, in_days(90)).from,
            Some(HealthStatus::Unknown)
        );
        let told = told(&state);
        assert_eq!(told.status, HealthStatus::Healthy);
        assert_eq!(told.transition_timestamp, Some(now()));
        assert_eq!(told.transition_reason, "threshold_reached");
        assert_eq!(told.message, "1 health check passed");
    }

    #[test]
    fn a_failure_is_told_with_its_layer_until_it_is_over() {
        let mut state = State::new();
        see(&mut state, in_days(90));
        assert_eq!(see(&mut state, refused()).from, Some(HealthStatus::Healthy));
        let bad = told(&state);
        assert_eq!(bad.failed_layer, Some(HealthLayer::Tcp));
        assert_eq!(bad.transition_error, "refused");

        let tls = Err(Failure::new(HealthLayer::Tls, "expired"));
        let turn = see(&mut state, tls);
        assert_eq!((turn.from, turn.is_news), (None, true));
        assert_eq!(told(&state).transition_error, "expired");

        see(&mut state, in_days(90));
        see(&mut state, in_days(90));
        assert_eq!(told(&state).status, HealthStatus::Healthy);
        assert_eq!(told(&state).failed_layer, None);
        assert_eq!(told(&state).transition_error, "");
    }

    #[test]
    fn tls_is_part_of_every_check_until_it_has_passed() {
        let mut state = State::new();
        assert!(state.is_tls_due());
        see(&mut state, in_days(90));
        assert!(!state.is_tls_due());
        see(&mut state, refused());
        assert!(state.is_tls_due());
        see(&mut state, Err(Failure::new(HealthLayer::Tls, "expired")));
        assert!(state.is_tls_due());
        see(&mut state, in_days(90));
        assert!(!state.is_tls_due());
        state.doubt();
        assert!(state.is_tls_due());
    }

    #[test]
    fn a_good_certificate_is_believed_for_about_the_tls_interval() {
        for (interval, checks) in [(5, 60), (30, 10), (3600, 1)] {
            let checks_now = HealthChecks {
                interval: Duration::from_secs(interval),
                ..HealthChecks::default()
            };
            let mut state = State::new();
            state.observe(in_days(90), &checks_now, 0.999, now());
            let mut between = Vec::new();
            for _ in 0..2 {
                let mut count = 1;
                while !state.is_tls_due() {
                    state.observe(Ok(Passed::Tcp), &checks_now, 0.0, now());
                    count += 1;
                }
                state.observe(in_days(90), &checks_now, 0.0, now());
                between.push(count);
            }
            assert_eq!(between, [checks, checks], "every {interval} s");
        }
    }

    #[test]
    fn an_ending_certificate_is_said_once_at_each_bound_and_again_for_the_next_one() {
        let mut state = State::new();
        let mut said = |days| see(&mut state, in_days(days)).certificate_days;
        assert_eq!(said(20), None);
        assert_eq!(said(13), Some(13));
        assert_eq!(said(13), None);
        assert_eq!(said(6), Some(6));
        assert_eq!(said(6), None);
        assert_eq!(said(90), None);
        assert_eq!(said(10), Some(10));
    }

    #[test]
    fn what_sessions_saw_is_told_at_the_next_check_and_turns_nothing() {
        let mut state = State::new();
        see(&mut state, in_days(90));
        state.hear(HealthLayer::Credential, true, now());
        state.hear(HealthLayer::Login, false, now());
        assert_eq!(told(&state).login, None);

        let turn = see(&mut state, Ok(Passed::Tcp));
        assert_eq!((turn.from, turn.is_news), (None, true));
        assert!(!told(&state).login.unwrap().passed);
        assert!(told(&state).credential.unwrap().passed);
        assert_eq!(told(&state).status, HealthStatus::Healthy);

        state.hear(HealthLayer::Login, false, now());
        assert!(!see(&mut state, Ok(Passed::Tcp)).is_news);
    }

    #[test]
    fn a_disabled_database_is_unknown_and_begins_anew() {
        let mut state = State::new();
        see(&mut state, refused());
        state.disable(now());
        let disabled = told(&state);
        assert_eq!(disabled.status, HealthStatus::Unknown);
        assert_eq!(disabled.transition_reason, "disabled");
        assert_eq!(disabled.failed_layer, None);
        state.enable(now());
        assert_eq!(told(&state).transition_reason, "initialized");
        assert_eq!(see(&mut state, refused()).from, Some(HealthStatus::Unknown));
    }

    /// The same rule, said over the whole history.
    fn model(history: &[bool], checks: &HealthChecks) -> HealthStatus {
        let Some((first, later)) = history.split_first() else {
            return HealthStatus::Unknown;
        };
        let (mut healthy, mut begun) = (*first, 0);
        for end in 1..=later.len() {
            let threshold = if healthy {
                checks.unhealthy_threshold
            } else {
                checks.healthy_threshold
            } as usize;
            let since_turn = &later[begun..end];
            if since_turn.len() >= threshold
                && since_turn[since_turn.len() - threshold..]
                    .iter()
                    .all(|passed| *passed != healthy)
            {
                (healthy, begun) = (!healthy, end);
            }
        }
        if healthy {
            HealthStatus::Healthy
        } else {
            HealthStatus::Unhealthy
        }
    }

    proptest! {
        #[test]
        fn the_status_turns_exactly_when_the_thresholds_say(
            history in proptest::collection::vec(any::<bool>(), 0..60),
            healthy_threshold in 1u32..=4,
            unhealthy_threshold in 1u32..=4,
        ) {
            let checks = HealthChecks { healthy_threshold, unhealthy_threshold, ..HealthChecks::default() };
            let mut state = State::new();
            for seen in 1..=history.len() {
                let before = state.status();
                let result = if history[seen - 1] { Ok(Passed::Tcp) } else { refused() };
                let turn = state.observe(result, &checks, 0.5, now());
                prop_assert_eq!(state.status(), model(&history[..seen], &checks));
                prop_assert_eq!(turn.from.is_some(), state.status() != before);
                prop_assert_eq!(state.failure().is_some(), state.status() == HealthStatus::Unhealthy);
            }
        }
    }
}
