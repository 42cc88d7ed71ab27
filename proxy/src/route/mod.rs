//! Which route a request takes: `decide`, a pure function of the route table and the request's head.
//!
//! Host first, then the routes of that host in order; a host whose routes all refuse ends the search. Nothing is
//! allocated, and a table with a single host for everything costs no look at the host.

/// Host to virtual host.
mod host;

/// Conditions of one route.
mod matcher;

use crate::config::ClusterId;
use crate::config::changes::Redirect;
use crate::config::route::{Action, Route, RouteTable};

/// What of a request routes may look at, in the form that is also sent upstream.
pub trait RequestView {
    /// The method, as received.
    fn method(&self) -> &str;
    /// `Host` or `:authority`, with the port when one was given.
    fn authority(&self) -> &str;
    /// Path and query.
    fn path(&self) -> &str;
    /// The value of a field by its lower-case name. Of a repeated field the implementation may give the first.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// The first route of the request's virtual host whose conditions all hold. None: no such host, or no such route.
pub fn decide<'t>(table: &'t RouteTable, request: &impl RequestView) -> Option<&'t Route> {
    let host = table.sole().or_else(|| host::find(table, request.authority()))?;
    host.routes.iter().find(|route| matcher::matches(&route.matcher, request))
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'t> {
    /// It goes to this cluster.
    Cluster(ClusterId),
    /// It goes to the local application.
    Local,
    /// It is answered with this status.
    Respond(u16),
    /// Its client is sent elsewhere.
    Redirect(&'t Redirect),
}

/// The verdict of an action. `random` decides between weighted clusters; it is uniform over `u32`.
pub fn verdict(action: &Action, random: impl FnOnce() -> u32) -> Verdict<'_> {
    match action {
        Action::Cluster(id) => Verdict::Cluster(*id),
        Action::Weighted { clusters, total } => {
            // Multiply and shift instead of modulo: as even, without a division.
            let mut point = ((u64::from(random()) * u64::from(*total)) >> 32) as u32;
            let picked = clusters.iter().find(|(_, weight)| match point.checked_sub(*weight) {
                Some(rest) => {
                    point = rest;
                    false
                }
                None => true,
            });
            picked.and_then(|(id, _)| *id).map_or(Verdict::Respond(NOWHERE), Verdict::Cluster)
        }
        Action::Local => Verdict::Local,
        Action::Respond(status) => Verdict::Respond(*status),
        Action::Redirect(redirect) => Verdict::Redirect(redirect),
    }
}

/// Status of a share of requests that goes nowhere.
/// Source: Gateway API, `HTTPRouteRule.backendRefs`.
const NOWHERE: u16 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::changes::Pattern;
    use crate::config::route::{
        Domain, HeaderMatch, Matcher, PathMatch, QueryMatch, RetryPolicy, ValueMatch, VirtualHost,
    };

    #[derive(Default)]
    struct Request {
        method: &'static str,
        authority: String,
        path: &'static str,
        headers: Vec<(&'static str, &'static str)>,
    }

    impl RequestView for Request {
        fn method(&self) -> &str {
            self.method
        }
        fn authority(&self) -> &str {
            &self.authority
        }
        fn path(&self) -> &str {
            self.path
        }
        fn header(&self, name: &str) -> Option<&[u8]> {
            self.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes())
        }
    }

    fn get(authority: &str, path: &'static str) -> Request {
        Request { method: "GET", authority: authority.into(), path, headers: Vec::new() }
    }

    fn route(name: &str, matcher: Matcher) -> Route {
        Route {
            name: name.into(),
            matcher,
            action: Action::Cluster(ClusterId(0)),
            changes: None,
            timeout: None,
            retry: RetryPolicy::default(),
        }
    }

    fn host(name: &str, domains: &[Domain]) -> VirtualHost {
        VirtualHost { name: name.into(), domains: domains.to_vec(), routes: vec![route(name, Matcher::default())] }
    }

    fn exact(name: &str) -> Domain {
        Domain::Exact(name.into())
    }

    fn suffix(name: &str) -> Domain {
        Domain::Suffix(name.into())
    }

    fn hosts() -> RouteTable {
        RouteTable::new(
            "t".into(),
            vec![
                host("any", &[Domain::Any]),
                host("reviews", &[exact("reviews.shop"), exact("reviews"), exact("[fd00::1]")]),
                host("reviews-81", &[exact("reviews.shop:81")]),
                host("second", &[exact("reviews.shop"), Domain::Any]),
                host("example", &[suffix(".example.com")]),
                host("api", &[suffix(".api.example.com"), suffix("-api.example.com")]),
            ],
        )
    }

    #[test]
    fn exact_beats_longest_suffix_beats_any() {
        let table = hosts();
        for (authority, name) in [
            ("reviews.shop", "reviews"),
            ("REVIEWS.Shop", "reviews"),
            ("reviews.shop:80", "reviews"),
            ("reviews.shop.", "reviews"),
            ("reviews.shop.:80", "reviews"),
            ("reviews.shop:81", "reviews-81"),
            ("reviews.shop.:81", "reviews-81"),
            ("[fd00::1]", "reviews"),
            ("[fd00::1]:8080", "reviews"),
            ("www.example.com", "example"),
            ("www.example.com:8443", "example"),
            ("v1.API.example.com", "api"),
            ("my-api.example.com", "api"),
            (".example.com", "any"),
            ("example.com", "any"),
            ("fd00::1", "any"),
            ("", "any"),
            (":", "any"),
            (".", "any"),
            ("[", "any"),
        ] {
            let found = decide(&table, &get(authority, "/")).map(|r| &*r.name);
            assert_eq!(found, Some(name), "{authority}");
        }
    }

    #[test]
    fn a_sole_host_for_everything_is_not_searched() {
        let table = RouteTable::new("t".into(), vec![host("all", &[Domain::Any])]);
        assert!(table.sole().is_some());
        assert!(decide(&table, &get("anything:1", "/")).is_some());
        assert!(hosts().sole().is_none());
        assert!(RouteTable::new("t".into(), vec![host("one", &[exact("a"), Domain::Any])]).sole().is_none());
        assert!(RouteTable::default().sole().is_none());
        assert!(decide(&RouteTable::default(), &get("a", "/")).is_none());
    }

    #[test]
    fn no_host_without_any() {
        let table = RouteTable::new("t".into(), vec![host("a", &[exact("a")])]);
        assert!(decide(&table, &get("b", "/")).is_none());
    }

    #[test]
    fn paths() {
        let matches = |path: PathMatch, target: &'static str| {
            matcher::matches(&Matcher { path, ..Matcher::default() }, &get("a", target))
        };
        assert!(matches(PathMatch::Any, "*"));
        assert!(matches(PathMatch::Exact("/a".into()), "/a?q=/b"));
        assert!(!matches(PathMatch::Exact("/a".into()), "/a/"));
        assert!(matches(PathMatch::Prefix("/a".into()), "/abc"));
        assert!(!matches(PathMatch::Prefix("/a?".into()), "/a?x"));
        assert!(!matches(PathMatch::Prefix("/a".into()), "/A"));
        assert!(matches(PathMatch::Segments("/a".into()), "/a"));
        assert!(matches(PathMatch::Segments("/a".into()), "/a/b"));
        assert!(matches(PathMatch::Segments("/a/".into()), "/a/b"));
        assert!(matches(PathMatch::Segments("/a/".into()), "/a"));
        assert!(!matches(PathMatch::Segments("/a".into()), "/abc"));
        assert!(matches(PathMatch::Segments("/".into()), "/x"));
    }

    #[test]
    fn headers() {
        let request = Request { headers: vec![("x-a", "one two"), ("x-empty", "")], ..get("a", "/") };
        let matches = |name: &str, value: ValueMatch, invert: bool| {
            let headers = vec![HeaderMatch { name: name.into(), value, invert }];
            matcher::matches(&Matcher { path: PathMatch::Any, headers, query: Vec::new() }, &request)
        };
        assert!(matches("x-a", ValueMatch::Present, false));
        assert!(matches("x-empty", ValueMatch::Present, false));
        assert!(!matches("x-b", ValueMatch::Present, false));
        assert!(matches("x-b", ValueMatch::Present, true));
        assert!(matches("x-a", ValueMatch::Exact("one two".into()), false));
        assert!(!matches("x-a", ValueMatch::Exact("One two".into()), false));
        assert!(!matches("x-a", ValueMatch::Exact("one two".into()), true));
        assert!(matches("x-a", ValueMatch::Exact("three".into()), true));
        assert!(!matches("x-b", ValueMatch::Exact("three".into()), true), "an absent field fails");
        assert!(matches("x-a", ValueMatch::Prefix("one".into()), false));
        assert!(matches("x-a", ValueMatch::Suffix("two".into()), false));
        assert!(matches("x-a", ValueMatch::Contains("e t".into()), false));
        assert!(matches("x-a", ValueMatch::Contains("".into()), false));
        assert!(!matches("x-empty", ValueMatch::Contains("e".into()), false));
        assert!(matches(":method", ValueMatch::Exact("GET".into()), false));
        assert!(matches(":authority", ValueMatch::Exact("a".into()), false));
        assert!(!matches(":unknown", ValueMatch::Present, false));
    }

    #[test]
    fn first_matching_route_wins_and_a_host_does_not_fall_through() {
        let mut one = host("one", &[exact("one")]);
        let path = |p: &str| Matcher { path: PathMatch::Prefix(p.into()), ..Matcher::default() };
        one.routes = vec![route("long", path("/a/b")), route("short", path("/a"))];
        let table = RouteTable::new("t".into(), vec![host("any", &[Domain::Any]), one]);
        let name = |path| decide(&table, &get("one", path)).map(|r| &*r.name);
        assert_eq!(name("/a/b/c"), Some("long"));
        assert_eq!(name("/a/c"), Some("short"));
        assert_eq!(name("/b"), None);
    }

    #[test]
    fn parameters_of_the_query() {
        let matches = |name: &str, value: ValueMatch, target: &'static str| {
            let query = vec![QueryMatch { name: name.into(), value }];
            matcher::matches(&Matcher { query, ..Matcher::default() }, &get("a", target))
        };
        assert!(matches("v", ValueMatch::Exact("2".into()), "/?a=1&v=2"));
        assert!(matches("v", ValueMatch::Exact("".into()), "/?v"));
        assert!(matches("v", ValueMatch::Present, "/?v="));
        assert!(!matches("v", ValueMatch::Exact("2".into()), "/?v=1&v=2"), "the first counts");
        assert!(!matches("v", ValueMatch::Exact("2".into()), "/v=2"));
        assert!(!matches("v", ValueMatch::Present, "/?vv=2"));
    }

    #[test]
    fn expressions_describe_the_whole() {
        let pattern = || Pattern::new("/v[12]/.*", tulle_proto::pattern::whole("/v[12]/.*").unwrap());
        let path = |target| {
            matcher::matches(&Matcher { path: PathMatch::Regex(pattern()), ..Matcher::default() }, &get("a", target))
        };
        assert!(path("/v1/x?y") && !path("/v3/x") && !path("/a/v1/x"));
        let request = Request { headers: vec![("x-a", "/v1/")], ..get("a", "/") };
        let headers = vec![HeaderMatch { name: "x-a".into(), value: ValueMatch::Regex(pattern()), invert: false }];
        assert!(matcher::matches(&Matcher { headers, ..Matcher::default() }, &request));
    }

    #[test]
    fn weights_share_exactly() {
        let clusters = vec![(Some(ClusterId(1)), 1), (Some(ClusterId(2)), 0), (Some(ClusterId(3)), 3), (None, 4)];
        let action = Action::Weighted { clusters, total: 8 };
        let mut counts = [0; 4];
        for step in 0..8_000_u32 {
            match verdict(&action, || step * (u32::MAX / 8_000)) {
                Verdict::Cluster(id) => counts[id.0 as usize] += 1,
                Verdict::Respond(500) => counts[0] += 1,
                other @ (Verdict::Local | Verdict::Respond(_) | Verdict::Redirect(_)) => panic!("{other:?}"),
            }
        }
        assert_eq!(counts[2], 0);
        for (got, wanted) in [(counts[0], 4_000), (counts[1], 1_000), (counts[3], 3_000)] {
            assert!((wanted - 10..=wanted + 10).contains(&got), "{counts:?}");
        }
        assert!(matches!(verdict(&Action::Cluster(ClusterId(9)), || 5), Verdict::Cluster(ClusterId(9))));
        assert!(matches!(verdict(&Action::Local, || 0), Verdict::Local));
    }
}
