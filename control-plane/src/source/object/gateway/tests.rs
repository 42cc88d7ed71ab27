//! Routes as written: what they mean, and what is said of those that are wrong.

use std::sync::Arc;

use crate::model::route::{PathMatch, To};
use crate::model::{Kind, Object, Problem, Route};
use crate::source::file;

/// What the file source makes of `text`.
pub(super) fn read(text: &str) -> (Vec<Object>, Vec<Problem>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), text).unwrap();
    let (items, problems) = file::read(directory.path());
    (items.into_iter().map(|item| item.object).collect(), problems)
}

pub(super) fn http(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop, generation: 4}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: web}}]\n  rules: {rules}\n"
    )
}

pub(super) fn grpc(rules: &str) -> String {
    http(rules).replace("HTTPRoute", "GRPCRoute")
}

fn route(text: &str) -> Arc<Route> {
    let (objects, problems) = read(text);
    assert_eq!(problems, []);
    let Some(Object::Route(route)) = objects.into_iter().next() else { panic!("no route") };
    route
}

#[test]
fn an_empty_rule_is_for_everything_and_goes_nowhere() {
    let route = route(&http("[{}]"));
    assert_eq!((route.object.kind, route.generation, route.rules.len()), (Kind::HttpRoute, 4, 1));
    assert_eq!(route.rules[0].matches[0].path, PathMatch::Prefix("/".into()));
    assert!(route.rules[0].backends.is_empty() && route.rules[0].refused.is_none());
}

#[test]
fn references() {
    let route = route(&http("[{backendRefs: [{name: a, port: 80, weight: 3}, {kind: Bucket, group: x.io, name: b}]}]"));
    let [service, bucket] = &route.rules[0].backends[..] else { panic!("{route:?}") };
    assert!(matches!(&service.to, To::Service(key, port) if &*key.namespace == "shop" && port.number() == 80));
    assert_eq!((service.weight, bucket.weight, &bucket.to), (3, 1, &To::Unknown("Bucket of x.io".into())));
}

#[test]
fn a_route_of_a_gateway_is_none_of_ours() {
    let text = http("[{filters: [{type: CORS}]}]").replace("group: '', kind: Service", "kind: Gateway");
    assert_eq!(read(&text), (Vec::new(), Vec::new()));
}

/// The order in which matches are tried: the first of each pair before the second.
#[test]
fn precedence() {
    let rank = |text: &str, one: &str| route(&text.replace("MATCH", one)).rules[0].matches[0].rank;
    let http = http("[{matches: [MATCH]}]");
    for (before, after) in [
        ("{path: {type: Exact, value: /a}}", "{path: {value: /a/long/prefix}, method: GET}"),
        ("{path: {value: /long}}", "{path: {value: /lo}, method: GET, headers: [{name: a, value: b}]}"),
        ("{method: GET}", "{headers: [{name: a, value: b}, {name: c, value: d}]}"),
        ("{headers: [{name: a, value: b}, {name: c, value: d}]}", "{headers: [{name: a, value: b}]}"),
        ("{headers: [{name: a, value: b}]}", "{queryParams: [{name: a, value: b}, {name: c, value: d}]}"),
        ("{queryParams: [{name: a, value: b}]}", "{}"),
    ] {
        assert!(rank(&http, before) > rank(&http, after), "{before} {after}");
    }
    assert_eq!(rank(&http, "{path: {value: /a/}}"), rank(&http, "{path: {value: /a}}"));
    let grpc = grpc("[{matches: [MATCH]}]");
    for (before, after) in [
        ("{method: {service: a.Long, method: M}}", "{method: {service: a.Lo, method: Longer}}"),
        ("{method: {service: a, method: M}}", "{method: {service: a}, headers: [{name: a, value: b}]}"),
        ("{headers: [{name: a, value: b}]}", "{}"),
    ] {
        assert!(rank(&grpc, before) > rank(&grpc, after), "{before} {after}");
    }
}

#[test]
fn calls_are_paths() {
    let path =
        |method: &str| route(&grpc(&format!("[{{matches: [{{method: {method}}}]}}]"))).rules[0].matches[0].path.clone();
    assert_eq!(path("{service: a.B, method: C}"), PathMatch::Exact("/a.B/C".into()));
    assert_eq!(path("{service: a.B}"), PathMatch::Prefix("/a.B/".into()));
    assert_eq!(path("{method: C}"), PathMatch::Regex("/[^/]+/C".into()));
    assert_eq!(path("{type: RegularExpression, service: 'a|b'}"), PathMatch::Regex("/(?:a|b)/(?:[^/]+)".into()));
}

/// What is wrong, where it is said to be, a part of what is said, and the right value that is shown.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("[{matches: [{path: {value: a}}]}]", "spec.rules[0].matches[0].path.value", "begins with /", "/v1/users"),
    ("[{matches: [{path: {value: /a/../b}}]}]", "spec.rules[0].matches[0].path.value", "no . or ..", "/v1/users"),
    ("[{matches: [{path: {type: Suffix, value: /a}}]}]", "spec.rules[0].matches[0].path.type", "Suffix", "PathPrefix"),
    (
        "[{matches: [{path: {type: RegularExpression, value: '('}}]}]",
        "spec.rules[0].matches[0].path.value",
        "unclosed group",
        "/v[0-9]+/.*",
    ),
    ("[{matches: [{method: get}]}]", "spec.rules[0].matches[0].method", "capitals", "GET"),
    (
        "[{matches: [{headers: [{name: 'a b', value: c}]}]}]",
        "spec.rules[0].matches[0].headers[0].name",
        "a b",
        "x-version",
    ),
    ("[{}, {timeouts: {request: 5 min}}]", "spec.rules[1].timeouts.request", "5 min", "10s"),
    ("[{backendRefs: [{name: a}]}]", "spec.rules[0].backendRefs[0].port", "port", "port: 80"),
    ("[{backendRefs: [{name: a, port: 80, weight: 1000001}]}]", "spec.rules[0].backendRefs[0].weight", "1000000", "90"),
    (
        "[{filters: [{type: RequestMirror}]}]",
        "spec.rules[0].filters[0].type",
        "RequestMirror are not supported",
        "RequestHeaderModifier",
    ),
    (
        "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Host]}}]}]",
        "spec.rules[0].filters[0].requestHeaderModifier.remove[0]",
        "names its host",
        "x-version",
    ),
    (
        "[{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]}]",
        "spec.rules[0].filters[0].requestRedirect.statusCode",
        "308",
        "301",
    ),
    (
        "[{filters: [{type: URLRewrite, urlRewrite: {hostname: 'a:80'}}]}]",
        "spec.rules[0].filters[0].urlRewrite.hostname",
        "not a host",
        "reviews.example.com",
    ),
];

#[test]
fn wrong_routes_are_told_with_a_right_value() {
    for (rules, field, part, example) in WRONG {
        let (objects, problems) = read(&http(rules));
        let [problem] = &problems[..] else { panic!("{rules}: {problems:?}") };
        assert_eq!((&*problem.field, problem.example.as_deref()), (*field, Some(*example)), "{problem}");
        assert!(problem.reason.contains(part), "{problem}");
        // The rule is there, so that requests which match it go nowhere.
        let [Object::Route(route)] = &objects[..] else { panic!("{rules}: {objects:?}") };
        let refused = route.rules.last().and_then(|rule| rule.refused.as_ref());
        assert!(refused.is_some_and(|refused| refused.reason.contains(part)), "{route:?}");
    }
    for rules in [
        "[{retry: {attempts: 3}}]",
        "[{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]}]",
        "[{timeouts: {request: 1s, backendRequest: 2s}}]",
        "[{backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier}]}]}]",
    ] {
        assert_eq!(read(&http(rules)).1.len(), 1, "{rules}");
    }
}

/// Rules of which the first cannot be carried out, and what requests it has to take.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}]", "/a"),
    ("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}]", "/a"),
    ("filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}]", "/a"),
    ("filters: [{type: CORS, cors: {allowOrigins: ['*']}}]", "/a"),
    ("filters: [{type: Newest, newest: {a: b}}]", "/a"),
    ("filters: [{type: URLRewrite, urlRewrite: {hostname: a.example, newest: b}}]", "/a"),
    ("filters: 5", "/a"),
    ("retry: {attempts: 2}", "/a"),
    ("sessionPersistence: {sessionName: a}", "/a"),
    ("newest: {a: b}", "/a"),
    ("timeouts: {request: soon}", "/a"),
    ("timeouts: {request: 5}", "/a"),
    ("timeouts: {newest: 5s}", "/a"),
    ("backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier}]}]", "/a"),
    ("backendRefs: [{name: a, port: 80, newest: 1}]", "/a"),
    ("backendRefs: [{name: a, port: 99999}]", "/a"),
    ("backendRefs: [{name: a, port: 80, weight: -1}]", "/a"),
    ("backendRefs: [{name: a}]", "/a"),
];

#[test]
fn mend_17_a_rule_that_is_not_supported_is_refused_alone() {
    for (fault, path) in UNSUPPORTED {
        let good = "{matches: [{path: {value: /blocked}}], backendRefs: [{name: nowhere, port: 80}]}";
        let rules = format!("[{{matches: [{{path: {{value: {path}}}}}], {fault}}}, {good}]");
        let (objects, problems) = read(&http(&rules));
        let [Object::Route(route)] = &objects[..] else { panic!("{fault}: {objects:?} {problems:?}") };
        assert_eq!((route.rules.len(), problems.len()), (2, 1), "{fault}: {problems:?}");
        assert!(route.rules[0].refused.is_some() && route.rules[0].backends.is_empty(), "{fault}: {route:?}");
        assert_eq!(route.rules[0].matches[0].path, PathMatch::Prefix((*path).into()), "{fault}");
        assert!(route.rules[1].refused.is_none() && route.rules[1].backends.len() == 1, "{fault}: {route:?}");
    }
}

/// A condition that cannot be read, and the path, method and header fields that are left of the match.
const UNREADABLE: &[(&str, &str, Option<&str>, usize)] = &[
    ("{path: {type: RegularExpression, value: '/admin/('}, method: GET}", "/admin/.*", Some("GET"), 0),
    ("{path: {type: RegularExpression, value: '/ab*('}}", "/a.*", None, 0),
    ("{path: {type: RegularExpression, value: '/a|('}}", "/", None, 0),
    ("{path: {type: Newest, value: /a}}", "/", None, 0),
    ("{path: {value: /a, newest: true}, method: GET}", "/", Some("GET"), 0),
    ("{path: {value: /a}, newest: true}", "/a", None, 0),
    ("{path: {value: /a}, method: get}", "/a", None, 0),
    (
        "{path: {value: /a}, headers: [{name: a, value: b}, {name: c, type: RegularExpression, value: '('}]}",
        "/a",
        None,
        1,
    ),
    ("{path: {value: /a}, headers: [{name: a, type: Newest, value: b}]}", "/a", None, 0),
    ("{path: {value: /a}, headers: [{name: a, value: b, newest: true}]}", "/a", None, 0),
    ("{path: {value: /a}, queryParams: [{name: a, type: Newest, value: b}]}", "/a", None, 0),
    ("5", "/", None, 0),
];

#[test]
fn mend_17_a_match_that_cannot_be_read_takes_at_least_what_was_meant() {
    for (written, path, method, headers) in UNREADABLE {
        let (objects, problems) =
            read(&http(&format!("[{{matches: [{written}], backendRefs: [{{name: a, port: 80}}]}}, {{}}]")));
        let [Object::Route(route)] = &objects[..] else { panic!("{written}: {objects:?}") };
        assert_eq!((route.rules.len(), problems.len()), (2, 1), "{written}: {problems:?}");
        let (rule, everything) = (&route.rules[0], &route.rules[1].matches[0]);
        let [one] = &rule.matches[..] else { panic!("{written}: {rule:?}") };
        let (PathMatch::Regex(found) | PathMatch::Prefix(found) | PathMatch::Exact(found)) = &one.path;
        assert_eq!((&**found, one.method.as_deref(), one.headers.len()), (*path, *method, *headers), "{written}");
        assert!(rule.refused.is_some() && one.rank > everything.rank, "{written}: before what is for everything");
    }
    let (objects, problems) = read(&grpc("[{matches: [{method: {service: a.B, method: 'c d'}}]}, {}]"));
    let [Object::Route(route)] = &objects[..] else { panic!("{objects:?}") };
    assert!(route.rules[0].refused.is_some() && problems.len() == 1, "{problems:?}");
    assert_eq!(route.rules[0].matches[0].path, PathMatch::Prefix("/".into()));
}

#[test]
fn mend_17_a_field_of_the_route_that_is_not_known_refuses_its_rules() {
    let text = http("[{matches: [{path: {value: /a}}]}, {}]").replace("spec:", "spec:\n  newest: 1");
    let (objects, problems) = read(&text);
    let [Object::Route(route)] = &objects[..] else { panic!("{objects:?} {problems:?}") };
    assert!(route.rules.iter().all(|rule| rule.refused.is_some()), "{route:?}");
    let many = vec!["{path: {value: /a}}"; 129].join(", ");
    let (objects, problems) = read(&http(&format!("[{{matches: [{many}]}}]")));
    let [Object::Route(route)] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!((route.rules.len(), problems.len()), (1, 1));
    assert!(route.rules[0].refused.is_some() && route.rules[0].matches[0].path == PathMatch::Prefix("/".into()));
}

#[test]
fn mend_17_a_route_without_rules_is_for_everything() {
    let text = http("X").replace("  rules: X\n", "");
    let [Object::Route(route)] = &read(&text).0[..] else { panic!("no route") };
    assert_eq!((route.rules.len(), &route.rules[0].matches[0].path), (1, &PathMatch::Prefix("/".into())));
}

#[test]
fn mend_22_a_parent_that_means_nothing_is_told() {
    for (parent, told) in [
        ("{kind: Service, name: web}", "group is missing"),
        ("{group: gateway.networking.k8s.io, kind: Service, name: web}", "group is gateway.networking.k8s.io"),
        ("{group: '', kind: Service, name: web, port: 0}", "0 is not a port"),
        ("{group: '', kind: Service, name: web, newest: 1}", "unknown field"),
        ("{group: '', kind: Service, name: web, port: 70000}", "70000"),
    ] {
        let text = http("[{}]").replace("{group: '', kind: Service, name: web}", parent);
        let (objects, problems) = read(&text);
        let [problem] = &problems[..] else { panic!("{parent}: {problems:?}") };
        assert!(problem.reason.contains(told) && problem.field.starts_with("spec.parentRefs[0]"), "{problem}");
        // Its status says so as well.
        let [Object::Route(route)] = &objects[..] else { panic!("{parent}: {objects:?}") };
        assert!(route.parents[0].fault.as_ref().is_some_and(|fault| fault.contains(told)), "{route:?}");
    }
    let text = http("[{}]").replace("group: ''", "group: other.example");
    assert_eq!(read(&text), (Vec::new(), Vec::new()), "the Services of others are theirs");
}
