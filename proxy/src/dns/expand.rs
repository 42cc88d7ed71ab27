//! Which services a question may mean, by the pod's search path. Pure.
//!
//! Every question on the wire is an absolute name: the client's own resolver completes short names with its search path
//! before it asks. So a question is never completed here, and `example.com.` is never a Service `example` in a namespace
//! `com`. Only a question that a client has completed already, with a search domain that leads nowhere
//! (`reviews.other.shop.svc...`), is taken back to the short name, which then gets the search domains that the client
//! would try next: an answer at once spares the client these steps.

use std::sync::Arc;

/// Most search domains that are looked at.
const MAX_SEARCH: usize = 32;

/// How names are completed here.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// Search domains that belong to the cluster, each as `.shop.svc.cluster.local`.
    search: Vec<String>,
    ndots: usize,
    /// `.svc.cluster.local`.
    services: String,
}

/// A service that a question may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its full name, without a final dot.
    pub(super) name: Arc<str>,
    /// It is not meant when the mesh has this service: then the question is about a host of that one.
    pub(super) unless: Option<Arc<str>>,
}

impl Zone {
    /// A zone of the cluster `domain`, with the search path and `ndots` of the pod; names without final dots.
    pub(super) fn new(domain: &str, search: impl IntoIterator<Item = String>, ndots: usize) -> Self {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let services = format!(".svc.{domain}");
        let end = format!(".{domain}");
        let search = search.into_iter().map(|name| format!(".{}", name.trim_matches('.').to_ascii_lowercase()));
        let search = search.filter(|name| name.ends_with(&end)).take(MAX_SEARCH).collect();
        Self { search, ndots, services }
    }

    /// The services that `question`, a name in lower case without a final dot, may mean, the likeliest first.
    pub(super) fn candidates(&self, question: &str) -> Vec<Candidate> {
        if self.is_service(question) {
            return vec![Candidate { name: question.into(), unless: None }];
        }
        let unless = self.parent(question);
        let shortened = self.search.iter().filter_map(|domain| question.strip_suffix(domain.as_str()));
        let mut found: Vec<Candidate> = Vec::new();
        for short in shortened {
            let own = self.is_service(short).then(|| short.to_owned());
            for name in own.into_iter().chain(self.completed(short)) {
                if found.iter().all(|known| *known.name != *name) {
                    found.push(Candidate { name: name.into(), unless: unless.clone() });
                }
            }
        }
        found
    }

    /// Full names of services that `short` is completed to.
    fn completed(&self, short: &str) -> impl Iterator<Item = String> {
        let few = short.bytes().filter(|byte| *byte == b'.').count() < self.ndots;
        let all = self.search.iter().filter(move |_| few).map(move |domain| format!("{short}{domain}"));
        all.filter(|name| self.is_service(name))
    }

    /// Whether a name is `NAME.NAMESPACE.svc.DOMAIN`.
    fn is_service(&self, name: &str) -> bool {
        let Some((service, namespace)) = name.strip_suffix(&self.services).and_then(|rest| rest.split_once('.')) else {
            return false;
        };
        is_label(service) && is_label(namespace)
    }

    /// The service of which `question` is a host by its form, `HOST.NAME.NAMESPACE.svc.DOMAIN`.
    fn parent(&self, question: &str) -> Option<Arc<str>> {
        let (_, parent) = question.split_once('.')?;
        self.is_service(parent).then(|| parent.into())
    }
}

/// Whether a text can be the name of an object of Kubernetes.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(ndots: usize) -> Zone {
        let search = ["shop.svc.cluster.local", "svc.cluster.local.", "Cluster.local", "corp.example"];
        Zone::new("cluster.local", search.map(str::to_owned), ndots)
    }

    fn names(ndots: usize, question: &str) -> String {
        let candidates = zone(ndots).candidates(question);
        candidates.iter().map(|candidate| &*candidate.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_way_to_write_a_service_is_the_service() {
        let full = "reviews.shop.svc.cluster.local";
        for question in [
            full,
            "reviews.shop.shop.svc.cluster.local",
            "reviews.shop.svc.shop.svc.cluster.local",
            "reviews.shop.svc.svc.cluster.local",
            "reviews.shop.svc.cluster.local.shop.svc.cluster.local",
            "reviews.shop.svc.cluster.local.cluster.local",
        ] {
            assert_eq!(names(5, question), full, "{question}");
        }
        assert_eq!(names(5, "reviews.other.shop.svc.cluster.local"), "reviews.other.svc.cluster.local");
        assert_eq!(names(5, "reviews.shop.cluster.local"), full);
    }

    #[test]
    fn what_cannot_be_a_service_is_none() {
        for question in [
            "",
            "www.example.com",
            "www.example.com.shop.svc.cluster.local",
            "_http._tcp.reviews.shop.svc.cluster.local",
            "reviews.shop.svc.cluster.example",
            "reviews.corp.example",
            "reviews.shop.svc.cluster.local.corp.example",
            "10-1-0-1.shop.pod.cluster.local",
            "a.b.c.d.e.f",
        ] {
            assert_eq!(names(5, question), "", "{question}");
        }
    }

    #[test]
    fn hostile_18_absolute_names_are_not_completed() {
        for ndots in [1, 2, 5, 15] {
            for question in ["example.com", "com", "reviews", "reviews.shop", "reviews.shop.svc"] {
                assert_eq!(names(ndots, question), "", "{question} with ndots {ndots}");
            }
        }
        // The first step of a client's search: its next step is the answer.
        assert_eq!(names(5, "example.com.shop.svc.cluster.local"), "example.com.svc.cluster.local");
        assert_eq!(names(5, "reviews.shop.svc.cluster.local.shop.svc.cluster.local"), "reviews.shop.svc.cluster.local");
    }

    #[test]
    fn a_name_with_enough_dots_is_not_completed_by_clients_first() {
        assert_eq!(names(1, "example.com.shop.svc.cluster.local"), "");
        assert_eq!(names(2, "example.com.shop.svc.cluster.local"), "example.com.svc.cluster.local");
        assert_eq!(names(2, "reviews.shop.svc.cluster.local.cluster.local"), "reviews.shop.svc.cluster.local");
    }

    #[test]
    fn a_host_of_a_headless_service_is_not_taken_for_another_service() {
        let [only] = &zone(5).candidates("db-0.db.shop.svc.cluster.local")[..] else { panic!("one") };
        assert_eq!(
            (&*only.name, only.unless.as_deref()),
            ("db-0.db.svc.cluster.local", Some("db.shop.svc.cluster.local"))
        );
        let candidates = zone(5).candidates("db-0.db.shop.svc.cluster.local.svc.cluster.local");
        assert_eq!(candidates, []);
        let [only] = &zone(5).candidates("reviews.other.shop.svc.cluster.local")[..] else { panic!("one") };
        assert_eq!(only.unless.as_deref(), Some("other.shop.svc.cluster.local"));
    }
}
