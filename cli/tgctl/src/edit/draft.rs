//! The file that an editor works on, and the editor.
//!
//! The file is in a folder that only its owner may enter, so that an editor that replaces it rather than writing to it
//! does not open it to others, and swap files beside it stay private too.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use tidegate_console::{Failure, output};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

use crate::create::FILE_BYTES_MAX;

/// Attempts to find a name for the folder that nobody uses.
const FOLDER_ATTEMPTS_MAX: u32 = 100;
/// The editor of last resort.
const EDITOR: &str = "vi";

/// What is to happen with a text that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It is edited again.
    Edit,
    /// That is it.
    Stop,
}

/// A text that is being edited.
#[derive(Debug)]
pub(super) struct Draft {
    folder: PathBuf,
    file: PathBuf,
}

impl Draft {
    /// A file with this text.
    pub(super) fn new(word: &str, text: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::new(format!("cannot make a file to edit: {error}"))
                .hint("TMPDIR names the folder that it is made in")
        };
        let folder = folder().map_err(failed)?;
        let draft = Self {
            file: folder.join(format!("{word}.yaml")),
            folder,
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft.file)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed)?;
        Ok(draft)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// The text as it is now.
    fn read(&self) -> Result<String, Failure> {
        let file = self.file.display();
        let mut text = String::new();
        fs::File::open(&self.file)
            .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| Failure::new(format!("cannot read {file}: {error}")))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let problem = format!("{file} is larger than {FILE_BYTES_MAX} bytes");
            return Err(Failure::new(problem));
        }
        Ok(text)
    }

    /// Nobody needs it any more.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            output::remark(&format!("cannot remove {}: {error}", self.folder.display()));
        }
    }

    /// Says where the text is that came to nothing.
    pub(super) fn kept(&self, failure: Failure) -> Failure {
        output::remark(&format!("Your text is kept in {}", self.file.display()));
        failure
    }
}

/// Makes a folder that only this user may enter.
fn folder() -> io::Result<PathBuf> {
    let parent = std::env::temp_dir();
    let process = std::process::id();
    for attempt in 0..FOLDER_ATTEMPTS_MAX {
        let folder = parent.join(format!("tgctl-edit-{process}-{attempt}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The person's editor.
#[derive(Clone, Debug)]
pub(super) struct Editor(String);

impl Editor {
    /// What `VISUAL`, else `EDITOR` says: a program and its arguments, as a shell reads them.
    pub(super) fn of_environment() -> Self {
        let named = ["VISUAL", "EDITOR"].into_iter().find_map(|name| {
            let value = std::env::var(name).ok()?;
            (!value.trim().is_empty()).then_some(value)
        });
        Self(named.unwrap_or_else(|| EDITOR.to_owned()))
    }

    /// Opens a draft, waits until the editor ends, and gives the text.
    pub(super) async fn open(&self, draft: &Draft) -> Result<String, Failure> {
        let Self(editor) = self.clone();
        let failed = |why: String| {
            Failure::new(format!("the editor `{}` {why}", self.0))
                .hint("VISUAL or EDITOR names another one, such as EDITOR='code --wait'")
        };
        // What is typed in the editor is the editor's: Ctrl-C there does not end this program.
        let _interrupts = signal(SignalKind::interrupt());
        let file = draft.path().to_owned();
        let ended = spawn_blocking(move || {
            Command::new("sh")
                .args(["-c", &format!("{editor} \"$@\""), &editor])
                .arg(file)
                .status()
        });
        let ended = ended.await.map_err(|error| failed(error.to_string()))?;
        match ended {
            Ok(status) if status.success() => draft.read(),
            Ok(status) => Err(failed(format!("ended with {status}"))),
            Err(error) => Err(failed(format!("cannot be started: {error}"))),
        }
    }
}

/// Tells a mistake, and asks a person at a terminal whether to open the editor again.
pub(super) async fn ask_again(mistake: &Failure) -> Again {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Again::Stop;
    }
    output::remark(&mistake.to_string());
    eprint!("Open the editor again? [Y/n] ");
    let answer = spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map(|read| (read, answer))
    });
    let interrupted = async {
        match signal(SignalKind::interrupt()) {
            Ok(mut interrupts) => drop(interrupts.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = interrupted => Again::Stop,
        answer = answer => match answer {
            Ok(Ok((read, answer))) if read > 0 => understood(&answer),
            _ => Again::Stop,
        },
    }
}

/// An empty answer is yes.
fn understood(answer: &str) -> Again {
    match answer.trim().to_ascii_lowercase().as_str() {
        "" | "y" | "yes" => Again::Edit,
        _ => Again::Stop,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_can_read_a_draft_and_nothing_is_left_of_it() {
        let draft = Draft::new("role", "kind: role\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&draft.folder), mode(&draft.file)), (0o700, 0o600));
        assert_eq!(draft.read().unwrap(), "kind: role\n");
        draft.remove();
        assert!(!draft.folder.exists());
    }

    #[test]
    fn only_a_yes_opens_the_editor_again() {
        for (answer, expected) in [
            ("\n", Again::Edit),
            ("Y\n", Again::Edit),
            ("no\n", Again::Stop),
            ("what\n", Again::Stop),
        ] {
            assert_eq!(understood(answer), expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn an_editor_has_arguments_and_one_that_fails_says_so() {
        let draft = Draft::new("role", "a\n").unwrap();
        let editor = Editor("sed -i -e 's/a/b c/'".to_owned());
        assert_eq!(editor.open(&draft).await.unwrap(), "b c\n");
        let failure = Editor("false".to_owned()).open(&draft).await.unwrap_err();
        assert!(failure.message().contains("`false` ended"), "{failure}");
        draft.remove();
    }
}
