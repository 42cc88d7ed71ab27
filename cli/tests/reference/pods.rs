//! Annotations of pods.

use tulle_injector::annotations::{POD, PREFIX, REFUSED, STATUS};

use crate::table::Table;

#[test]
fn pod_annotations() {
    let mut table = Table::new(&["annotation", "value", "default", "for example", "meaning"]);
    for known in POD {
        let example = format!("`{}`", known.example);
        table.row(&[&format!("`{PREFIX}{}`", known.key), known.value, known.default, &example, known.doc]);
    }
    let mut written = Table::new(&["written by the injector", "meaning"]);
    for known in STATUS {
        written.row(&[&format!("`{PREFIX}{}`", known.key), known.doc]);
    }
    let mut refused = Table::new(&["refused", "why"]);
    for (key, why) in REFUSED {
        refused.row(&[&format!("`{PREFIX}{key}`"), why]);
    }
    let intro = format!(
        "On a pod; for a Deployment and its like on the template. `{PREFIX}inject` may be a label as well, and on a namespace it is\n\
         one. A pod with a wrong value is refused, with a right value in the message; an unknown key is a warning."
    );
    let body = format!("{}\n{}\n{}", table.text(), refused.text(), written.text());
    super::page("pod-annotations.md", "Annotations of pods", &intro, &body);
}
