//! Checks that the generated gRPC code is current. `UPDATE_EXPECT=1 cargo test -p lockgate-teleport
//! --test generated` rewrites it.

#![allow(
    clippy::disallowed_methods,
    reason = "a variable asks the test to rewrite the file"
)]

use std::path::Path;

#[test]
fn the_generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (proto, package) in [
        ("auditlog", "teleport.auditlog.v1"),
        ("authservice", "proto"),
    ] {
        let descriptors = protox::compile([format!("{proto}.proto")], [root.join("proto")])
            .expect("the proto file compiles");
        let out = tempfile::tempdir().expect("a temporary directory");
        tonic_prost_build::configure()
            .build_transport(false)
            .bytes(".")
            .out_dir(out.path())
            .compile_fds(descriptors)
            .expect("the descriptors make code");
        let generated = std::fs::read_to_string(out.path().join(format!("{package}.rs")))
            .expect("one file for the package");
        let committed = root.join("src/proto").join(format!("{proto}.rs"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&committed, &generated).expect("the source directory can be written");
        }
        let current = std::fs::read_to_string(&committed).expect("the committed file can be read");
        assert!(
            current == generated,
            "`{}` is not current: run `UPDATE_EXPECT=1 cargo test -p lockgate-teleport --test generated`",
            committed.display()
        );
    }
}
