//! The committed inputs of fuzzing, as a test of the crate whose targets they are for.

use std::path::Path;

type Target = (&'static str, fn(&[u8]));

/// Runs each target over its folder of `fuzz/corpus`.
pub(crate) fn corpus(targets: &[Target]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in targets {
        let folder = corpus.join(name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let file = file.expect("an entry").path();
            println!("{}", file.display());
            target(&std::fs::read(&file).expect("a file"));
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
