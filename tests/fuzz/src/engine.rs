//! libFuzzer around one target, whose name is in `TULLE_FUZZ_TARGET`. `run.py` builds and starts it; with
//! `TULLE_FUZZ_SEEDS` it writes the seeds of the target into that folder first.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tulle_fuzz::{Target, seeds, target};

static TARGET: OnceLock<Target> = OnceLock::new();

#[expect(clippy::disallowed_methods, reason = "libFuzzer has the arguments to itself")]
fn chosen() -> Target {
    let name = std::env::var("TULLE_FUZZ_TARGET").expect("TULLE_FUZZ_TARGET names a target");
    let chosen = target(&name).expect("TULLE_FUZZ_TARGET names a target");
    if let Some(folder) = std::env::var_os("TULLE_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in seeds::of(&name).expect("golden inputs").iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).expect("the folder of seeds is there");
        }
    }
    chosen
}

fuzz_target!(
    init: {
        TARGET.get_or_init(chosen);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
