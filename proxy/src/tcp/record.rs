//! What an opaque connection amounted to: its series while it lives, and its line in the access log.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::Opaque;
use crate::base::failure::Reason;
use crate::config::endpoint::Endpoint;
use crate::relay::Counts;
use crate::telemetry::access_log::AccessRecord;
use crate::telemetry::counters::TcpSeries;
use crate::telemetry::labels::{Destination, Direction, TcpLabels};
use crate::view::Active;

/// One connection.
pub(super) struct Record {
    started: Instant,
    upstream: Option<Upstream>,
    sent: Cell<u64>,
    received: Cell<u64>,
}

/// The endpoint of the last attempt.
struct Upstream {
    endpoint: std::sync::Arc<Endpoint>,
    series: Rc<TcpSeries>,
    since: Instant,
    opened: bool,
}

impl Record {
    /// A connection that begins now.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), upstream: None, sent: Cell::new(0), received: Cell::new(0) }
    }

    /// An endpoint was reached.
    pub(super) fn connected(&mut self, opaque: &Opaque, active: &Active) {
        let endpoint = std::sync::Arc::clone(&active.endpoint().config);
        let series = opaque.worker.telemetry.tcp(&labels(opaque, &endpoint));
        self.upstream = Some(Upstream { endpoint, series, since: Instant::now(), opened: false });
    }

    /// It is opaque.
    pub(super) fn opened(&mut self) {
        if let Some(upstream) = self.upstream.as_mut().filter(|upstream| !upstream.opened) {
            upstream.opened = true;
            upstream.series.opened();
        }
    }

    /// The connection to the endpoint is over.
    pub(super) fn closed(&self, reason: Option<Reason>) {
        if let Some(upstream) = self.upstream.as_ref().filter(|upstream| upstream.opened) {
            upstream.series.closed(reason, upstream.since.elapsed());
        }
    }

    /// The line in the access log.
    pub(super) fn write(&self, opaque: &Opaque, attempts: u32, reason: Option<Reason>) {
        let telemetry = &opaque.worker.telemetry;
        if !telemetry.access_enabled() {
            return;
        }
        let duration = self.started.elapsed();
        let endpoint = self.upstream.as_ref().map(|upstream| &upstream.endpoint);
        let peer = match opaque.direction {
            Direction::Inbound => opaque.tls.then_some(&*opaque.source.identity),
            Direction::Outbound => endpoint.and_then(|endpoint| endpoint.identity.as_ref()).map(|id| id.as_str()),
        };
        let config = &opaque.cluster.config;
        let service = match (&*config.service, &*config.namespace) {
            ("", _) => String::new(),
            (service, "") => service.to_owned(),
            (service, namespace) => format!("{service}.{namespace}"),
        };
        telemetry.access(&AccessRecord {
            time: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            direction: opaque.direction,
            downstream: opaque.downstream.0,
            peer,
            method: "",
            authority: &service,
            path: "",
            protocol: "tcp",
            status: None,
            grpc_status: None,
            reason,
            detail: "",
            duration,
            request_bytes: self.sent.get(),
            response_bytes: self.received.get(),
            upstream: endpoint.map(|endpoint| -> SocketAddr { endpoint.address }),
            cluster: &config.name,
            route: "",
            attempts,
        });
    }
}

impl Counts for Record {
    fn sent(&self, bytes: u64) {
        self.sent.set(self.sent.get().saturating_add(bytes));
        if let Some(upstream) = &self.upstream {
            upstream.series.sent(bytes);
        }
    }

    fn received(&self, bytes: u64) {
        self.received.set(self.received.get().saturating_add(bytes));
        if let Some(upstream) = &self.upstream {
            upstream.series.received(bytes);
        }
    }
}

fn labels(opaque: &Opaque, endpoint: &Endpoint) -> TcpLabels {
    let cluster = &opaque.cluster.config;
    TcpLabels {
        direction: opaque.direction,
        source: opaque.source.clone(),
        destination: Destination {
            service: cluster.service.clone(),
            namespace: cluster.namespace.clone(),
            workload: match opaque.direction {
                Direction::Inbound => opaque.worker.own.workload.clone(),
                Direction::Outbound => endpoint.workload.clone(),
            },
        },
        tls: opaque.tls || endpoint.identity.is_some(),
    }
}
