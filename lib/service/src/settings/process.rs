//! Section `tidegate` (alias `teleport`): what every service of the process shares.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::{
    DRAIN_TIMEOUT_DEFAULT, JoinSettings, LogFormat, LogOutput, LogSettings, ProcessSettings, join,
    section::{Item, Section},
    storage, values,
    words::quote,
};

const DATA_DIR_DEFAULT: &str = "/var/lib/tidegate";
const AUTH_PORT: u16 = 3025;
const PROXY_PORT: u16 = 3080;
const DIAG_PORT: u16 = 3000;
const FILTER_DEFAULT: &str = "info";
/// Says where a process is when its file does not.
const ZONE_VARIABLE: &str = "TIDEGATE_ZONE";
/// Longest name of a zone.
const ZONE_CHARS_MAX: usize = 64;

/// What the section says of the process, and of the auth service's store, whose settings stand here by tradition.
pub(super) struct Process {
    pub(super) settings: ProcessSettings,
    pub(super) storage: storage::Storage,
}

/// Reads the section; what is absent has its default.
pub(super) fn read(item: Option<&Item<'_>>) -> Process {
    let Some(mut section) = item.and_then(Item::section) else {
        return defaults();
    };
    let process = read_section(&mut section);
    section.ignore(&[
        "advertise_ip",
        "ca_signature_algo",
        "cache",
        "ciphers",
        "ciphersuites",
        "connection_limits",
        "kex_algos",
        "mac_algos",
        "pid_file",
        "upgrade_window",
    ]);
    section.finish();
    process
}

fn read_section(section: &mut Section<'_>) -> Process {
    let nodename = section.get("nodename").and_then(|item| item.full_text());
    let data_dir = section.get("data_dir").and_then(|item| item.full_text());
    let address = |item: Item<'_>| values::peer_address(&item, AUTH_PORT);
    let auth_servers = match (section.get("auth_server"), section.get("auth_servers")) {
        (Some(_), Some(many)) => {
            many.error_expected("is given beside `auth_server`", "one of the two");
            Vec::new()
        }
        (Some(one), None) => one.one_or_many().into_iter().filter_map(address).collect(),
        (None, Some(many)) => many.one_or_many().into_iter().filter_map(address).collect(),
        (None, None) => Vec::new(),
    };
    let proxy_server = section
        .get("proxy_server")
        .and_then(|item| values::peer_address(&item, PROXY_PORT));
    let diag_addr = section
        .get("diag_addr")
        .filter(Item::is_given)
        .and_then(|item| values::listen_address(&item, DIAG_PORT));
    let settings = ProcessSettings {
        nodename: nodename.map_or_else(host_name, str::to_owned),
        data_dir: data_dir.unwrap_or(DATA_DIR_DEFAULT).into(),
        auth_servers,
        proxy_server,
        join: join::read(section),
        log: section
            .get("log")
            .map_or_else(log_defaults, |item| log(&item)),
        diag_addr,
        zone: zone(section),
        shutdown_delay: wait(section, "shutdown_delay").unwrap_or_default(),
        drain_timeout: wait(section, "drain_timeout").unwrap_or(DRAIN_TIMEOUT_DEFAULT),
    };
    let storage = section
        .get("storage")
        .map(|item| storage::read(&item))
        .unwrap_or_default();
    Process { settings, storage }
}

fn defaults() -> Process {
    Process {
        settings: ProcessSettings {
            nodename: host_name(),
            data_dir: DATA_DIR_DEFAULT.into(),
            auth_servers: Vec::new(),
            proxy_server: None,
            join: JoinSettings::default(),
            log: log_defaults(),
            diag_addr: None,
            zone: zone_of_environment(),
            shutdown_delay: Duration::ZERO,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
        },
        storage: storage::Storage::default(),
    }
}

fn wait(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    values::duration(&section.get(key)?, Duration::ZERO)
}

fn zone(section: &mut Section<'_>) -> String {
    let Some(item) = section.get("zone").filter(Item::is_given) else {
        return zone_of_environment();
    };
    let text = item.full_text().unwrap_or_default();
    if !is_zone(text) {
        item.error_expected(
            "is no name of a zone",
            format!("at most {ZONE_CHARS_MAX} visible characters, such as `eu-west-1a`"),
        );
    }
    text.to_owned()
}

fn zone_of_environment() -> String {
    std::env::var(ZONE_VARIABLE)
        .ok()
        .filter(|zone| is_zone(zone))
        .unwrap_or_default()
}

fn is_zone(text: &str) -> bool {
    text.len() <= ZONE_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The host's own name, as the kernel knows it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

fn log_defaults() -> LogSettings {
    LogSettings {
        filter: FILTER_DEFAULT.to_owned(),
        format: LogFormat::default(),
        output: LogOutput::default(),
    }
}

fn log(item: &Item<'_>) -> LogSettings {
    let mut log = log_defaults();
    let Some(mut section) = item.section() else {
        return log;
    };
    if let Some(filter) = section
        .get("severity")
        .filter(Item::is_given)
        .and_then(|item| severity(&item))
    {
        log.filter = filter;
    }
    if let Some(output) = section
        .get("output")
        .filter(Item::is_given)
        .and_then(|item| log_output(&item))
    {
        log.output = output;
    }
    if let Some(mut format) = section.get("format").and_then(|item| item.section()) {
        let formats = [
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("auto", LogFormat::Auto),
        ];
        if let Some(chosen) = format.get("output").and_then(|item| item.choice(&formats)) {
            log.format = chosen;
        }
        format.ignore(&["extra_fields"]);
        format.finish();
    }
    section.finish();
    log
}

fn severity(item: &Item<'_>) -> Option<String> {
    let text = item.text()?.to_ascii_lowercase();
    let filter = match text.as_str() {
        "warning" => "warn",
        "err" | "fatal" | "critical" => "error",
        other => other,
    };
    let levels = ["trace", "debug", "info", "warn", "error", "off"];
    let is_filter = filter.contains(['=', ',']) && EnvFilter::builder().parse(filter).is_ok();
    if levels.contains(&filter) || is_filter {
        return Some(filter.to_owned());
    }
    item.not_one_of(item.text()?, &levels);
    None
}

fn log_output(item: &Item<'_>) -> Option<LogOutput> {
    match item.text()? {
        "stderr" | "error" | "err" | "2" => Some(LogOutput::Stderr),
        "stdout" | "out" | "1" => Some(LogOutput::Stdout),
        "syslog" => {
            item.warn("ignored: logs go to standard error, where systemd picks them up");
            Some(LogOutput::Stderr)
        }
        path if path.starts_with('/') => Some(LogOutput::File(path.into())),
        other => {
            item.error_expected(
                format!("{} is no place to log to", quote(other)),
                "`stderr`, `stdout` or the absolute path of a file",
            );
            None
        }
    }
}
