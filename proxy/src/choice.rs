//! Which agents a session tries, in order. Pure.
//!
//! Healthy before unknown before unhealthy, since a health check can be wrong and an unhealthy agent is better than
//! none; within a class those of the proxy's own zone, since a byte to another one takes longer and may cost money; of
//! those the one with fewest sessions at this proxy; among equals the next in turn.

use tidegate_core::HealthStatus;

/// Agents that one session tries at most.
pub(crate) const TRIES_MAX: usize = 5;

/// One agent that could take the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Whether it reaches the database.
    pub(crate) health: HealthStatus,
    /// Whether it is known to be where the proxy is.
    pub(crate) is_near: bool,
    /// Sessions it has through this proxy.
    pub(crate) sessions: usize,
}

/// The places of the agents to try, best first, at most [`TRIES_MAX`]. `turn` moves on with each session, and decides
/// among equals.
pub(crate) fn order(agents: &[Load], turn: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..agents.len()).collect();
    if let Some(start) = turn.checked_rem(agents.len()) {
        places.rotate_left(start);
    }
    places.sort_by_key(|place| {
        let agent = agents[*place];
        (rank(agent.health), !agent.is_near, agent.sessions)
    });
    places.truncate(TRIES_MAX);
    places
}

const fn rank(health: HealthStatus) -> u8 {
    match health {
        HealthStatus::Healthy => 0,
        HealthStatus::Unknown => 1,
        HealthStatus::Unhealthy => 2,
    }
}

#[cfg(test)]
mod tests {
    use HealthStatus::{Healthy, Unhealthy, Unknown};

    use super::*;

    fn load(health: HealthStatus, sessions: usize) -> Load {
        Load {
            health,
            is_near: false,
            sessions,
        }
    }

    #[test]
    fn the_own_zone_comes_before_load_and_after_health() {
        let near = |health, sessions| Load {
            is_near: true,
            ..load(health, sessions)
        };
        let agents = [
            load(Healthy, 0),
            near(Healthy, 9),
            near(Unhealthy, 0),
            near(Healthy, 3),
        ];
        assert_eq!(order(&agents, 0), [3, 1, 0, 2]);
    }

    #[test]
    fn health_comes_before_load() {
        let agents = [
            load(Unhealthy, 0),
            load(Unknown, 0),
            load(Healthy, 90),
            load(Healthy, 10),
        ];
        assert_eq!(order(&agents, 0), [3, 2, 1, 0]);
    }

    #[test]
    fn equals_take_turns() {
        let agents = [load(Healthy, 1), load(Healthy, 1), load(Healthy, 1)];
        let first = |turn| order(&agents, turn)[0];
        assert_eq!([first(0), first(1), first(2), first(3)], [0, 1, 2, 0]);
    }

    #[test]
    fn tries_are_bounded_and_nobody_is_an_empty_order() {
        assert_eq!(order(&[load(Healthy, 0); 9], 4).len(), TRIES_MAX);
        assert!(order(&[], 3).is_empty());
    }
}
