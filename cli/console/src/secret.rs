//! Passwords and codes as people give them: typed at a terminal, piped in, or in a file. They never print.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use secrecy::{ExposeSecret, SecretString};

use crate::Failure;

/// Longest password, so that a wrong file is not read without end.
pub const PASSWORD_BYTES_MAX: u64 = 1024;

/// Asks at the terminal, which shows nothing of what is typed.
///
/// # Errors
///
/// When there is no terminal, or nothing was typed.
pub fn ask(prompt: &str) -> Result<SecretString, Failure> {
    let typed = rpassword::prompt_password(prompt).map_err(|error| {
        Failure::new(format!("cannot ask for a password: {error}"))
            .hint("without a terminal, use `--password-stdin` or `--password-file`")
    })?;
    not_empty(typed)
}

/// Asks at the terminal for a code, which need not be given.
///
/// # Errors
///
/// When there is no terminal.
pub fn ask_code(prompt: &str) -> Result<Option<SecretString>, Failure> {
    let typed = rpassword::prompt_password(prompt).map_err(|error| {
        Failure::new(format!("cannot ask for a code: {error}"))
            .hint("without a terminal, give it with `--otp`")
    })?;
    let typed = typed.trim();
    Ok((!typed.is_empty()).then(|| SecretString::from(typed)))
}

/// Asks twice, until both are equal or three tries are over.
///
/// # Errors
///
/// As [`ask`], and when the two never agree.
pub fn ask_twice(prompt: &str) -> Result<SecretString, Failure> {
    const TRIES_MAX: usize = 3;
    for _ in 0..TRIES_MAX {
        let first = ask(prompt)?;
        let second = ask("Repeat it: ")?;
        if first.expose_secret() == second.expose_secret() {
            return Ok(first);
        }
        crate::output::remark("The two differ; try again.");
    }
    Err(Failure::new("the passwords were not equal"))
}

/// The next line of standard input.
///
/// # Errors
///
/// When it is empty, or longer than [`PASSWORD_BYTES_MAX`].
pub fn from_stdin() -> Result<SecretString, Failure> {
    first_line(io::stdin().lock(), "standard input")
}

/// The first line of a file.
///
/// # Errors
///
/// When the file cannot be read, its first line is empty, or longer than [`PASSWORD_BYTES_MAX`].
pub fn from_file(path: &Path) -> Result<SecretString, Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    first_line(BufReader::new(file), &path.display().to_string())
}

fn first_line(input: impl BufRead, source: &str) -> Result<SecretString, Failure> {
    let mut line = String::new();
    input
        .take(PASSWORD_BYTES_MAX + 2)
        .read_line(&mut line)
        .map_err(|error| {
            Failure::new(format!("cannot read the password from {source}: {error}"))
        })?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Failure::new(format!(
            "the password from {source} is longer than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    not_empty(password.to_owned())
}

fn not_empty(password: String) -> Result<SecretString, Failure> {
    if password.is_empty() {
        return Err(Failure::new("the password is empty"));
    }
    Ok(SecretString::from(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, Failure> {
        first_line(bytes, "test").map(|password| password.expose_secret().to_owned())
    }

    #[test]
    fn a_piped_password_is_the_first_line_without_its_end() {
        assert_eq!(read(b"secret\r\nmore\n").unwrap(), "secret");
        assert_eq!(read(b" spaces stay ").unwrap(), " spaces stay ");
    }

    #[test]
    fn an_empty_or_endless_password_is_refused() {
        assert!(read(b"").is_err());
        assert!(read(b"\n").is_err());
        assert!(read(&vec![b'a'; 5000]).is_err());
    }

    #[test]
    fn a_password_never_prints() {
        assert!(!format!("{:?}", first_line(&b"secret\n"[..], "test").unwrap()).contains("secret"));
    }
}
