//! Every target over its corpus: inputs to start from, and those that broke something once.

use std::path::{Path, PathBuf};

use tulle_fuzz::{TARGETS, seeds};

#[test]
fn every_input_of_the_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let seeds = seeds::of(target.name).expect("golden inputs");
        let mut inputs: Vec<_> = (0..).zip(seeds).map(|(number, seed)| (format!("seed {number}"), seed)).collect();
        if let Ok(files) = std::fs::read_dir(corpus.join(target.name)) {
            let read = |path: PathBuf| (path.display().to_string(), std::fs::read(&path).expect("a listed file"));
            inputs.extend(files.flatten().map(|file| read(file.path())));
        }
        assert!(!inputs.is_empty(), "{} has nothing to start from", target.name);
        for (name, input) in inputs {
            // Shown when it fails.
            println!("{}: {name}", target.name);
            (target.run)(&input);
            (target.run)(input.get(..input.len() / 2).unwrap_or_default());
        }
    }
}

#[test]
fn every_folder_belongs_to_a_target() {
    for folder in ["corpus", "dict"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(folder).expect("a folder of this package").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = TARGETS.iter().any(|target| Some(target.name) == name.split('.').next());
            assert!(known, "{name} belongs to no target");
        }
    }
}
