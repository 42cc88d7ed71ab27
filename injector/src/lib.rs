//! Puts the proxy beside a workload: the redirect rules that lead a pod's TCP traffic through its sidecar.
//!
//! [`redirect`] holds what the init container `tulle-init` does. Nothing here talks to Kubernetes.

pub mod redirect;
