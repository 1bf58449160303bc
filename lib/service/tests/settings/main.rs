//! What is wrong in a configuration is told with its place, its key, what was expected, and what was probably meant.

mod any_text;
mod audit;
mod authentication;
mod databases;
mod joining;
mod matchers;
mod mistakes;
mod process;
mod resources;
mod storage;

use std::path::Path;

use tidegate_service::settings::{self, ConfigError, Settings};

fn parse(text: &str) -> Result<Settings, ConfigError> {
    settings::parse(text, Path::new("tidegate.yaml"))
}

fn good(text: &str) -> Settings {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn errors(text: &str) -> Vec<String> {
    let error = parse(text).expect_err("it is wrong");
    error.to_string().lines().map(str::to_owned).collect()
}

fn warnings(text: &str) -> Vec<(u64, String)> {
    let warnings = good(text).warnings;
    warnings
        .into_iter()
        .map(|warning| (warning.line, warning.message))
        .collect()
}

fn blockers(text: &str) -> String {
    good(text)
        .check_startable()
        .expect_err("it is not startable")
        .to_string()
}
