//! Generates `proto/src/gen` from `proto/tidegate/v1/*.proto`, the auth service's client of etcd from
//! `proto/etcd/*.proto`, both without protoc, and reference pages from code.
//!
//! The output is checked in, so that a build needs no compiler of protocol buffers; `cargo xtask gen` writes it and
//! `cargo xtask ci` runs this with `--check`, which fails when the checked-in files are not what the sources give.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use prost::Message;
use tidegate_core::ErrorCode;
use tidegate_wire::{SqlState, mysql::reply};

const FILES: [&str; 17] = [
    "tidegate/v1/access.proto",
    "tidegate/v1/audit.proto",
    "tidegate/v1/backup.proto",
    "tidegate/v1/discovery.proto",
    "tidegate/v1/doctor.proto",
    "tidegate/v1/front_doors.proto",
    "tidegate/v1/health.proto",
    "tidegate/v1/identity.proto",
    "tidegate/v1/inventory.proto",
    "tidegate/v1/joining.proto",
    "tidegate/v1/people.proto",
    "tidegate/v1/presence.proto",
    "tidegate/v1/query.proto",
    "tidegate/v1/requests.proto",
    "tidegate/v1/resources.proto",
    "tidegate/v1/trust_admin.proto",
    "tidegate/v1/tunnel.proto",
];
/// What is used of etcd's own contract.
const ETCD_FILES: [&str; 2] = ["etcd/kv.proto", "etcd/rpc.proto"];
/// What is generated, and where it is checked in, seen from the workspace's folder.
const OUTPUTS: [(&str, &str); 7] = [
    ("etcdserverpb.rs", "auth/src/store/etcd/gen/etcdserverpb.rs"),
    ("mvccpb.rs", "auth/src/store/etcd/gen/mvccpb.rs"),
    ("tidegate.v1.rs", "proto/src/gen/tidegate.v1.rs"),
    ("descriptor.bin", "proto/src/gen/descriptor.bin"),
    ("errors.md", "docs/reference/errors.md"),
    ("labels.md", "docs/reference/labels.md"),
    ("query-fields.md", "docs/reference/query-fields.md"),
];

fn main() -> anyhow::Result<()> {
    let check = std::env::args().any(|arg| arg == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let scratch = std::env::temp_dir().join(format!("tidegate-protogen-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let outcome = generate(&root.join("proto"), &scratch).and_then(|()| {
        if check {
            compare(&scratch, &root)
        } else {
            copy(&scratch, &root)
        }
    });
    fs::remove_dir_all(&scratch)?;
    outcome
}

fn generate(root: &Path, out: &Path) -> anyhow::Result<()> {
    let descriptors = protox::compile(FILES, [root]).context("the proto files do not compile")?;
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    fs::write(
        out.join("errors.md"),
        tidegate_core::error::page::reference(mysql_error),
    )?;
    fs::write(out.join("labels.md"), tidegate_core::generated::reference())?;
    fs::write(
        out.join("query-fields.md"),
        tidegate_core::predicate::reference::reference(),
    )?;
    tonic_prost_build::configure()
        .out_dir(out)
        .btree_map(".")
        .codec_path("crate::codec::SmallBuffers")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .context("generating code failed")?;
    generate_etcd(root, out)
}

/// What a MySQL client reads for a code.
fn mysql_error(code: ErrorCode) -> (u16, String) {
    let state = SqlState::from_bytes(code.sqlstate().as_bytes());
    let (number, state) = reply::like(state.unwrap_or(SqlState::INTERNAL_ERROR));
    (number, state.as_str().to_owned())
}

/// A client only, whose keys and values share the buffer that they arrived in.
fn generate_etcd(root: &Path, out: &Path) -> anyhow::Result<()> {
    let descriptors =
        protox::compile(ETCD_FILES, [root]).context("the proto files of etcd do not compile")?;
    tonic_prost_build::configure()
        .out_dir(out)
        .build_server(false)
        .bytes(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .context("generating code for etcd failed")
}

fn copy(scratch: &Path, root: &Path) -> anyhow::Result<()> {
    for (name, place) in OUTPUTS {
        let place = root.join(place);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(scratch.join(name), place)?;
    }
    Ok(())
}

fn compare(scratch: &Path, root: &Path) -> anyhow::Result<()> {
    for (name, place) in OUTPUTS {
        if fs::read(scratch.join(name))? != fs::read(root.join(place)).unwrap_or_default() {
            bail!(
                "{place} is not what its source gives: run `cargo xtask gen` and commit the result"
            );
        }
    }
    Ok(())
}
