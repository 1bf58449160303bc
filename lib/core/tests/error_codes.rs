//! Every error code is given somewhere: a code that nothing gives would be a line of the reference that misleads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidegate_core::ErrorCode;

/// Where failures of sessions and diagnoses come about.
const PLACES: [&str; 4] = ["auth/src", "dbservice/src", "lib/aws/src", "proxy/src"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("they can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs")
            && !path.to_string_lossy().contains("test")
        {
            found.push(path);
        }
    }
}

#[test]
fn every_error_code_is_given_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for place in PLACES {
        sources(&root.join(place), &mut files);
    }
    let text: String = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .map(|text| {
            text.split("mod tests {")
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    for code in ErrorCode::ALL {
        assert!(text.contains(&format!("ErrorCode::{code:?}")), "{code:?}");
    }
}
