//! Phases of a CA's rotation: which follow which, who signs and who is trusted in each, when the next one is due.
//!
//! | phase | signs what clients show | signs what servers show | trusted |
//! |---|---|---|---|
//! | standby | the one | the one | the one |
//! | init | old | old | new, old |
//! | `update_clients` | new | old | new, old |
//! | `update_servers` | new | new | new, old |
//! | rollback | old | old | new, old |
//!
//! A CA is trusted everywhere before it signs anything, and signs nothing any more before it is distrusted. From every
//! phase but standby a rollback leads back to the old one.
//!
//! Pure: no clock, no store, no keys.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tidegate_proto::v1::RotationPhase;

/// From the start of an automatic rotation to its end, when nothing else is asked for.
pub(crate) const GRACE_DEFAULT: Duration = Duration::from_hours(48);
/// Shortest grace: hosts follow within seconds, and people have to log in meanwhile.
pub(crate) const GRACE_MIN: Duration = Duration::from_mins(3);
/// Longest grace.
pub(crate) const GRACE_MAX: Duration = Duration::from_hours(90 * 24);
/// Phases that an automatic rotation spends its grace in: init, `update_clients`, `update_servers`.
const TIMED_PHASES: i32 = 3;

/// Where a CA's rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// None is under way.
    Standby,
    /// The new CA is made known.
    Init,
    /// Clients get certificates of the new CA.
    UpdateClients,
    /// Servers do too.
    UpdateServers,
    /// Back to the old CA.
    Rollback,
}

/// Which of a CA's two keys, while there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that there was; in standby the only one.
    Old,
    /// The one that is to follow.
    New,
}

/// Who asks for the next phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each phase is asked for.
    Manual,
    /// Phases follow each other by themselves, over this time.
    Automatic(Duration),
}

/// What a move changes of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// A new one is made beside the old one.
    Make,
    /// They stay.
    Stay,
    /// One is left, the other is forgotten.
    Leave(Which),
}

/// How to come to a phase that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// It is there already.
    Already,
    /// By this change.
    By(Keys),
}

/// A phase that does not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNext {
    /// Where the rotation is.
    pub(crate) at: Phase,
    /// What was asked for.
    pub(crate) asked: Phase,
}

impl Phase {
    /// All phases.
    pub(crate) const ALL: [Self; 5] = [
        Self::Standby,
        Self::Init,
        Self::UpdateClients,
        Self::UpdateServers,
        Self::Rollback,
    ];

    /// As records, commands and audit events spell it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Rollback => "rollback",
        }
    }

    /// The phase of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name)
    }

    /// As it is sent.
    pub(crate) const fn message(self) -> RotationPhase {
        match self {
            Self::Standby => RotationPhase::Standby,
            Self::Init => RotationPhase::Init,
            Self::UpdateClients => RotationPhase::UpdateClients,
            Self::UpdateServers => RotationPhase::UpdateServers,
            Self::Rollback => RotationPhase::Rollback,
        }
    }

    /// As it was sent; unspecified is none.
    pub(crate) const fn of_message(message: RotationPhase) -> Option<Self> {
        match message {
            RotationPhase::Unspecified => None,
            RotationPhase::Standby => Some(Self::Standby),
            RotationPhase::Init => Some(Self::Init),
            RotationPhase::UpdateClients => Some(Self::UpdateClients),
            RotationPhase::UpdateServers => Some(Self::UpdateServers),
            RotationPhase::Rollback => Some(Self::Rollback),
        }
    }

    /// The phases that may be asked for, the one of a rotation that goes on first.
    pub(crate) const fn next(self) -> &'static [Self] {
        match self {
            Self::Standby => &[Self::Init],
            Self::Init => &[Self::UpdateClients, Self::Rollback],
            Self::UpdateClients => &[Self::UpdateServers, Self::Rollback],
            Self::UpdateServers => &[Self::Standby, Self::Rollback],
            Self::Rollback => &[Self::Standby],
        }
    }

    /// The key that signs what clients show.
    pub(crate) const fn signs_clients(self) -> Which {
        match self {
            Self::Standby | Self::Init | Self::Rollback => Which::Old,
            Self::UpdateClients | Self::UpdateServers => Which::New,
        }
    }

    /// The key that signs what servers show.
    pub(crate) const fn signs_servers(self) -> Which {
        match self {
            Self::Standby | Self::Init | Self::UpdateClients | Self::Rollback => Which::Old,
            Self::UpdateServers => Which::New,
        }
    }

    /// The keys that there are, and that are trusted: newest first.
    pub(crate) const fn trusted(self) -> &'static [Which] {
        match self {
            Self::Standby => &[Which::Old],
            _ => &[Which::New, Which::Old],
        }
    }

    /// How to come from this phase to another one.
    pub(crate) fn to(self, asked: Self) -> Result<Move, NotNext> {
        if asked == self {
            return Ok(Move::Already);
        }
        if !self.next().contains(&asked) {
            return Err(NotNext { at: self, asked });
        }
        Ok(Move::By(match (self, asked) {
            (_, Self::Init) => Keys::Make,
            (Self::Rollback, Self::Standby) => Keys::Leave(Which::Old),
            (_, Self::Standby) => Keys::Leave(Which::New),
            _ => Keys::Stay,
        }))
    }

    /// When an automatic rotation leaves this phase, and for which. Each phase gets its third of the grace from when it
    /// began, so that one that began late (nobody was there to move on) is not cut short.
    pub(crate) fn due(self, mode: Mode, since: Timestamp) -> Option<(Timestamp, Self)> {
        let Mode::Automatic(grace) = mode else {
            return None;
        };
        let next = match self {
            Self::Standby | Self::Rollback => return None,
            Self::Init => Self::UpdateClients,
            Self::UpdateClients => Self::UpdateServers,
            Self::UpdateServers => Self::Standby,
        };
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let due = since.saturating_add(grace / TIMED_PHASES);
        Some((due.unwrap_or(Timestamp::MAX), next))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NotNext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next: Vec<&str> = self.at.next().iter().map(|phase| phase.as_str()).collect();
        write!(
            f,
            "phase `{}` does not follow `{}`: what can follow is {}",
            self.asked,
            self.at,
            next.join(" or ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that exist after a walk through phases: how many rotations old each is.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct World {
        phase: Phase,
        old: u32,
        new: Option<u32>,
        made: u32,
    }

    impl World {
        fn new() -> Self {
            Self {
                phase: Phase::Standby,
                old: 0,
                new: None,
                made: 0,
            }
        }

        fn go(&self, asked: Phase) -> Option<Self> {
            let mut after = self.clone();
            match self.phase.to(asked).ok()? {
                Move::Already => {}
                Move::By(keys) => {
                    after.phase = asked;
                    match keys {
                        Keys::Make => {
                            after.made += 1;
                            after.new = Some(after.made);
                        }
                        Keys::Stay => {}
                        Keys::Leave(Which::Old) => after.new = None,
                        Keys::Leave(Which::New) => {
                            after.old = after.new.take().unwrap();
                        }
                    }
                }
            }
            Some(after)
        }

        fn key(&self, which: Which) -> u32 {
            match which {
                Which::Old => self.old,
                Which::New => self
                    .new
                    .expect("a phase may name the new key only where there is one"),
            }
        }

        fn trusted(&self) -> Vec<u32> {
            self.phase
                .trusted()
                .iter()
                .map(|which| self.key(*which))
                .collect()
        }

        fn signers(&self) -> [u32; 2] {
            [
                self.key(self.phase.signs_clients()),
                self.key(self.phase.signs_servers()),
            ]
        }
    }

    /// Every walk of up to this many steps, of which two rotations and their rollbacks are some.
    const STEPS: usize = 8;

    fn walk(world: &World, steps: usize, look: &mut impl FnMut(&World, &World)) {
        for asked in Phase::ALL {
            let Some(after) = world.go(asked) else {
                continue;
            };
            look(world, &after);
            if steps > 1 && after != *world {
                walk(&after, steps - 1, look);
            }
        }
    }

    #[test]
    fn a_ca_is_trusted_a_phase_before_it_signs_and_as_long_as_it_signed_a_phase_ago() {
        walk(&World::new(), STEPS, &mut |before, after| {
            for signer in after.signers() {
                assert!(after.trusted().contains(&signer), "{after:?}");
                assert!(
                    before.trusted().contains(&signer),
                    "{before:?} -> {after:?}"
                );
            }
            for signer in before.signers() {
                assert!(after.trusted().contains(&signer), "{before:?} -> {after:?}");
            }
        });
    }

    #[test]
    fn clients_change_before_servers_and_a_phase_changes_no_more_than_one_of_them() {
        for phase in Phase::ALL {
            for next in phase.next().iter().filter(|next| **next != Phase::Rollback) {
                let clients = phase.signs_clients() != next.signs_clients();
                let servers = phase.signs_servers() != next.signs_servers();
                // In standby the new key has become the old one.
                assert!(
                    *next == Phase::Standby || !(clients && servers),
                    "{phase} -> {next}"
                );
            }
            let servers_only =
                phase.signs_servers() == Which::New && phase.signs_clients() == Which::Old;
            assert!(!servers_only, "{phase}");
        }
    }

    #[test]
    fn a_rotation_ends_with_the_new_ca_and_one_rolled_back_with_the_old_one() {
        let go = |phases: &[Phase]| {
            phases
                .iter()
                .fold(World::new(), |world, phase| world.go(*phase).unwrap())
        };
        use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
        assert_eq!(
            go(&[Init, UpdateClients, UpdateServers, Standby]).trusted(),
            [1]
        );
        for active in [
            &[Init][..],
            &[Init, UpdateClients],
            &[Init, UpdateClients, UpdateServers],
        ] {
            let back = go(&[active, &[Rollback, Standby]].concat());
            assert_eq!(back.trusted(), [0]);
            assert_eq!(back.signers(), [0, 0]);
        }
    }

    #[test]
    fn the_table_of_transitions_is_this_one() {
        use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
        let allowed = [
            (Standby, Init, Keys::Make),
            (Init, UpdateClients, Keys::Stay),
            (Init, Rollback, Keys::Stay),
            (UpdateClients, UpdateServers, Keys::Stay),
            (UpdateClients, Rollback, Keys::Stay),
            (UpdateServers, Standby, Keys::Leave(Which::New)),
            (UpdateServers, Rollback, Keys::Stay),
            (Rollback, Standby, Keys::Leave(Which::Old)),
        ];
        for from in Phase::ALL {
            for to in Phase::ALL {
                let listed = allowed.iter().find(|(f, t, _)| (*f, *t) == (from, to));
                let expected = match listed {
                    _ if from == to => Ok(Move::Already),
                    Some((_, _, keys)) => Ok(Move::By(*keys)),
                    None => Err(NotNext {
                        at: from,
                        asked: to,
                    }),
                };
                assert_eq!(from.to(to), expected, "{from} -> {to}");
            }
        }
        let refused = Standby.to(UpdateServers).unwrap_err().to_string();
        assert_eq!(
            refused,
            "phase `update_servers` does not follow `standby`: what can follow is init"
        );
    }

    #[test]
    fn an_automatic_rotation_gives_each_phase_a_third_of_its_grace() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mode = Mode::Automatic(Duration::from_secs(300));
        assert_eq!(
            Phase::Init.due(mode, at(0)),
            Some((at(100), Phase::UpdateClients))
        );
        assert_eq!(
            Phase::UpdateClients.due(mode, at(700)),
            Some((at(800), Phase::UpdateServers))
        );
        assert_eq!(
            Phase::UpdateServers.due(mode, at(0)),
            Some((at(100), Phase::Standby))
        );
        for phase in [Phase::Standby, Phase::Rollback] {
            assert_eq!(phase.due(mode, at(0)), None);
        }
        assert!(
            Phase::ALL
                .iter()
                .all(|phase| phase.due(Mode::Manual, at(0)).is_none())
        );
    }

    #[test]
    fn names_and_messages_of_phases_read_back() {
        for phase in Phase::ALL {
            assert_eq!(Phase::named(phase.as_str()), Some(phase));
            assert_eq!(Phase::of_message(phase.message()), Some(phase));
        }
        assert_eq!(Phase::of_message(RotationPhase::Unspecified), None);
    }
}
