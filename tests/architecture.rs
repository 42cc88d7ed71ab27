//! The rules of the source tree, checked.

#[test]
fn every_crate_is_a_member() {
    let manifest = include_str!("../Cargo.toml");
    for member in ["proto", "identity", "proxy", "control-plane", "injector", "cli"] {
        assert!(manifest.contains(&format!("\"{member}\"")), "{member} is missing from the workspace");
    }
}
