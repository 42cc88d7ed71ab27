//! What is wrong with a directory of manifests: what `tulle validate` prints. Reads once, starts nothing.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::model::{Delta, Object, Problem, Severity};
use crate::registry::Writer;
use crate::source::file;

/// All problems of `directory`, in the order of files and lines: those of single files and objects, and those between
/// objects, such as one address in two services. Empty when all is well.
pub fn validate(directory: &Path) -> Vec<Problem> {
    let (items, problems) = file::read(directory);
    let mut writer = Writer::default();
    writer.apply(0, Delta::Reset(items));
    writer.apply(0, Delta::Problems(problems));
    writer.build().0.problems().to_vec()
}

/// The files that [`validate`] reads, by name, as text.
pub fn texts(directory: &Path) -> Vec<(Arc<str>, String)> {
    file::texts(directory)
}

/// Problems of one object by itself, written as JSON or YAML: what the webhook asks about an object that is about to be
/// stored. Empty for kinds that Tulle has no use for.
pub fn object(text: &str) -> Vec<Problem> {
    let (items, mut problems) = file::parse(text);
    problems.extend(items.iter().filter_map(|item| unfit(&item.object)));
    // It stands in no file.
    problems.iter_mut().for_each(|problem| problem.place = None);
    problems
}

/// An address that is right in a directory of manifests only, where a mesh may be on one machine.
fn unfit(object: &Object) -> Option<Problem> {
    let (addresses, field): (Vec<IpAddr>, _) = match object {
        Object::Workload(workload) => (workload.addresses.clone(), "spec.addresses"),
        Object::EndpointSlice(slice) => {
            (slice.endpoints.iter().map(|endpoint| endpoint.address).collect(), "endpoints.addresses")
        }
        Object::Namespace(_) | Object::Service(_) | Object::Route(_) | Object::Grant(_) => return None,
    };
    let wrong = |address: IpAddr| Some((address, tulle_proto::endpoint::unfit(address, false)?));
    let (address, reason) = addresses.into_iter().find_map(wrong)?;
    Some(Problem::new(Severity::Error, object.reference(), field, format!("{address} {reason}")).example("10.1.2.3"))
}

#[cfg(test)]
mod tests {
    use super::{object, validate};
    use crate::model::problem::Severity;

    #[test]
    fn problems_of_one_object() {
        let service = |annotation: &str| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"a","annotations":{{{annotation}}}}},"spec":{{"ports":[{{"port":80}}]}}}}"#
            )
        };
        assert_eq!(object(&service("")), []);
        let [wrong] = &object(&service(r#""tulle.io/timeout":"soon""#))[..] else { panic!("one problem") };
        assert!(wrong.example.is_some() && wrong.place.is_none(), "{wrong}");
        let workload =
            r#"{"apiVersion":"tulle.io/v1alpha1","kind":"Workload","metadata":{"name":"a"},"spec":{"addresses":[]}}"#;
        assert_eq!(object(workload)[0].severity, Severity::Error);
        assert_eq!(object(r#"{"apiVersion":"v1","kind":"Secret"}"#), []);
    }

    #[test]
    fn hostile_06_addresses_that_lead_to_the_caller_itself() {
        for address in
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::"]
        {
            let workload = format!(
                r#"{{"apiVersion":"tulle.io/v1alpha1","kind":"Workload","metadata":{{"name":"a"}},"spec":{{"addresses":["{address}"]}}}}"#
            );
            let slice = format!(
                r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"a","labels":{{"kubernetes.io/service-name":"a"}}}},"addressType":"IPv4","endpoints":[{{"addresses":["{address}"]}}],"ports":[]}}"#
            );
            for text in [workload, slice] {
                let problems = object(&text);
                assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{text}: {problems:?}");
            }
        }
        // A directory may describe a mesh on one machine.
        let directory = tempfile::tempdir().unwrap();
        let text =
            "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {name: a}\nspec: {addresses: [127.0.0.1]}\n";
        std::fs::write(directory.path().join("a.yaml"), text).unwrap();
        assert_eq!(validate(directory.path()), []);
        std::fs::write(directory.path().join("a.yaml"), text.replace("127.0.0.1", "169.254.169.254")).unwrap();
        assert_eq!(validate(directory.path()).len(), 1);
    }

    #[test]
    fn problems_of_files_and_between_objects() {
        let directory = tempfile::tempdir().unwrap();
        let workload = |name: &str| {
            format!(
                "apiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{addresses: [10.0.0.1]}}\n"
            )
        };
        std::fs::write(directory.path().join("a.yaml"), format!("{}---\n{}", workload("a"), workload("b"))).unwrap();
        std::fs::write(directory.path().join("b.yaml"), "kind: [").unwrap();
        let problems: Vec<_> = validate(directory.path()).iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(
            problems[0],
            "a.yaml:5: error: Workload default/b: spec.addresses: 10.0.0.1 is an address of the older Workload default/a"
        );
        assert!(problems[1].starts_with("b.yaml:1:"), "{problems:?}");
        std::fs::remove_file(directory.path().join("b.yaml")).unwrap();
        std::fs::write(directory.path().join("a.yaml"), workload("a")).unwrap();
        assert_eq!(validate(directory.path()), []);
    }
}
