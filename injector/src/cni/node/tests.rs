//! A node's folders: found, changed by others meanwhile, and left as they were.

use std::collections::BTreeMap;

use super::*;

const LIST: &str = r#"{"name":"pods",  "cniVersion":"1.0.0","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#;
const SINGLE: &str = r#"{"name":"pods", "cniVersion":"0.3.1", "type":"bridge"}"#;

/// Folders that are gone when dropped.
struct Folders(PathBuf);

impl Folders {
    fn with(files: &[(&str, &str)]) -> (Self, Node) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("tulle-node-{}-{number}", std::process::id()));
        let node = Node {
            bin_dir: root.join("bin"),
            conf_dir: root.join("conf"),
            exclude_namespaces: vec!["monitoring".to_owned()],
        };
        fs::create_dir_all(&node.bin_dir).unwrap();
        fs::create_dir_all(&node.conf_dir).unwrap();
        for (name, text) in files {
            fs::write(node.conf_dir.join(name), text).unwrap();
        }
        (Self(root), node)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(node: &Node) -> BTreeMap<String, String> {
    let read =
        |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap());
    fs::read_dir(&node.conf_dir).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

fn types(node: &Node, name: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(&files(node)[name]).unwrap();
    list["plugins"].as_array().unwrap().iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn added_once_and_taken_out_to_the_byte() {
    let (_root, node) = Folders::with(&[("10-pods.conflist", LIST), ("20-other.conflist", LIST), ("README", "x")]);
    let before = files(&node);
    let first = node.conf_dir.join("10-pods.conflist");
    assert_eq!(node.look().unwrap(), Found::Added(first.clone()));
    assert_eq!(node.look().unwrap(), Found::InPlace(first));
    assert_eq!(types(&node, "10-pods.conflist"), ["bridge", "portmap", "tulle-cni"]);
    assert_eq!(files(&node)["20-other.conflist"], LIST);
    node.write_kubeconfig("{}").unwrap();
    node.remove().unwrap();
    assert_eq!(files(&node), before);
    node.remove().unwrap();
    assert_eq!(files(&node), before);
}

#[test]
fn a_single_configuration_becomes_a_list_and_comes_back() {
    for name in ["10-pods.conf", "10-pods.json"] {
        let (_root, node) = Folders::with(&[(name, SINGLE)]);
        let before = files(&node);
        assert_eq!(node.look().unwrap(), Found::Added(node.conf_dir.join("10-pods.conflist")));
        assert_eq!(types(&node, "10-pods.conflist"), ["bridge", "tulle-cni"]);
        assert!(!files(&node).contains_key(name));
        // Its owner writes it again, as many do when they start.
        fs::write(node.conf_dir.join(name), SINGLE.replace("bridge", "ptp")).unwrap();
        assert_eq!(node.look().unwrap(), Found::Added(node.conf_dir.join("10-pods.conflist")));
        assert_eq!(types(&node, "10-pods.conflist"), ["ptp", "tulle-cni"]);
        fs::write(node.conf_dir.join(name), SINGLE).unwrap();
        node.look().unwrap();
        node.remove().unwrap();
        assert_eq!(files(&node), before);
    }
    let (_root, node) = Folders::with(&[("10-pods.conf", SINGLE), ("10-pods.conflist", LIST)]);
    let before = files(&node);
    assert!(matches!(node.look(), Err(NodeError::Both(_))));
    assert_eq!(files(&node), before);
}

#[test]
fn what_others_change_meanwhile_is_theirs() {
    let (_root, node) = Folders::with(&[("10-pods.conflist", LIST)]);
    node.look().unwrap();
    // Removed by the network's owner, who writes its own anew.
    let newer = LIST.replace("portmap", "bandwidth");
    fs::write(node.conf_dir.join("10-pods.conflist"), &newer).unwrap();
    assert!(matches!(node.look().unwrap(), Found::Added(_)));
    assert_eq!(types(&node, "10-pods.conflist"), ["bridge", "bandwidth", "tulle-cni"]);
    // Another plugin chains itself after ours.
    let text = files(&node)["10-pods.conflist"].clone();
    let other = conflist::with(&text.replace(TYPE, "x"), &json!({"type": "tulle-cni"})).unwrap().unwrap();
    fs::write(
        node.conf_dir.join("10-pods.conflist"),
        other.replace("tulle-cni\"", "other\"").replace("\"x\"", "\"tulle-cni\""),
    )
    .unwrap();
    node.remove().unwrap();
    let left: Vec<_> = files(&node).into_keys().collect();
    assert_eq!(left, ["10-pods.conflist"]);
    assert_eq!(types(&node, "10-pods.conflist"), ["bridge", "bandwidth", "other"]);
}

#[test]
fn no_network_yet_and_one_that_is_broken() {
    let (_root, node) = Folders::with(&[]);
    assert_eq!(node.look().unwrap(), Found::NoNetwork);
    fs::write(node.conf_dir.join("10-pods.conflist"), "{").unwrap();
    assert!(matches!(node.look(), Err(NodeError::Edit { .. })));
    assert_eq!(files(&node)["10-pods.conflist"], "{");
    node.remove().unwrap();
}

#[test]
fn the_plugin_and_its_tools_are_placed_and_only_root_reads_the_token() {
    let (root, node) = Folders::with(&[]);
    let tools = root.0.join("tools");
    fs::create_dir_all(&tools).unwrap();
    fs::write(tools.join("nft"), "program").unwrap();
    let program = root.0.join("program");
    fs::write(&program, "plugin").unwrap();
    node.place(&program, &tools).unwrap();
    for (path, content) in [("tulle-cni", "plugin"), ("tulle-cni.d/nft", "program")] {
        let path = node.bin_dir.join(path);
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(mode(&path).unwrap(), 0o755);
    }
    node.write_kubeconfig("{}").unwrap();
    assert_eq!(mode(&node.kubeconfig()).unwrap(), 0o600);
    node.remove().unwrap();
    let left: Vec<_> = fs::read_dir(&node.bin_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tulle-cni"]);
}
