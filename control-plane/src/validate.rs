//! What is wrong with a directory of manifests: what `tulle validate` prints. Reads once, starts nothing.

use std::path::Path;

use crate::model::{Delta, Problem};
use crate::registry::Writer;
use crate::source::file;

/// All problems of `directory`, in the order of files and lines: those of single files and objects, and those between
/// objects, such as one address in two services. Empty when all is well.
pub fn validate(directory: &Path) -> Vec<Problem> {
    let (items, problems) = file::read(directory);
    let mut writer = Writer::default();
    writer.apply(0, Delta::Reset(items));
    writer.apply(0, Delta::Problems(problems));
    writer.build().problems().to_vec()
}
