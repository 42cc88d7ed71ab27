//! What the fuzz targets of `tests/fuzz` run that is nobody else's business; only there with the feature `fuzz`.

use std::sync::Arc;

use crate::model::Delta;
use crate::registry::{Mesh, Writer};
use crate::source::file;

/// The mesh of what is written in `manifests`, whatever is wrong with it.
pub fn mesh(manifests: &str) -> Arc<Mesh> {
    let (items, problems) = file::parse(manifests);
    let mut writer = Writer::default();
    writer.apply(0, Delta::Reset(items));
    writer.apply(0, Delta::Problems(problems));
    writer.build().0
}
