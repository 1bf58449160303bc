//! Logging as a whole, in a process of its own since it is set up once.

use serde_json::Value;
use tidegate_service::{
    settings::{LogFormat, LogOutput, LogSettings},
    telemetry::{self, TelemetryError},
};

#[test]
fn a_log_file_holds_one_json_object_a_line_with_utc_times_and_panics_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate.log");
    let settings = LogSettings {
        filter: "info".to_owned(),
        format: LogFormat::Auto,
        output: LogOutput::File(path.clone()),
    };
    let filter = telemetry::init(&settings).unwrap();

    tracing::info_span!("session", session.id = "s-1")
        .in_scope(|| tracing::info!(rows = 3, "queried"));
    tracing::debug!("too fine");
    std::thread::spawn(|| panic!("out of luck"))
        .join()
        .unwrap_err();

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [queried, panicked] = lines.as_slice() else {
        panic!("{text}")
    };
    assert_eq!(
        (&queried["message"], &queried["rows"]),
        (&"queried".into(), &3.into())
    );
    assert_eq!(queried["span"]["session.id"], "s-1");
    let time = queried["timestamp"].as_str().unwrap();
    assert!(
        time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'),
        "{time}"
    );
    assert_eq!(
        (&panicked["level"], &panicked["error"]),
        (&"ERROR".into(), &"out of luck".into())
    );
    assert!(
        panicked["panic.place"]
            .as_str()
            .unwrap()
            .contains("logging.rs")
    );

    assert!(matches!(
        telemetry::init(&settings),
        Err(TelemetryError::AlreadySet(_))
    ));

    filter.set("debug").unwrap();
    tracing::debug!("fine enough now");
    assert!(matches!(
        filter.set("=?="),
        Err(TelemetryError::Filter { .. })
    ));
    tracing::debug!("and still");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("fine enough now") && text.contains("and still"),
        "{text}"
    );
}
