//! The section of `docs/security.md` on hostile neighbours: for each class who can do what, what bounds it, and where
//! that is tested. One row for each class; `security.rs` writes the page.

/// What an attacker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// A pod, or anything else that can open connections; no credential.
    Network,
    /// A valid workload token or certificate.
    Mesh,
    /// May write objects of the kind in its own namespace only.
    Tenant(&'static str),
    /// Nobody attacks: an operator, a clock, an upgrade.
    Operator,
}

impl Reach {
    pub(crate) fn shown(self) -> String {
        match self {
            Self::Network => "network".to_owned(),
            Self::Mesh => "mesh".to_owned(),
            Self::Tenant(kind) => format!("tenant({kind})"),
            Self::Operator => "operator".to_owned(),
        }
    }
}

/// A class of harm.
pub(crate) struct Neighbour {
    /// `HN-` and two digits, which are those of the tests `hostile_NN_...`.
    pub(crate) id: &'static str,
    pub(crate) reach: &'static [Reach],
    /// What somebody with that reach tries.
    pub(crate) can: &'static str,
    /// What bounds it. Figures are placeholders, see `figures.rs`.
    pub(crate) bound: &'static str,
    /// `file::test`.
    pub(crate) tests: &'static [&'static str],
}

/// By id.
pub(crate) const NEIGHBOURS: &[Neighbour] = &[
    Neighbour {
        id: "HN-00",
        reach: &[Reach::Network, Reach::Mesh, Reach::Tenant("any kind"), Reach::Operator],
        can: "reads the configuration of another workload, or obtains a certificate in its name",
        bound: "the identity of the caller's token, on every call; a certificate names the caller alone",
        tests: &[
            "control-plane/tests/serve/identity.rs::a_node_may_claim_only_what_its_token_says",
            "control-plane/tests/serve/ca.rs::a_certificate_names_the_caller_whatever_the_request_names",
        ],
    },
    Neighbour {
        id: "HN-01",
        reach: &[Reach::Tenant("Workload"), Reach::Tenant("EndpointSlice"), Reach::Tenant("Service")],
        can: "claims the address of another namespace's pod or Service, so that it is called in plain or under another identity",
        bound: "pod before Service before Workload, whatever the age; a contested address is never dialled in plain; in a \
                cluster a Workload has addresses of `mesh.workloadRanges` alone (decision 009)",
        tests: &[
            "control-plane/src/registry/tests/hostile.rs::hostile_01_a_pod_owns_its_address_whatever_a_workload_claimed_before",
            "control-plane/src/registry/tests/hostile.rs::hostile_01_two_workloads_at_one_address_never_make_it_plain",
            "control-plane/src/source/kube/tests.rs::hostile_01_a_workload_has_only_addresses_its_namespace_may_claim",
        ],
    },
    Neighbour {
        id: "HN-03",
        reach: &[Reach::Tenant("any kind")],
        can: "writes an object that does not parse, so that no object of its kind is read",
        bound: "each object is parsed by itself, with numbers as wide as JSON's and a bounded depth; its last good version stays",
        tests: &["control-plane/src/source/kube/tests.rs::hostile_03_no_object_spoils_a_list"],
    },
    Neighbour {
        id: "HN-04",
        reach: &[Reach::Mesh],
        can: "takes all streams, memory or signatures of a control plane with one token",
        bound: "an identity has {{control-plane/src/quota.rs IDENTITY_STREAMS}} streams, {{bytes control-plane/src/quota.rs \
                IDENTITY_DEMAND_BYTES}} of demands and {{control-plane/src/quota.rs IDENTITY_SIGNATURES_PER_SEC}} \
                signatures a second of a replica, a pod {{control-plane/src/quota.rs POD_STREAMS}}, {{bytes \
                control-plane/src/quota.rs POD_DEMAND_BYTES}} and {{control-plane/src/quota.rs POD_SIGNATURES_PER_SEC}}; \
                `tulle_quota_refused_total{identity,quota}`",
        tests: &[
            "control-plane/src/quota.rs::hostile_04_streams_and_demands_have_a_share_each",
            "control-plane/src/quota.rs::hostile_04_signatures_have_a_rate",
        ],
    },
    Neighbour {
        id: "HN-05",
        reach: &[Reach::Operator],
        can: "a clock is set, or a machine sleeps, so that what has ended is served on",
        bound: "every wall-clock deadline is looked at again within {{control-plane/src/clock.rs LOOK_AGAIN}}; a certificate \
            that has not begun is replaced",
        tests: &[
            "control-plane/src/clock.rs::hostile_05_a_deadline_is_noticed_soon_after_the_clock_was_set",
            "control-plane/src/identity/serving.rs::hostile_05_the_serving_certificate_follows_the_clock_both_ways",
            "proxy/src/identity/rotate.rs::hostile_05_the_clock_moves_both_ways",
        ],
    },
    Neighbour {
        id: "HN-06",
        reach: &[Reach::Tenant("Workload, Service, HTTPRoute")],
        can: "has a caller's proxy connect to itself, to its pod's loopback or to the node's link-local addresses",
        bound: "such endpoints are refused in a cluster, by control plane and proxy; own listeners are never dialled; commands \
            need a header that no proxy of the mesh passes on",
        tests: &[
            "tests/path/own_listeners.rs::hostile_06_own_listeners_are_never_dialled",
            "tests/path/own_listeners.rs::hostile_06_a_pod_takes_no_endpoint_that_leads_back_to_it",
            "control-plane/src/validate.rs::hostile_06_addresses_that_lead_to_the_caller_itself",
            "proxy/src/admin/tests.rs::hostile_06_commands_need_a_field_that_does_not_pass_a_proxy",
        ],
    },
    Neighbour {
        id: "HN-07",
        reach: &[Reach::Network, Reach::Operator],
        can: "receives a bearer token in plain, because the control plane is away when its service is first dialled",
        bound: "inside the mesh's address ranges a connection without an answer is refused; the ranges are in the last-good file",
        tests: &[
            "tests/netns/mesh.rs::hostile_07_silence_is_no_licence_for_plaintext",
            "proxy/src/xds/tests/ranges.rs::hostile_07_a_restart_keeps_the_ranges",
            "proxy/src/xds/tests/ranges.rs::hostile_07_no_such_service_lapses_in_an_outage_inside_the_mesh_only",
        ],
    },
    Neighbour {
        id: "HN-08",
        reach: &[Reach::Network],
        can: "shows tokens that nobody signed, so that honest callers wait and the API server reviews them",
        bound: "signatures are verified by the cluster's keys first, which are asked for again after \
                {{control-plane/src/caller/keys.rs PAUSE}} at the earliest; sources take turns at \
                {{control-plane/src/caller/turns.rs AT_ONCE}} reviews",
        tests: &[
            "identity/src/jwks.rs::hostile_08_only_what_the_cluster_signed_is_good",
            "control-plane/src/caller/turns.rs::hostile_08_a_crowd_delays_another_source_by_one_question",
            "control-plane/src/caller/turns.rs::hostile_08_unsigned_tokens_have_a_rate_of_their_own",
        ],
    },
    Neighbour {
        id: "HN-09",
        reach: &[Reach::Network, Reach::Mesh],
        can: "names itself in an identity field whose spelling an application server merges with the real one",
        bound: "all punctuation counts as `-`; control fields in another spelling are dropped, trailers included",
        tests: &["tests/path/fields.rs::hostile_09_identity_fields_in_other_spellings_reach_nobody"],
    },
    Neighbour {
        id: "HN-11",
        reach: &[Reach::Tenant("HTTPRoute"), Reach::Tenant("GRPCRoute")],
        can: "turns a producer's route off with a route in another namespace",
        bound: "the kind of route on a port is decided for each namespace by its own routes",
        tests: &[
            "control-plane/src/registry/tests/hostile.rs::hostile_11_routes_of_another_namespace_turn_nothing_off",
        ],
    },
    Neighbour {
        id: "HN-13",
        reach: &[Reach::Network, Reach::Mesh],
        can: "keeps a connection beyond its certificate, its root, or the policy that let it in",
        bound: "every connection is reviewed each second and at every change; what is under way is cut after \
            {{proxy/src/lifetime.rs GRACE}}; `--max-connection-age`",
        tests: &[
            "tests/path/lifetimes.rs::hostile_13_connections_end_with_the_certificate_they_were_made_with",
            "tests/path/lifetimes.rs::hostile_13_connections_end_when_the_root_that_vouched_is_removed",
            "tests/path/lifetimes.rs::hostile_13_connections_have_a_greatest_age",
            "tests/path/lifetimes.rs::mend_29_a_stricter_policy_ends_plain_connections",
        ],
    },
    Neighbour {
        id: "HN-14",
        reach: &[Reach::Network],
        can: "routes packets for another host through a pod, to be relayed with that pod's reach",
        bound: "inbound connections are relayed to addresses of the pod's own network namespace only",
        tests: &["proxy/src/connect/own.rs::hostile_14_addresses_of_the_namespace"],
    },
    Neighbour {
        id: "HN-15",
        reach: &[Reach::Tenant("Service")],
        can: "opens pods of a `strict` namespace to plain connections",
        bound: "of the mesh, the namespace and the Service the strictest mode counts (decision 010)",
        tests: &[
            "control-plane/src/registry/tests/hostile.rs::hostile_15_the_stricter_mode_is_in_force_whoever_asks_for_it",
        ],
    },
    Neighbour {
        id: "HN-16",
        reach: &[Reach::Operator],
        can: "runs a control plane on a directory that another user of the machine has made",
        bound: "the state directory and the keys in it belong to the process, with modes 0700 and 0600, and are not links",
        tests: &["identity/src/store.rs::hostile_16_what_somebody_else_put_there_is_not_used"],
    },
    Neighbour {
        id: "HN-18",
        reach: &[Reach::Tenant("Namespace, Service")],
        can: "answers an absolute name of the world from a service called like its first label",
        bound: "absolute names are not completed; only what a client completed with a search domain is taken back",
        tests: &[
            "proxy/src/dns/expand.rs::hostile_18_absolute_names_are_not_completed",
            "proxy/src/dns/tests.rs::hostile_18_absolute_names_go_to_the_nameservers",
        ],
    },
];
