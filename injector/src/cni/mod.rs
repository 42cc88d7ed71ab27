//! The CNI plugin `tulle-cni`: redirect rules written from the node, for clusters whose pods may not have NET_ADMIN.
//!
//! `plugin` is what the container runtime runs for each pod; `install` is the DaemonSet that keeps it on a node. The two
//! share nothing but files.

/// What a call is told.
mod settings;

/// What a runtime says and hears: the words of CNI.
mod protocol;

/// Whether a pod is to be captured, and how.
mod wanted;

/// The pod's annotations, from the API server.
mod ask;

/// Work in another network namespace.
mod netns;

/// A call of the runtime, answered.
pub mod plugin;

/// Network configurations as text, with the plugin and without.
mod conflist;

/// How the plugin reaches the API server.
mod kubeconfig;

/// The files of a node.
mod node;

/// The DaemonSet's program.
mod install;

/// From arguments to exit code.
pub mod cli;
