//! `docs/reference/gateway-api.md` says what is carried out, and what is refused: every word of it is tried here.

use std::collections::BTreeSet;

use super::tests::{grpc as grpc_route, http as http_route, read};
use super::{grpc, http};

const PAGE: &str = include_str!("../../../../../docs/reference/gateway-api.md");

/// A part of a rule in the Gateway API: the row of the page, the word in its cell where there is one, and how it is written.
type Part = (&'static str, &'static str, &'static str);

const HTTP: &[Part] = &[
    ("path", "Exact", "matches: [{path: {type: Exact, value: /a}}]"),
    ("path", "PathPrefix", "matches: [{path: {type: PathPrefix, value: /a}}]"),
    ("path", "RegularExpression", "matches: [{path: {type: RegularExpression, value: /a}}]"),
    ("method", "", "matches: [{method: GET}]"),
    ("headers", "Exact", "matches: [{headers: [{type: Exact, name: a, value: b}]}]"),
    ("headers", "RegularExpression", "matches: [{headers: [{type: RegularExpression, name: a, value: b}]}]"),
    ("queryParams", "Exact", "matches: [{queryParams: [{type: Exact, name: a, value: b}]}]"),
    ("queryParams", "RegularExpression", "matches: [{queryParams: [{type: RegularExpression, name: a, value: b}]}]"),
    ("backendRefs", "weight", "backendRefs: [{name: a, port: 80, weight: 2}]"),
    ("RequestHeaderModifier", "", "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}]"),
    ("ResponseHeaderModifier", "", "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]"),
    ("URLRewrite", "hostname", "filters: [{type: URLRewrite, urlRewrite: {hostname: a.example}}]"),
    (
        "URLRewrite",
        "ReplaceFullPath",
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /a}}}]",
    ),
    (
        "URLRewrite",
        "ReplacePrefixMatch",
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}]",
    ),
    (
        "RequestRedirect",
        "",
        "filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: a.example, port: 8443, statusCode: 308, \
         path: {type: ReplaceFullPath, replaceFullPath: /a}}}]",
    ),
    ("timeouts", "request", "timeouts: {request: 1s}"),
    ("timeouts", "backendRequest", "timeouts: {backendRequest: 1s}"),
    ("RequestMirror", "", "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}]"),
    ("CORS", "", "filters: [{type: CORS, cors: {allowOrigins: ['*']}}]"),
    ("ExternalAuth", "", "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}]"),
    ("ExtensionRef", "", "filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}]"),
    ("backendRef", "", "backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier}]}]"),
    ("retry", "", "retry: {attempts: 2}"),
    ("sessionPersistence", "", "sessionPersistence: {sessionName: a}"),
];

const GRPC: &[Part] = &[
    ("path", "method", "matches: [{method: {service: a}}]"),
    ("path", "Exact", "matches: [{method: {type: Exact, service: a, method: b}}]"),
    ("path", "RegularExpression", "matches: [{method: {type: RegularExpression, service: a, method: b}}]"),
    ("headers", "Exact", "matches: [{headers: [{type: Exact, name: a, value: b}]}]"),
    ("headers", "RegularExpression", "matches: [{headers: [{type: RegularExpression, name: a, value: b}]}]"),
    ("backendRefs", "weight", "backendRefs: [{name: a, port: 80, weight: 2}]"),
    ("RequestHeaderModifier", "", "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}]"),
    ("ResponseHeaderModifier", "", "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]"),
    ("URLRewrite", "", "filters: [{type: URLRewrite, urlRewrite: {hostname: a.example}}]"),
    ("RequestMirror", "", "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}]"),
    ("ExtensionRef", "", "filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}]"),
    ("backendRef", "", "backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier}]}]"),
    ("sessionPersistence", "", "sessionPersistence: {sessionName: a}"),
];

/// The page between two of its texts.
fn between(start: &str, end: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(start).unwrap_or_else(|| panic!("the page has no {start:?}"));
    rest.split_once(end).unwrap_or_else(|| panic!("the page has no {end:?} after {start:?}")).0
}

/// Words in backticks.
fn words(text: &'static str) -> BTreeSet<&'static str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of the table: the part, what a HTTPRoute does with it, what a GRPCRoute does.
fn table() -> Vec<[&'static str; 3]> {
    let rows = between("| part | HTTPRoute | GRPCRoute |", "\n\n").lines().skip(2);
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [part, http, grpc] = cells[..] else { panic!("not a row of three cells: {row}") };
        [part, http, if grpc == "the same" { http } else { grpc }]
    })
    .collect()
}

#[test]
fn what_is_carried_out_is_what_the_page_says() {
    let table = table();
    let refused = words(between("Not carried out, and refused with a reason:", "`hostnames`"));
    type Written = fn(&str) -> String;
    let kinds: [(_, _, _, Written); 2] = [(1, HTTP, http::FILTERS, http_route), (2, GRPC, grpc::FILTERS, grpc_route)];
    for (column, parts, filters, route) in kinds {
        for (part, word, written) in parts {
            let row = table.iter().find(|row| words(row[0]).contains(part));
            let cell = row.map_or("", |row| row[column]);
            let said = !cell.is_empty() && (word.is_empty() || words(cell).contains(word));
            let problems = read(&route(&format!("[{{{written}}}]"))).1;
            assert_eq!(problems.is_empty(), said, "{part} {word}: not what the page says: {problems:?}");
            assert!(row.is_some() || refused.contains(part), "{part}: the page does not say that it is refused");
        }
        let rows = table.iter().filter(|row| !row[column].is_empty());
        let claimed = rows.flat_map(|row| words(row[0]).into_iter().chain(words(row[column])));
        for word in claimed.chain(filters.0.iter().copied()) {
            assert!(parts.iter().any(|(part, w, _)| [*part, *w].contains(&word)), "{word}: say here how it is written");
        }
    }
    assert!(refused.iter().all(|word| HTTP.iter().any(|(part, ..)| part == word)), "{refused:?}");
}

#[test]
fn fields_that_cannot_be_changed_are_those_of_the_page() {
    for field in words(between("Fields that frame a message", "cannot be changed")) {
        let field = field.replace('…', "x");
        let rule =
            format!("[{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{remove: [{field}]}}}}]}}]");
        assert_eq!(read(&http_route(&rule)).1.len(), 1, "{field}");
    }
}
