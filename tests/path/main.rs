//! The proxy against scripted peers on loopback; needs no root. One file per subject.

/// A control plane and the sidecars that follow it.
mod mesh;

/// Resources of the scripted control plane, as the proxy compiles them.
mod resources;

/// One request through two sidecars.
mod pair;

/// The two ways to an application: one proxy in plain, two with mutual TLS between them.
mod boundary_lanes;

/// What counts as a request: the same for the proxy and for the application.
mod boundary;

/// Header fields and trailers on their way.
mod fields;

/// Interim replies.
mod expect;

/// Replies, whole and broken.
mod boundary_replies;

/// Unusual and broken responses, uploads and upgrades of real traffic.
mod mend_replies;

/// Connections that are kept, and names on them.
mod mend_connections;

/// Requests refused by their head.
mod mend_refusals;

/// Clients that end their own direction.
mod half_close;

/// Sizes and times.
mod boundary_limits;

/// gRPC through two sidecars.
mod grpc;
/// Who may come in, and who is called.
mod identity;

/// Connections end with what they proved.
mod lifetimes;

/// Endpoints that are the proxy itself.
mod own_listeners;

/// HTTP/2: conversion from and to HTTP/1.
mod http2;

/// HTTP/2 applications that break the rules.
mod http2_replies;

/// What is tried again, and what never is.
mod retry;

/// What was not processed is sent again.
mod unprocessed;

/// Routes of the Gateway API.
mod routes;

/// Routes of calls, from sidecar to sidecar.
mod grpc_routes;

/// Which endpoint a request goes to.
mod failover;

/// Connections to endpoints: their limit, and what of them stays.
mod connections;

/// Opaque bytes, and ports that do not say what they speak.
mod opaque;

/// Ports that declare nothing.
mod detect;

/// Shutting down.
mod drain;

/// Replicas are replaced under load.
mod drain_rolling;

/// Without a control plane.
mod discovery;

/// Certificates and roots are replaced.
mod rotation;
