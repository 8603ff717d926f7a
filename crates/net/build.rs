//! Compiles `proto/lockstep/v1/lockstep.proto` in pure Rust: no `protoc` on the machine.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(["lockstep/v1/lockstep.proto"], [&root])?;
    tonic_prost_build::configure()
        .bytes(".lockstep.v1")
        .build_transport(false)
        .codec_path("crate::wire::Codec")
        .compile_fds(files)?;
    Ok(())
}
