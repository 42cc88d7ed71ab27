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
        id: "HN-11",
        reach: &[Reach::Tenant("HTTPRoute"), Reach::Tenant("GRPCRoute")],
        can: "turns a producer's route off with a route in another namespace",
        bound: "the kind of route on a port is decided for each namespace by its own routes",
        tests: &[
            "control-plane/src/registry/tests/hostile.rs::hostile_11_routes_of_another_namespace_turn_nothing_off",
        ],
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
];
