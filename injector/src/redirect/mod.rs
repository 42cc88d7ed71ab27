//! Redirect rules: which TCP connections of a network namespace are led through the proxy.
//!
//! `settings` says what is wanted, `plan` turns it into ordered rules, `rules` writes those as nftables or iptables
//! text, all of them pure; `apply` alone needs privileges, and `probe` finds out without any whether rules are in force. The kernel keeps the original destination, and the proxy
//! reads it with `SO_ORIGINAL_DST`.

pub(crate) mod settings;

mod plan;

mod rules;

mod tools;

mod apply;

mod probe;

pub use apply::{ApplyError, apply, remove, verify};
pub use probe::{ProbeError, Proof, probe};
pub use rules::script;
pub use settings::{Family, Mode, ParseSpanError, Settings, Span};
pub use tools::Tools;
