//! What a machine needs beside cargo, installed where that is possible.
//!
//! PostgreSQL's and MariaDB's server programs play the databases, `libnss_wrapper` gives them their AWS host names, `psql`
//! and `mariadb` are the clients, etcd keeps the state of several auth instances, aws-lc-rs needs a C compiler and libFuzzer one for C++. Python, Node.js, Java
//! and Perl run drivers ([`crate::drivers`] installs those that are no packages of Debian). On Debian and Ubuntu as
//! root they are installed by apt; elsewhere one line says what to install.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

struct Need {
    what: &'static str,
    package: &'static str,
    is_there: fn() -> bool,
}

/// What `bench session` measures beside.
const PEERS: [Need; 2] = [
    Need {
        what: "haproxy",
        package: "haproxy",
        is_there: || has_service("haproxy"),
    },
    Need {
        what: "pgbouncer",
        package: "pgbouncer",
        is_there: || has_service("pgbouncer"),
    },
];

const NEEDS: [Need; 16] = [
    Need {
        what: "PostgreSQL's server programs (initdb, postgres, pgbench)",
        package: "postgresql",
        is_there: has_postgres,
    },
    Need {
        what: "psql",
        package: "postgresql-client",
        is_there: || on_path("psql"),
    },
    Need {
        what: "MariaDB's server programs (mariadbd, mariadb-install-db)",
        package: "mariadb-server",
        is_there: has_mariadb,
    },
    Need {
        what: "mariadb",
        package: "mariadb-client",
        is_there: || on_path("mariadb"),
    },
    Need {
        what: "libnss_wrapper.so",
        package: "libnss-wrapper",
        is_there: has_nss_wrapper,
    },
    Need {
        what: "etcd",
        package: "etcd-server",
        is_there: || on_path("etcd"),
    },
    Need {
        what: "etcdctl",
        package: "etcd-client",
        is_there: || on_path("etcdctl"),
    },
    Need {
        what: "a C compiler (cc)",
        package: "gcc",
        is_there: || on_path("cc"),
    },
    Need {
        what: "a C++ compiler (c++), for libFuzzer",
        package: "g++",
        is_there: || on_path("c++"),
    },
    Need {
        what: "Python with venv",
        package: "python3-venv",
        is_there: || succeeds("python3", &["-c", "import ensurepip, venv"]),
    },
    Need {
        what: "Node.js",
        package: "nodejs",
        is_there: || on_path("node"),
    },
    Need {
        what: "npm",
        package: "npm",
        is_there: || on_path("npm"),
    },
    Need {
        what: "Java with its compiler",
        package: "default-jdk-headless",
        is_there: || on_path("java") && on_path("javac"),
    },
    Need {
        what: "MariaDB Connector/J",
        package: "libmariadb-java",
        is_there: || Path::new("/usr/share/java/mariadb-java-client.jar").is_file(),
    },
    Need {
        what: "JNA, by which Java reaches sockets in files",
        package: "libjna-java",
        is_there: || Path::new("/usr/share/java/jna.jar").is_file(),
    },
    Need {
        what: "Perl's DBD::MariaDB",
        package: "libdbd-mariadb-perl",
        is_there: || succeeds("perl", &["-MDBD::MariaDB", "-e1"]),
    },
];

/// Checks every need, and installs what is missing where it can.
pub(crate) fn check_all() -> Result<()> {
    check(&NEEDS)
}

/// The same for the programs that sessions are measured beside.
pub(crate) fn check_peers() -> Result<()> {
    check(&PEERS)
}

fn check(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !(nix::unistd::geteuid().is_root() && on_path("apt-get")) {
        let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
        bail!(
            "missing {}: install the packages {} (names on Debian and Ubuntu)",
            what.join(", "),
            packages.join(" ")
        );
    }
    eprintln!("xtask: installing {}", packages.join(" "));
    // Without this Debian's package would create and start a database cluster that nobody asked for.
    let no_cluster = Path::new("/etc/postgresql-common/createcluster.conf");
    if !no_cluster.exists() {
        std::fs::create_dir_all("/etc/postgresql-common")?;
        std::fs::write(no_cluster, "create_main_cluster = false\n")?;
    }
    keep_stopped("etcd", on_path("etcd"))?;
    keep_stopped("mariadb", has_mariadb())?;
    for service in ["haproxy", "pgbouncer"] {
        keep_stopped(service, !packages.contains(&service))?;
    }
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&packages);
    apt(&install)?;
    match needs.iter().find(|need| !(need.is_there)()) {
        Some(need) => bail!(
            "{} is still missing after installing {}",
            need.what,
            need.package
        ),
        None => Ok(()),
    }
}

/// Debian's packages would start services that nobody asked for; a masked unit is not started. One that `is_there` is
/// left alone.
fn keep_stopped(service: &str, is_there: bool) -> Result<()> {
    let unit = format!("/etc/systemd/system/{service}.service");
    let unit = Path::new(&unit);
    let would_start = Path::new("/run/systemd/system").exists() && !is_there;
    if would_start && !unit.exists() {
        std::os::unix::fs::symlink("/dev/null", unit)
            .with_context(|| format!("could not mask {service}.service"))?;
    }
    Ok(())
}

fn apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()
        .context("could not start apt-get")?;
    if status.success() {
        Ok(())
    } else {
        bail!("apt-get {}: {status}", args.join(" "))
    }
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn has_postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let dirs = versions.chain(
        env::var_os("PATH")
            .iter()
            .flat_map(env::split_paths)
            .collect::<Vec<_>>(),
    );
    dirs.into_iter().any(|dir| {
        ["initdb", "postgres", "pgbench"]
            .iter()
            .all(|program| dir.join(program).is_file())
    })
}

fn has_mariadb() -> bool {
    has_service("mariadbd") && has_service("mariadb-install-db")
}

/// Debian puts servers where only administrators look for programs.
fn has_service(program: &str) -> bool {
    on_path(program) || Path::new("/usr/sbin").join(program).is_file()
}

fn has_nss_wrapper() -> bool {
    [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ]
    .iter()
    .any(|dir| PathBuf::from(dir).join("libnss_wrapper.so").exists())
}
