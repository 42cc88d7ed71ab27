//! Bad input for every rule: a rule that lets it through is a defect of the checker.

use crate::ranks::CRATES;
use crate::source::Source;
use crate::{check_file, manifests, module_path, pages, rules, test_modules};

const DOC: &str = "//! Doc.\n";

/// Messages for `code` standing at `path`.
fn messages(path: &str, code: &str) -> Vec<String> {
    let source = Source::parse(&format!("{DOC}{code}")).expect("test input is Rust");
    check_file(path, &source, &Default::default()).into_iter().map(|(line, text)| format!("{line}: {text}")).collect()
}

fn refused(path: &str, code: &str, part: &str) {
    let found = messages(path, code);
    assert!(found.iter().any(|m| m.contains(part)), "{path}: `{code}` should be refused for `{part}`, got {found:?}");
}

fn accepted(path: &str, code: &str) {
    let found = messages(path, code);
    assert!(found.is_empty(), "{path}: `{code}` should pass, got {found:?}");
}

#[test]
fn imports_go_strictly_down() {
    refused("proxy/src/base/addr.rs", "use crate::config::Snapshot;", "upward");
    refused("proxy/src/base/addr.rs", "use crate::{base::size, config::Snapshot};", "upward");
    refused("proxy/src/tls/connect.rs", "use crate::codec::body::Body;", "sideways");
    refused("proxy/src/tls/connect.rs", "use super::super::codec::Body;", "sideways");
    refused("proxy/src/conn.rs", "use super::pool;", "upward");
    refused("proxy/src/relay/mod.rs", "fn f() { let x = crate::forward::retry::budget(); }", "upward");
    refused("proxy/src/relay/mod.rs", "fn f() { tracing::info!(\"{}\", crate::http::respond()); }", "upward");
    refused("proxy/src/relay/mod.rs", "type X = Vec<crate::http::Head>;", "upward");
    refused("proxy/src/tls/mod.rs", "mod inside { use super::super::pool::Key; }", "upward");
    refused("proxy/src/conn.rs", "use crate::*;", "hides");
    refused("proxy/src/conn.rs", "use crate::Failure;", "not in a ranked module");
    refused("proxy/src/novel.rs", "", "has no rank");
    refused("proxy/src/app.rs", "fn f() { crate::main::run() }", "upward");
    refused("control-plane/src/registry/mod.rs", "use crate::source::file;", "may import ranks up to 0");
    refused("control-plane/src/identity/mod.rs", "use crate::registry::Mesh;", "may import ranks up to 0");
    refused("injector/src/redirect/rules.rs", "use super::apply;", "upward");
}

#[test]
fn imports_that_are_right_pass() {
    accepted(
        "proxy/src/forward/attempt.rs",
        "use crate::{balance::pick, pool::{self, Key}};\nuse super::retry::Budget;",
    );
    accepted("proxy/src/config/compile.rs", "use crate::base::addr::Upstream;\nuse super::{cluster::Cluster, reject};");
    accepted("proxy/src/codec/h1/server.rs", "use super::super::body::Body;\nuse super::head::Head;");
    accepted("proxy/src/xds/mod.rs", "use crate::tls::keys::Keys;\nuse crate::config::publish;");
    accepted("proxy/src/main.rs", "use tulle_proxy::app;\nfn main() { crate::helper(); }");
    accepted("proxy/src/lib.rs", "pub mod app;\npub use app::run;");
    accepted("control-plane/src/xds/push.rs", "use crate::translate::Resource;\nuse crate::registry::Mesh;");
    accepted("proxy/src/tls/mod.rs", "mod inside { use super::connect; fn f() { self::g() } }");
}

#[test]
fn beside_the_path_is_narrower_than_the_rank() {
    refused("proxy/src/xds/mod.rs", "use crate::worker::Worker;", "may import ranks up to 1");
    refused("proxy/src/admin/mod.rs", "use crate::tls::accept;", "may import ranks up to 1");
    refused("proxy/src/admin/mod.rs", "use crate::xds::session;", "sideways");
}

#[test]
fn strings_comments_and_tests_are_not_imports() {
    let code = "// crate::pool::x\n/// See [`crate::pool::Key`].\npub(crate) fn f() { let _ = \"crate::pool\"; }";
    accepted("proxy/src/conn.rs", code);
    accepted("proxy/src/conn.rs", "#[cfg(test)]\nmod tests { use crate::pool::Key; use super::*; }");
    accepted("proxy/src/conn.rs", "#[cfg(test)]\nuse crate::pool::{Key, Other};\nfn f() {}");
    refused(
        "proxy/src/conn.rs",
        "#[cfg(test)]\nuse crate::pool::Key;\nfn f() { crate::pool::g() }",
        "4: imports upward",
    );
    refused("proxy/src/conn.rs", "#[cfg(not(test))]\nuse crate::pool::Key;", "upward");
    refused("proxy/src/conn.rs", "struct S { #[cfg(test)] a: u8, b: crate::pool::Key }", "upward");
}

#[test]
fn files_of_test_modules_are_test_only() {
    let sources = vec![
        ("proxy/src/lib.rs".to_owned(), Source::parse("#[cfg(test)] mod testing; mod conn;")),
        ("proxy/src/conn.rs".to_owned(), Source::parse("#[cfg(test)] mod tests;")),
    ];
    let modules = test_modules(&sources);
    let source = Source::parse("//! Doc.\nuse crate::pool::Key;").expect("Rust");
    for path in ["proxy/src/testing/clock.rs", "proxy/src/testing/mod.rs", "proxy/src/conn/tests.rs"] {
        assert!(check_file(path, &source, &modules).is_empty(), "{path} is test-only");
    }
    assert!(!check_file("proxy/src/conn.rs", &source, &modules).is_empty());
}

#[test]
fn a_file_starts_with_its_doc() {
    let source = Source::parse("fn f() {}").expect("Rust");
    let found = rules::check("cli/src/main.rs", &source, false);
    assert!(found.iter().any(|(_, m)| m.contains("`//!`")), "{found:?}");
}

#[test]
fn the_budget_counts_code_outside_tests() {
    let long = "fn f() {}\n".repeat(rules::FILE_BUDGET + 1);
    refused("cli/src/main.rs", &long, "lines of code outside tests");
    let comments = "// a comment\n\n/// a doc\nfn f() {}\n".repeat(rules::FILE_BUDGET - 1);
    accepted("cli/src/main.rs", &comments);
    accepted("cli/src/main.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}\n}}"));
    let literal = format!("const X: &str = \"{}\";", "\n".repeat(rules::FILE_BUDGET + 1));
    refused("cli/src/main.rs", &literal, "lines of code outside tests");
}

#[test]
fn shared_state_has_its_homes() {
    for word in ["Mutex<u8>", "std::sync::RwLock<u8>", "AtomicU64", "AtomicBool", "ArcSwap<u8>", "ArcSwapAny<u8>"] {
        refused("proxy/src/pool/mod.rs", &format!("struct S {{ x: {word} }}"), "shares state");
        accepted("proxy/src/drain.rs", &format!("struct S {{ x: {word} }}"));
        accepted("control-plane/src/xds/mod.rs", &format!("struct S {{ x: {word} }}"));
    }
    refused("proxy/src/pool/mod.rs", "use std::sync::{Arc, atomic::{AtomicUsize as N}};", "shares state");
    accepted("proxy/src/pool/mod.rs", "use std::sync::Arc;\nfn f() { let _ = \"Mutex\"; } // Mutex");
}

#[test]
fn unsafe_has_its_files() {
    refused("proxy/src/relay/copy.rs", "fn f() { unsafe { g() } }", "`unsafe`");
    refused("identity/src/svid.rs", "unsafe fn f() {}", "`unsafe`");
    accepted("proxy/src/relay/splice.rs", "fn f() { unsafe { g() } }");
    accepted("proxy/src/relay/copy.rs", "#![expect(unsafe_code, reason = \"unsafe\")]\nfn f() {}");
}

#[test]
fn codec_types_stay_in_codec() {
    refused("proxy/src/pool/h2.rs", "use h2::client::SendRequest;", "crate `h2`");
    refused("proxy/src/pool/h2.rs", "fn f() { ::h2::client::handshake() }", "crate `h2`");
    refused("proxy/src/http/mod.rs", "fn f(x: httparse::Request) {}", "crate `httparse`");
    refused("proxy/src/http/mod.rs", "use {httparse::Request, std::fmt};", "crate `httparse`");
    refused("proxy/src/codec/reply.rs", "use h2::client::SendRequest;", "crate `h2`");
    accepted("proxy/src/codec/h1/parse.rs", "use httparse::Request;");
    accepted("proxy/src/pool/mod.rs", "mod h2;\nfn f() { h2::get() }");
    accepted("proxy/src/pool/mod.rs", "mod h2;\npub(crate) use h2::Lease;");
    accepted("proxy/src/pool/mod.rs", "use crate::codec::h2;\nfn f() { h2::get() }");
}

#[test]
fn the_environment_is_read_in_one_place() {
    refused("proxy/src/app.rs", "fn f() { std::env::var(\"X\"); }", "environment");
    refused("control-plane/src/app.rs", "use std::env;\nfn f() { env::vars_os(); }", "environment");
    accepted("proxy/src/config/bootstrap.rs", "fn f() { std::env::var(\"X\"); }");
    accepted("proxy/src/app.rs", "const V: &str = env!(\"CARGO_PKG_VERSION\");");
}

#[test]
fn decisions_are_pure() {
    refused("proxy/src/balance/p2c.rs", "fn f() { std::time::Instant::now(); }", "pure");
    refused("proxy/src/route/mod.rs", "use tokio::sync::watch;", "pure");
    accepted("proxy/src/balance/p2c.rs", "fn f(now: std::time::Instant) {}");
}

#[test]
fn folder_style() {
    let root = scratch("folders");
    std::fs::create_dir_all(root.join("proxy/src/tls")).expect("a temporary folder");
    let found = rules::check_folder_style(&root, "proxy/src/tls.rs");
    assert!(found.is_some_and(|m| m.contains("mod.rs")));
    assert!(rules::check_folder_style(&root, "proxy/src/tls/mod.rs").is_none());
    std::fs::remove_dir_all(&root).expect("the temporary folder");
}

/// A folder of this test alone.
fn scratch(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("tulle-architecture-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

#[test]
fn crates_are_ordered() {
    let found = manifests::check_order("proto", "[dependencies]\ntulle-identity.workspace = true");
    assert_eq!(found.len(), 1, "{found:?}");
    let found = manifests::check_order("identity", "[dependencies]\ntulle-proxy = { path = \"../proxy\" }");
    assert_eq!(found.len(), 1, "{found:?}");
    let right = "[package]\nname = \"tulle-proxy\"\n[dependencies]\ntulle-proto.workspace = true\n[dev-dependencies]\ntulle-x = \"1\"";
    assert!(manifests::check_order("proxy", right).is_empty());
}

#[test]
fn unused_dependencies_are_found() {
    let manifest = "[dependencies]\nfutures-util = \"1\"\nbytes = \"1\"\nrustls-webpki = \"1\"\n[dev-dependencies]\ntempfile = \"1\"\n";
    let source =
        Source::parse("use futures_util::x; use webpki::y;\n#[cfg(test)] mod tests { use {bytes::a, tempfile::b}; }");
    let mut words = manifests::Words::default();
    for word in source.expect("Rust").words {
        words.code.extend((!word.test).then(|| word.text.clone()));
        words.all.insert(word.text);
    }
    let found = manifests::check_unused("proxy", manifest, &words);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("`bytes`"), "used in tests only: {found:?}");
    words.all.clear();
    assert_eq!(manifests::check_unused("proxy", manifest, &words).len(), 2);
}

#[test]
fn dead_links_are_found() {
    let root = scratch("links");
    std::fs::create_dir_all(root.join("docs")).expect("a temporary folder");
    std::fs::write(root.join("README.md"), "# Tulle\n## What it is, in short\n").expect("a page");
    let bad = |text| {
        let found = pages::check_links(&root, "docs/x.md", text);
        found.into_iter().map(|(line, message)| format!("{line}: {message}")).collect::<Vec<_>>()
    };
    assert_eq!(bad("see [a](../nowhere.md)\nand [b](../README.md)").len(), 1);
    assert_eq!(
        bad("[a](../README.md#what-it-is-in-short)\n[b](../README.md#gone)"),
        ["2: link to `../README.md#gone`: no such heading"]
    );
    assert!(bad("`[b](gone)` [c](https://x.example/y)\n```\n[d](gone)\n```").is_empty());
    std::fs::remove_dir_all(&root).expect("the temporary folder");
}

#[test]
fn commands_of_the_readme_must_be_in_ci() {
    let readme = "```sh\n$ cargo run --release -p tulle -- demo   # a minute\ncargo test --workspace\nls\n```\n```rust\ncargo no\n```\n";
    let ci = "step cargo run --release --locked -p tulle -- demo\n# cargo test --workspace\n";
    let bad = pages::check_commands(readme, ci);
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(bad[0].1.contains("cargo test --workspace"), "{bad:?}");
    assert_eq!(pages::commands(readme).len(), 2);
}

#[test]
fn tables_are_well_formed() {
    for krate in CRATES {
        let mut seen = std::collections::BTreeSet::new();
        for unit in krate.units {
            assert!(seen.insert(unit.path), "{}: `{}` is listed twice", krate.dir, unit.path);
        }
    }
    assert_eq!(module_path("proxy/src/codec/h1/mod.rs"), ["codec", "h1"]);
    assert!(module_path("proxy/src/lib.rs").is_empty());
    assert_eq!(module_path("injector/src/bin/tulle-init.rs"), ["bin", "tulle-init"]);
}
