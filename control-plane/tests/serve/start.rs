//! Starting: what is refused, what is left behind.

use std::os::unix::fs::PermissionsExt as _;

use tokio::net::TcpListener;
use tulle_control_plane::app;

use super::world::{World, settings};

#[tokio::test]
async fn plaintext_is_refused_anywhere_but_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("mesh")).unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:15010"] {
        let mut settings = settings(&dir);
        settings.xds_plaintext_address = Some(address.parse().unwrap());
        let refused = app::start(settings).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("loopback") && refused.contains(address), "{refused}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("mesh")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&dir);
    settings.admin_address = taken.local_addr().unwrap();
    let refused = app::start(settings).await.map(|_| ()).unwrap_err();
    assert!(format!("{refused:#}").contains(&taken.local_addr().unwrap().to_string()), "{refused:#}");
}

#[tokio::test]
async fn keys_are_private_and_the_bundle_survives_a_restart() {
    let world = World::start().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for entry in std::fs::read_dir(world.state()).unwrap() {
        let path = entry.unwrap().path();
        let public = path.ends_with("trust-bundle.pem");
        if path.is_file() {
            assert_eq!(mode(&path), if public { 0o644 } else { 0o600 }, "{}", path.display());
        }
    }
    assert_eq!(mode(&world.state()), 0o700);
    let before = world.bundle().hash();
    let world = world.restart().await;
    assert_eq!(world.bundle().hash(), before);
}
