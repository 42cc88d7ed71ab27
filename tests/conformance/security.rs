//! `docs/security.md`: the classes of hostile input, what is expected, and where that is tested. The page is made from
//! the tables of the tests: `TULLE_BLESS=1 cargo test --test conformance security` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::figures;
use crate::neighbours::{NEIGHBOURS, Neighbour};

/// A class of input. Its cases are the rows of the test's tables that bear its id.
struct Class {
    id: &'static str,
    what: &'static str,
    expected: &'static str,
    /// `file::test`.
    tests: &'static [&'static str],
}

const fn class(id: &'static str, what: &'static str, expected: &'static str, tests: &'static [&'static str]) -> Class {
    Class { id, what, expected, tests }
}

const REFUSED: &[&str] = &[
    "tests/path/boundary.rs::ambiguous_requests_are_refused_and_reach_nobody",
    "proxy/src/codec/h1/request_tests.rs::fr_01_to_05_transfer_encoding",
];
const SERVED: &[&str] = &["tests/path/boundary.rs::accepted_requests_arrive_with_the_same_boundaries"];
const BOTH: &[&str] = &[
    "tests/path/boundary.rs::ambiguous_requests_are_refused_and_reach_nobody",
    "tests/path/boundary.rs::accepted_requests_arrive_with_the_same_boundaries",
];
const BROKEN: &[&str] = &[
    "tests/path/boundary.rs::ambiguous_requests_are_refused_and_reach_nobody",
    "tests/path/boundary.rs::a_body_that_breaks_its_framing_ends_both_connections",
];
const FIELDS: &[&str] = &["tests/path/fields.rs::request_fields_end_at_the_proxy_or_arrive"];
const HEADS: &[&str] = &["tests/conformance/heads.rs::malformed_heads_reach_nobody"];
const FLOODS: &[&str] = &["tests/conformance/floods.rs::floods_are_stopped_or_cost_little"];
const HEAD_LIMITS: &[&str] = &[
    "tests/path/boundary_limits.rs::heads_have_a_largest_size",
    "tests/path/http2.rs::heads_have_as_many_fields_as_in_http1",
    "tests/path/boundary_limits.rs::heads_of_replies_have_one_too",
];

const CLASSES: &[Class] = &[
    class("FR-01", "both content-length and transfer-encoding", "400, close", REFUSED),
    class("FR-02", "transfer-encoding before content-length", "400, close", REFUSED),
    class(
        "FR-03",
        "transfer codings other than one `chunked`; `chunked` in any case and spacing",
        "400, close; served",
        BOTH,
    ),
    class("FR-04", "two transfer-encodings", "400, close", REFUSED),
    class("FR-05", "transfer-encoding in HTTP/1.0", "400, close", REFUSED),
    class("FR-07", "blank before a colon", "400, close", REFUSED),
    class("FR-09", "content-length twice, equal", "400, close", REFUSED),
    class("FR-10", "content-length twice, different", "400, close", REFUSED),
    class("FR-11", "content-length that is no number; plain lengths", "400, close; served", BOTH),
    class("FR-16", "line feed without carriage return", "400, close", REFUSED),
    class("FR-18", "folded lines", "400, close", REFUSED),
    class("FR-19", "names that are no tokens", "400, close", REFUSED),
    class("FR-20", "request lines not to the byte", "400 or 505, close", REFUSED),
    class("FR-21", "up to two empty lines first", "served", SERVED),
    class(
        "FR-22",
        "chunks: sizes, extensions, line ends, trailers",
        "400, close, upstream connection not reused; served",
        BROKEN,
    ),
    class("TG-01", "no host", "400, close", REFUSED),
    class("TG-02", "two hosts", "400, close", REFUSED),
    class("TG-03", "host that is none", "400, close", REFUSED),
    class("TG-04", "absolute target", "its authority is the host, for every reader", SERVED),
    class("TG-05", "absolute target: user, other scheme, no host, fragment", "400, close", REFUSED),
    class("TG-06", "targets of other forms, `OPTIONS *`", "400, close; served", BOTH),
    class("TN-01", "CONNECT", "405, nothing dialled", REFUSED),
    class("TN-02", "CONNECT with a wrong target", "400, close", REFUSED),
    class("TN-05", "upgrade to h2c", "dropped, ordinary reply", FIELDS),
    class("HH-01", "hop-by-hop fields and those that `connection` names", "end at the proxy", FIELDS),
    class(
        "HH-03",
        "the same in replies",
        "end at the proxy",
        &["tests/path/fields.rs::response_fields_end_at_the_proxy_or_arrive"],
    ),
    class(
        "HH-05",
        "`close` wherever it is said",
        "honoured",
        &["tests/path/fields.rs::close_is_honoured_wherever_it_is_said"],
    ),
    class("HH-06", "`te: trailers`", "kept", FIELDS),
    class("SP-01", "identity and control fields of other meshes", "dropped; identity set from the certificate", FIELDS),
    class(
        "SP-03",
        "identity twice, as a list, empty, huge",
        "one trusted value; 431",
        &["tests/path/fields.rs::the_application_learns_the_peer_from_its_proxy_alone"],
    ),
    class(
        "RB-19",
        "HEAD, 204, 304, 1xx, expect, trailers, upgrade",
        "boundaries kept both ways",
        &[
            "tests/path/boundary_replies.rs::replies_without_a_body_keep_their_boundaries",
            "tests/path/boundary_replies.rs::replies_arrive_whole_or_are_known_to_be_broken",
            "tests/path/expect.rs::interim_replies_are_passed_on_in_order",
            "tests/path/expect.rs::a_body_that_is_refused_is_never_sent",
            "tests/path/fields.rs::trailers_cross_both_ways",
            "tests/path/http2.rs::versions_are_converted",
        ],
    ),
    class(
        "RB-21",
        "a client ends its own direction",
        "it gets its reply; one that left is given up",
        &[
            "tests/path/half_close.rs::a_reply_reaches_a_client_that_said_it_is_done",
            "tests/path/half_close.rs::a_client_that_left_is_given_up",
        ],
    ),
    class("DG-01", "pseudo-headers: injected, missing, twice, late, unknown", "refused, 0 requests upstream", HEADS),
    class("DG-02", "field names and values with control bytes", "refused, 0 requests upstream", HEADS),
    class("DG-03", "connection fields, lengths that are not the body's", "refused, 0 requests upstream", HEADS),
    class("DG-04", "host and authority differ", "refused, 0 requests upstream", HEADS),
    class("FL-01", "rapid reset", "GOAWAY ENHANCE_YOUR_CALM within 2,000 streams; ≤ 200 requests upstream", FLOODS),
    class(
        "FL-02",
        "requests that make the proxy reset them",
        "GOAWAY within 2,000 streams, or no request upstream",
        FLOODS,
    ),
    class("FL-03", "CONTINUATION without end", "GOAWAY, 0 requests upstream", FLOODS),
    class("FL-04", "PING and SETTINGS, answers unread", "≤ 8 MiB", FLOODS),
    class("FL-05", "empty DATA", "GOAWAY", FLOODS),
    class("FL-06", "WINDOW_UPDATE", "≤ 8 MiB", FLOODS),
    class("FL-07", "PRIORITY, unknown frames", "≤ 8 MiB", FLOODS),
    class(
        "FL-08",
        "window of zero on every stream",
        "≤ 32 MiB, given up after `--stall-timeout`",
        &["tests/conformance/floods.rs::hostages_are_let_go"],
    ),
    class(
        "FL-09",
        "DATA of one byte to a slow reader",
        "≤ 32 MiB",
        &["tests/conformance/floods.rs::small_frames_to_a_slow_reader_are_bounded"],
    ),
    class("FL-10", "HPACK bomb", "≤ 8 MiB, 0 requests upstream", FLOODS),
    class("FL-11", "HPACK table size beyond what was offered", "GOAWAY", FLOODS),
    class(
        "SL-01",
        "slow heads, prefaces and handshakes, silence",
        "408 or close in time, ≤ 64 KiB each, counted",
        &[
            "tests/conformance/slow.rs::slow_clients_are_let_go",
            "tests/conformance/slow.rs::idle_connections_are_closed_also_in_http_2",
            "tests/path/boundary_limits.rs::a_head_that_takes_too_long_is_answered_408",
        ],
    ),
    class(
        "SL-03",
        "readers that read nothing, or slowly",
        "≤ 64 KiB each, given up after `--stall-timeout`; served",
        &["tests/conformance/slow.rs::readers_that_read_nothing_hold_little_and_are_let_go"],
    ),
    class("SL-04", "heads beyond the limits", "431, 414; of replies 502", HEAD_LIMITS),
    class(
        "SL-05",
        "bodies beyond what is kept for another attempt",
        "streamed, ≤ 8 MiB",
        &["tests/path/boundary_limits.rs::large_bodies_stream_through_bounded_memory"],
    ),
];

const CALLERS: &[&str] = &[
    "identity/src/token.rs::cp02_bad_tokens_are_refused",
    "identity/src/token.rs::cp02_claims_are_held_to_their_values",
    "control-plane/tests/serve/ca.rs::callers_without_a_good_token_get_nothing_on_either_listener",
    "control-plane/tests/serve/kube/mod.rs::who_is_not_that_pod_gets_nothing",
];
const REVIEWS: &[&str] = &["control-plane/src/caller/review.rs::what_is_missing_or_odd_is_refused"];
const NO_REVIEW: &[&str] = &[
    "injector/src/webhook/tests.rs::what_is_no_request_is_refused",
    "injector/src/webhook/tests.rs::a_body_that_never_ends_is_not_waited_for",
    "injector/src/review.rs::what_is_no_request_is_refused",
];

/// Who is who: certificates, the control plane, the webhook.
const WHO: &[Class] = &[
    class(
        "ID-01",
        "no certificate where one is required",
        "handshake fails, 0 bytes reach the application",
        &[
            "identity/src/tls/tests.rs::id01_a_client_without_a_certificate_is_refused",
            "tests/path/identity.rs::a_mesh_port_takes_peers_of_the_mesh_and_nobody_else",
        ],
    ),
    class(
        "ID-02",
        "plain caller of a permissive port",
        "served without an identity",
        &["tests/path/identity.rs::a_plain_caller_reaches_a_permissive_port_without_an_identity"],
    ),
    class(
        "ID-03",
        "another authority, self-signed, expired, not yet valid; clock 20 s behind",
        "refused; accepted",
        &[
            "identity/src/tls/tests.rs::id03_time_is_exact_and_roots_are_ours",
            "identity/src/tls/tests.rs::id03_a_fresh_certificate_suits_a_clock_20_s_behind",
        ],
    ),
    class(
        "ID-04",
        "another trust domain",
        "refused by both ends",
        &[
            "identity/src/tls/tests.rs::id04_another_trust_domain_is_refused_by_both_ends",
            "identity/src/tls/tests.rs::id04_strangers_are_refused_by_the_server",
        ],
    ),
    class(
        "ID-05",
        "server with another identity than its endpoint's",
        "gets nothing; `identity_mismatch`",
        &[
            "identity/src/tls/tests.rs::id05_a_server_that_is_somebody_else_is_refused",
            "tests/path/identity.rs::a_server_that_is_somebody_else_gets_nothing",
        ],
    ),
    class(
        "ID-06",
        "no or two URI names, ids to no workload, broken ids",
        "refused",
        &[
            "identity/src/tls/tests.rs::id06_one_uri_and_that_a_workload",
            "identity/src/spiffe.rs::broken_ids_are_refused",
        ],
    ),
    class(
        "ID-07",
        "leaf that may sign or lacks the usage; authority used as leaf",
        "refused",
        &["identity/src/tls/tests.rs::id07_only_a_leaf_is_a_leaf"],
    ),
    class(
        "ID-11",
        "TLS below 1.3 in the mesh",
        "refused",
        &["identity/src/tls/tests.rs::a_foreign_tls_1_2_client_reaches_the_control_plane_but_not_the_mesh"],
    ),
    class(
        "ID-16",
        "rotation of roots under load",
        "0 failures",
        &[
            "identity/src/sign/tests.rs::a_root_rotates_without_a_refusal",
            "tests/path/rotation.rs::leaves_and_roots_rotate_under_load",
        ],
    ),
    class(
        "ID-17",
        "rotation of leaves under load",
        "0 failures, new handshakes use the new one",
        &["tests/path/rotation.rs::leaves_and_roots_rotate_under_load"],
    ),
    class(
        "CP-01",
        "request for a certificate that names another workload",
        "the certificate names the caller alone",
        &[
            "control-plane/tests/serve/ca.rs::a_certificate_names_the_caller_whatever_the_request_names",
            "identity/src/sign/tests.rs::names_are_the_callers_alone",
        ],
    ),
    class(
        "CP-02",
        "token: none, garbage, expired, other or more audiences, no pod, a pod that is gone",
        "unauthenticated",
        CALLERS,
    ),
    class("CP-03", "user that is no service account, odd names", "unauthenticated", REVIEWS),
    class(
        "CP-04",
        "pod of an earlier or another uid, another account's pod",
        "unauthenticated",
        &["control-plane/src/caller/review.rs::a_good_review_names_the_pod"],
    ),
    class(
        "CP-05",
        "request for a certificate: malformed, weak keys, foreign signature, huge, wishes for more, long lives",
        "refused, or wishes ignored and lives clamped",
        &[
            "identity/src/csr.rs::cp05_malformed_and_oversized_requests_are_refused",
            "identity/src/csr.rs::cp05_weak_and_weird_keys_are_refused",
            "identity/src/csr.rs::cp05_another_keys_signature_is_refused",
            "identity/src/csr.rs::cp05_wishes_are_ignored",
            "control-plane/tests/serve/ca.rs::lifetimes_are_clamped",
        ],
    ),
    class(
        "CP-07",
        "discovery as another workload, namespace or account than the token's",
        "permission denied",
        &[
            "control-plane/tests/serve/identity.rs::a_node_may_claim_only_what_its_token_says",
            "control-plane/tests/serve/kube/mod.rs::who_is_not_that_pod_gets_nothing",
            "control-plane/tests/serve/delta.rs::the_inbound_listener_is_its_own_workloads_alone",
        ],
    ),
    class(
        "CP-12",
        "hostile answers of a control plane",
        "refused with a reason, the last good stays",
        &[
            "proxy/src/xds/tests/vectors.rs::a_hostile_control_plane_is_refused",
            "proxy/src/xds/tests/vectors.rs::one_bad_resource_is_refused_and_blocks_no_other",
            "proxy/src/xds/tests/live.rs::whoever_is_not_the_control_plane_is_not_talked_to",
        ],
    ),
    class(
        "WH-01",
        "what is no AdmissionReview: method, path, type, encoding, size, silence",
        "4xx, never 5xx",
        NO_REVIEW,
    ),
    class(
        "WH-02",
        "answer of the webhook",
        "uid, version and patch type as the API server asks",
        &["injector/src/webhook/tests.rs::a_pod_gets_its_proxy"],
    ),
    class(
        "WH-04",
        "pods that have a proxy, ours or another mesh's",
        "left alone, said why",
        &[
            "injector/src/patch/tests.rs::what_has_a_proxy_is_left_alone",
            "injector/src/decide/tests.rs::some_pods_never_get_one",
            "injector/src/decide/tests.rs::our_names_are_ours",
        ],
    ),
    class(
        "WH-05",
        "hostNetwork, namespaces of the cluster and of Tulle, `disabled`, static pods",
        "never injected",
        &[
            "injector/src/decide/tests.rs::some_pods_never_get_one",
            "cli/tests/install.rs::webhooks_leave_the_cluster_alone",
        ],
    ),
    class(
        "WH-07",
        "rights of what is injected and installed",
        "no root, no capability but the rules' own, read-only, seccomp",
        &["injector/src/patch/tests.rs::golden_pairs", "cli/tests/install.rs::pods_fit_the_level_restricted"],
    ),
    class(
        "WH-10",
        "the webhook's certificate and its renewal",
        "the authority before stays trusted",
        &["injector/src/cert.rs::a_new_certificate_is_good_and_the_authority_before_stays_trusted"],
    ),
];

/// What stands before the tables.
const HEAD: &str = "tests/conformance/security.head.md";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source of the tests that hold tables.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    for folder in ["tests/path", "tests/conformance"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("security.rs") {
                sources.push(read(&path));
            }
        }
    }
    sources.push(read(&root().join("proxy/src/codec/h1/request_tests.rs")));
    sources
}

/// Rows with this id: texts that begin with it.
fn rows(sources: &[String], id: &str) -> usize {
    sources.iter().map(|source| source.matches(&format!("\"{id}")).count()).sum()
}

fn page(sources: &[String]) -> String {
    let mut page = figures::filled(&root(), &read(&root().join(HEAD)));
    page += "\n| class | input | expected | rows | tested in |\n| --- | --- | --- | ---: | --- |\n";
    for Class { id, what, expected, tests } in CLASSES {
        let places = places(tests);
        let rows = match rows(sources, id) {
            0 => String::from("–"),
            rows => rows.to_string(),
        };
        let _ = writeln!(page, "| {id} | {what} | {expected} | {rows} | {places} |");
    }
    page += "\n## Who is who\n\n| class | case | expected | tested in |\n| --- | --- | --- | --- |\n";
    for Class { id, what, expected, tests } in WHO {
        let _ = writeln!(page, "| {id} | {what} | {expected} | {} |", places(tests));
    }
    if !NEIGHBOURS.is_empty() {
        page += "\n## Hostile neighbours\n\n| class | reach | who tries what | what bounds it | tested in |\n";
        page += "| --- | --- | --- | --- | --- |\n";
    }
    for Neighbour { id, reach, can, bound, tests } in NEIGHBOURS {
        let reach: Vec<String> = reach.iter().map(|reach| reach.shown()).collect();
        let bound = figures::filled(&root(), bound);
        let _ = writeln!(page, "| {id} | {} | {can} | {bound} | {} |", reach.join(", "), places(tests));
    }
    page
}

/// The files of tests.
fn places(tests: &[&str]) -> String {
    let places: BTreeSet<&str> = tests.iter().filter_map(|test| test.split("::").next()).collect();
    places.into_iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_says_what_is_tested() {
    let sources = sources();
    let bare = figures::unchecked(&read(&root().join(HEAD)));
    assert!(bare.is_empty(), "figures that no constant stands behind: {bare:#?}");
    let classes = CLASSES.iter().chain(WHO).map(|class| (class.id, class.tests));
    for (id, tests) in classes.chain(NEIGHBOURS.iter().map(|neighbour| (neighbour.id, neighbour.tests))) {
        assert!(!tests.is_empty(), "{id} is tested nowhere");
        for test in tests {
            let (file, name) = test.split_once("::").expect("file::test");
            assert!(read(&root().join(file)).contains(&format!("fn {name}(")), "{id}: no {test}");
        }
    }
    let known: BTreeSet<&str> = CLASSES.iter().map(|class| class.id).collect();
    assert_eq!(known.len(), CLASSES.len(), "an id is there twice");
    let who: BTreeSet<&str> = WHO.iter().map(|class| class.id).collect();
    assert_eq!(who.len(), WHO.len(), "an id is there twice");
    assert!(NEIGHBOURS.is_sorted_by(|one, next| one.id < next.id), "hostile neighbours by id, each once");
    for family in ["FR-", "TG-", "TN-", "HH-", "SP-", "DG-", "FL-", "SL-"] {
        for source in &sources {
            for (at, _) in source.match_indices(&format!("\"{family}")) {
                let id = source.get(at + 1..at + 6).unwrap_or_default();
                assert!(known.contains(id), "rows of {id}, which is no class of docs/security.md");
            }
        }
    }
    let (path, made) = (root().join("docs/security.md"), page(&sources));
    #[expect(clippy::disallowed_methods, reason = "a switch of this test")]
    if std::env::var_os("TULLE_BLESS").is_some() {
        std::fs::write(&path, &made).expect("the page is written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "docs/security.md is not what the tests say; TULLE_BLESS=1 cargo test --test conformance security";
    assert!(there == made, "{hint}");
}
