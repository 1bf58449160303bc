//! The program starts what a file enables, tells when it is ready, and ends well when told to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// How long any line of the log is waited for.
const LINE_WAIT_MAX: Duration = Duration::from_secs(60);

/// A running program, ended with the test.
struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["start", "-c"])
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let lines = BufReader::new(child.stderr.take().expect("standard error is piped")).lines();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, log }
    }

    /// The next line; `None` at the end of the log.
    fn line(&self) -> Option<String> {
        match self.log.recv_timeout(LINE_WAIT_MAX) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {LINE_WAIT_MAX:?}"),
        }
    }

    /// Reads the log up to the line that holds every one of `words`; the end of the log is a failure.
    fn wait_for(&self, words: &[&str]) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.line() {
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            seen.push(line);
        }
        panic!("the log ended before {words:?}:\n{}", seen.join("\n"));
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// The rest of the log, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let rest: Vec<String> = std::iter::from_fn(|| self.line()).collect();
        let status = self.child.wait().expect("it was started");
        (rest.join("\n"), status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &Path, more: &str) -> PathBuf {
    let path = folder.join("tidegate.yaml");
    let text = format!(
        "tidegate:
  nodename: here
  data_dir: {}/data
  log: {{format: {{output: json}}}}
  diag_addr: 127.0.0.1:0
auth_service:
  cluster_name: c.example.com
  listen_addr: 127.0.0.1:0
ssh_service:
  enabled: yes
{more}",
        folder.display()
    );
    std::fs::write(&path, text).expect("a temporary folder can be written");
    path
}

fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("diagnostics are served");
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("the request is taken");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .expect("the answer is text");
    answer
}

/// The value of a text field of a JSON log line.
fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let start = format!("\"{name}\":\"");
    let (_, rest) = line.split_once(&start).expect("the line has the field");
    rest.split('"').next().unwrap_or_default()
}

#[test]
fn a_process_serves_until_it_is_told_to_stop_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(
        folder.path(),
        "proxy_service: {listen_addr: '127.0.0.1:0'}\n",
    );
    for signal in ["TERM", "INT"] {
        let running = Running::start(&path);
        running.wait_for(&["\"WARN\"", "ssh_service", "\"line\":10"]);
        let diagnostics = running.wait_for(&["diagnostics listen"]);
        running.wait_for(&["component is ready", "\"component\":\"proxy\""]);
        let answer = get(field(&diagnostics, "listen.address"), "/readyz");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        running.signal(signal);
        let (rest, code) = running.end();
        assert_eq!(code, Some(0), "{rest}");
        assert!(rest.contains("every task has ended"), "{rest}");
    }
    let data_dir = std::fs::metadata(folder.path().join("data")).unwrap();
    assert_eq!(data_dir.permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_address_that_is_taken_ends_the_process_with_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let path = config(
        folder.path(),
        &format!("proxy_service: {{listen_addr: '{address}'}}\n"),
    );
    let (rest, code) = Running::start(&path).end();
    assert_eq!(code, Some(1), "{rest}");
    let last = rest.lines().last().unwrap();
    assert!(last.starts_with("cannot start the proxy: "), "{last}");
    assert!(last.contains(&address.to_string()), "{last}");
}
