//! Generates `proto/src/gen` from `proto/tidegate/v1/*.proto`, without protoc.
//!
//! The output is checked in, so that a build needs no compiler of protocol buffers; `cargo xtask gen` writes it and
//! `cargo xtask ci` runs this with `--check`, which fails when the checked-in files are not what the sources give.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use prost::Message;

const FILES: [&str; 8] = [
    "tidegate/v1/access.proto",
    "tidegate/v1/audit.proto",
    "tidegate/v1/discovery.proto",
    "tidegate/v1/identity.proto",
    "tidegate/v1/inventory.proto",
    "tidegate/v1/presence.proto",
    "tidegate/v1/resources.proto",
    "tidegate/v1/tunnel.proto",
];
const OUTPUTS: [&str; 2] = ["tidegate.v1.rs", "descriptor.bin"];

fn main() -> anyhow::Result<()> {
    let check = std::env::args().any(|arg| arg == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let wanted = root.join("src/gen");
    let scratch = std::env::temp_dir().join(format!("tidegate-protogen-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let outcome = generate(&root, &scratch).and_then(|()| {
        if check {
            compare(&scratch, &wanted)
        } else {
            copy(&scratch, &wanted)
        }
    });
    fs::remove_dir_all(&scratch)?;
    outcome
}

fn generate(root: &Path, out: &Path) -> anyhow::Result<()> {
    let descriptors = protox::compile(FILES, [root]).context("the proto files do not compile")?;
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .out_dir(out)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .context("generating code failed")
}

fn copy(scratch: &Path, wanted: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(wanted)?;
    for name in OUTPUTS {
        fs::copy(scratch.join(name), wanted.join(name))?;
    }
    Ok(())
}

fn compare(scratch: &Path, wanted: &Path) -> anyhow::Result<()> {
    for name in OUTPUTS {
        if fs::read(scratch.join(name))? != fs::read(wanted.join(name)).unwrap_or_default() {
            bail!(
                "proto/src/gen/{name} is not what the proto files give: run `cargo xtask gen` and commit the result"
            );
        }
    }
    Ok(())
}
