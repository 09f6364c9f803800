//! Empty on purpose: `links = "kastor"` needs a build script, and makes two versions of the core in one build an error.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
