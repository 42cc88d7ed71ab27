//! Real redirect rules in real network namespaces. Needs root, and `ip`, `nft`, `iptables`, `bash`, `getent`; without them every
//! test says that it was skipped, and why.

mod cni;
mod dns;
mod image;
mod mesh;
mod redirect;
mod support;
