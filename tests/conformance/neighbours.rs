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
pub(crate) const NEIGHBOURS: &[Neighbour] = &[Neighbour {
    id: "HN-00",
    reach: &[Reach::Network, Reach::Mesh, Reach::Tenant("any kind"), Reach::Operator],
    can: "reads the configuration of another workload, or obtains a certificate in its name",
    bound: "the identity of the caller's token, on every call; a certificate names the caller alone",
    tests: &[
        "control-plane/tests/serve/identity.rs::a_node_may_claim_only_what_its_token_says",
        "control-plane/tests/serve/ca.rs::a_certificate_names_the_caller_whatever_the_request_names",
    ],
}];
