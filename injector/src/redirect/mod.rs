//! Redirect rules: which TCP connections of a network namespace are led through the proxy.
//!
//! `settings` says what is wanted, `plan` turns it into ordered rules, `rules` writes those as nftables or iptables
//! text, all of them pure; `apply` alone needs privileges. The kernel keeps the original destination, and the proxy
//! reads it with `SO_ORIGINAL_DST`.

pub(crate) mod settings;

mod plan;

mod rules;

mod apply;

pub use apply::{ApplyError, apply, remove, verify};
pub use rules::script;
pub use settings::{Family, Mode, ParseSpanError, Settings, Span};
