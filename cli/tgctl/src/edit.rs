//! `tgctl edit`: a resource as YAML in an editor, and back.
//!
//! A text that says the same as before changes nothing. One with a mistake is told with its line and column, and can be
//! edited again. What is written replaces the resource as it was read: when somebody else changed it meanwhile nothing is
//! written, and the text is kept in a file, as it is whenever it could not be used.
//!
//! Here: what happens in which order. Running the editor and keeping its file: [`draft`]; reading and writing each kind:
//! [`kinds`].

mod draft;
mod kinds;

use tidegate_console::{Failure, client::Client, output, table::visible};
use tonic::Code;

use crate::{create, resources::Reference};
use draft::{Again, Draft, Editor};
use kinds::Refused;

/// What a text comes to.
enum Step {
    /// It was written.
    Written,
    /// It cannot be used; the person may change it.
    Mistake(Failure),
    /// No other text would help.
    Over(Failure),
}

pub(crate) async fn edit(client: &Client, reference: Reference) -> Result<(), Failure> {
    let Reference { kind, name } = reference;
    let Some(name) = name else {
        return Err(Failure::usage("which one is to be edited?").hint("tgctl edit KIND/NAME"));
    };
    let loaded = kinds::load(client, kind, &name).await?;
    let what = format!("{} \"{}\"", loaded.word, visible(&loaded.name));
    let editor = Editor::of_environment();
    let draft = Draft::new(loaded.word, &loaded.yaml)?;
    loop {
        let text = match editor.open(&draft).await {
            Ok(text) => text,
            Err(failure) => return Err(draft.kept(failure)),
        };
        if text == loaded.yaml || text.trim().is_empty() {
            draft.remove();
            return output::print(&format!("{what} is left as it is.\n"));
        }
        let mistake = match step(client, &loaded, &text, &draft).await {
            Step::Written => {
                draft.remove();
                return output::print(&format!("{what} has been updated.\n"));
            }
            Step::Over(failure) => return Err(draft.kept(failure)),
            Step::Mistake(failure) => failure,
        };
        match draft::ask_again(&mistake).await {
            Again::Edit => {}
            Again::Stop => return Err(draft.kept(mistake)),
        }
    }
}

/// Reads a text and writes what it asks for.
async fn step(client: &Client, loaded: &kinds::Loaded, text: &str, draft: &Draft) -> Step {
    let (mut wanted, warnings) = match create::parse(text, draft.path()) {
        Ok(parsed) => parsed,
        Err(failure) => return Step::Mistake(failure),
    };
    create::warn(draft.path(), &warnings);
    let (Some(one), true) = (wanted.pop(), wanted.is_empty()) else {
        let failure = Failure::new("the text must hold one resource, the one that is edited");
        return Step::Mistake(failure);
    };
    let (word, name) = one.reference();
    if (word, name) != (loaded.word, loaded.name.as_str()) {
        let failure = Failure::new(format!(
            "the text is of {word}/{name}, and {}/{} is edited: kind and name cannot change",
            loaded.word, loaded.name
        ))
        .hint("`tgctl create` makes one of another name");
        return Step::Mistake(failure);
    }
    match kinds::write(client, loaded, one).await {
        Ok(()) => Step::Written,
        Err(Refused { failure, code }) => match code {
            Some(Code::InvalidArgument | Code::FailedPrecondition) => Step::Mistake(failure),
            Some(Code::Aborted) => Step::Over(failure.hint(
                "somebody else changed it meanwhile: run `tgctl edit` again and bring over what you wrote",
            )),
            _ => Step::Over(failure),
        },
    }
}
