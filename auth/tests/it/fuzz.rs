//! Every method of the contract, called with what no client sends.
//!
//! The messages are made from the contract itself ([`made`]), so a new method is covered by being in it. Half of them are
//! well formed and mean nothing, some have their bytes damaged. Whatever is sent, the answer is a status that says whose
//! fault it is, never that of a service that failed; no task panics; what was refused has changed nothing; and the
//! service goes on answering.
//!
//! `TIDEGATE_FUZZ_CASES` is how many calls each caller makes of each method, 1 when not said; `TIDEGATE_FUZZ_SEED` begins
//! another row of them. A failure tells the seed that it came of.

mod made;
mod raw;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread::ThreadId,
    time::Duration,
};

use prost_reflect::{DescriptorPool, MethodDescriptor};
use tidegate_service::backup::Reader;
use tonic::{Code, Status};

use crate::{
    backup::backup,
    house::{Caller, House},
};
use made::{Dice, damaged, message};

/// Calls of each method by each caller, when nothing is said.
const CASES: u64 = 1;
const SEED: u64 = 4;
/// Methods that are called between two looks at whether all goes on, in a house of their own.
const METHODS_PER_HOUSE: usize = 12;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts the panics of this thread, which runs all of the service.
fn count_panics(own: ThreadId) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == own {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        usual(panic);
    }));
}

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name);
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// The methods that the service serves.
fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(tidegate_proto::DESCRIPTOR).unwrap();
    let services = pool.services().filter(|service| {
        service.package_name() == "tidegate.v1" && service.name() != "TunnelService"
    });
    services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

/// A service, those who call it, and what it keeps.
struct Stage {
    house: House,
    callers: Vec<(&'static str, Caller)>,
}

impl Stage {
    async fn new() -> Self {
        let house = House::new().await;
        let editor = house.person("eve", &["editor", "access"]).await;
        let host = house.host(&["db", "discovery", "proxy"]).await;
        house.add_database("orders", "prod").await;
        let callers = vec![
            ("admin", house.admin()),
            ("host", house.known(&host)),
            ("editor", house.known(&editor)),
            ("stranger", house.stranger()),
        ];
        Self { house, callers }
    }

    /// All that the store keeps, but for failed logins, which are counted because they fail.
    async fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let file = backup(&self.house.admin()).await.unwrap();
        let mut reader = Reader::open(file.as_slice()).unwrap();
        let mut state = BTreeMap::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            if !entry.key.starts_with(b"/failures/") {
                state.insert(entry.key, entry.value);
            }
        }
        state
    }
}

/// Whether a status may be the answer to bad input.
fn is_a_refusal(status: &Status) -> bool {
    use std::error::Error as _;
    let is_our_fault = matches!(
        status.code(),
        Code::Internal | Code::Unknown | Code::DataLoss
    );
    // A status with a source was made here, since no answer came.
    !is_our_fault && status.source().is_none()
}

/// Several messages for one call: streams take them all, other methods the first.
fn messages(dice: &mut Dice, method: &MethodDescriptor) -> Vec<Vec<u8>> {
    let count = if method.is_client_streaming() {
        1 + dice.below(4)
    } else {
        1
    };
    (0..count)
        .map(|_| {
            let whole = message(dice, &method.input());
            if dice.chance(3) {
                damaged(dice, whole)
            } else {
                whole
            }
        })
        .collect()
}

/// What happened in all calls of a row.
#[derive(Default)]
struct Outcome {
    /// Whether some call was carried out.
    changed: bool,
    /// What went wrong, once a method.
    failures: BTreeMap<String, String>,
}

/// Calls a method as everybody.
async fn call(stage: &Stage, method: &MethodDescriptor, seed: u64, outcome: &mut Outcome) {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    for (index, (who, caller)) in stage.callers.iter().enumerate() {
        let mut dice = Dice::new(seed ^ ((index as u64) << 32));
        let sent = messages(&mut dice, method);
        let before = stage.state().await;
        let panics = PANICS.load(Ordering::Relaxed);
        let answer = raw::call(caller.0.clone(), &path, sent.clone());
        let wrong = match tokio::time::timeout(PATIENCE, answer).await {
            Err(_) => Some("no answer".to_owned()),
            Ok(Err(status)) if !is_a_refusal(&status) => Some(format!("{status:?}")),
            Ok(Err(_)) if stage.state().await != before => {
                Some("refused, and yet something changed".to_owned())
            }
            Ok(Err(_)) => None,
            Ok(Ok(())) => {
                outcome.changed = true;
                None
            }
        };
        let panicked = PANICS.load(Ordering::Relaxed) > panics;
        let wrong = wrong.or_else(|| panicked.then(|| "a task panicked".to_owned()));
        if let Some(wrong) = wrong {
            let told = format!("{path} by {who}, seed {seed}: {wrong}; sent {sent:?}");
            outcome.failures.entry(path.clone()).or_insert(told);
        }
    }
}

#[tokio::test]
async fn no_message_makes_the_service_fail_or_write_in_part() {
    count_panics(std::thread::current().id());
    let (cases, first) = (
        setting("TIDEGATE_FUZZ_CASES", CASES),
        setting("TIDEGATE_FUZZ_SEED", SEED),
    );
    let methods = methods();
    assert!(methods.len() > 40, "{}", methods.len());
    let mut outcome = Outcome::default();
    for (chapter, methods) in methods.chunks(METHODS_PER_HOUSE).enumerate() {
        let stage = Stage::new().await;
        for case in 0..cases {
            for (index, method) in methods.iter().enumerate() {
                let place = (chapter * METHODS_PER_HOUSE + index) as u64;
                let seed = first.wrapping_mul(1_000_003) + case * 1000 + place;
                call(&stage, method, seed, &mut outcome).await;
            }
        }
        // It goes on answering, whatever was sent.
        stage.state().await;
    }
    assert!(outcome.changed, "some message must be sound");
    let failures: Vec<String> = outcome.failures.into_values().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
