//! The pod's nameservers, asked in their order until one answers. hickory sends the messages: new port and id for each,
//! TCP for what UDP truncates. One that is silent twice in a row is left alone for a while, so that while all are gone
//! questions fail at once and clients do not queue up behind timeouts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, ResponseCode};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::time::{Instant, timeout};

use super::cache::Fresh;
use super::message::{Answer, Question};

/// Longest wait for one nameserver. With the three that a resolv.conf may name it is less than the 5 s that clients
/// wait before they ask again.
const ATTEMPT: Duration = Duration::from_millis(1200);

/// How long a silent nameserver is left alone.
const PAUSE: Duration = Duration::from_secs(2);

/// Silences in a row that make a nameserver a silent one: the first may be a lost packet.
const SILENCES: u32 = 2;

/// Most nameservers that are asked. Source: `MAXNS` of resolv.conf(5).
const MAX_SERVERS: usize = 3;

/// The nameservers.
pub(super) struct Upstreams {
    servers: Vec<Server>,
}

struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
    health: Mutex<Health>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    silences: u32,
    /// Not asked before then.
    paused_until: Option<Instant>,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|server| server.address)).finish()
    }
}

impl Upstreams {
    /// Nameservers at `addresses`, the first of them in their order.
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        let server = |address: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            let mut options = ResolverOpts::default();
            options.timeout = ATTEMPT;
            options.num_concurrent_reqs = 1;
            // The kernel's choice of ports stays off those an application may want.
            options.os_port_selection = true;
            let tls = TlsConfig::new().ok()?;
            let context = Arc::new(PoolContext::new(options, tls));
            let pool = NameServerPool::from_config([config], context, TokioRuntimeProvider::default());
            Some(Server { address: *address, pool, health: Mutex::default() })
        };
        Self { servers: addresses.iter().take(MAX_SERVERS).filter_map(server).collect() }
    }

    /// Asks one after the other.
    ///
    /// # Errors
    /// Why there is no answer, for people: what each nameserver did.
    pub(super) async fn ask(&self, question: &Question) -> Result<Fresh, String> {
        let mut reasons = Vec::new();
        for server in &self.servers {
            match server.ask(question).await {
                Ok(fresh) => return Ok(fresh),
                Err(reason) => reasons.push(format!("{}: {reason}", server.address)),
            }
        }
        if reasons.is_empty() {
            reasons.push("no nameserver in resolv.conf".to_owned());
        }
        Err(reasons.join("; "))
    }

    /// Each nameserver in words.
    pub(super) fn lines(&self, now: Instant) -> Vec<String> {
        let line = |server: &Server| {
            let health = *server.health();
            let state = if health.is_paused(now) { "silent" } else { "asked" };
            format!("{} {state}, silent {} times in a row", server.address, health.silences)
        };
        self.servers.iter().map(line).collect()
    }
}

impl Server {
    async fn ask(&self, question: &Question) -> Result<Fresh, String> {
        if !self.health().may_ask(Instant::now()) {
            return Err("silent".to_owned());
        }
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = question.dnssec_ok;
        let mut request = DnsRequest::from_query(question.query.clone(), options);
        request.metadata.checking_disabled = question.checking_disabled;
        // Beside hickory's own bound, so that whatever it waits for has an end.
        let result = match timeout(ATTEMPT, self.pool.send(request).next()).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(NetError::NoConnections),
            Err(_elapsed) => Err(NetError::Timeout),
        };
        match result {
            Ok(response) => {
                self.health().heard();
                Ok(positive(response.into_message()))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                self.health().heard();
                let mut answer = Answer::empty(none.response_code);
                answer.authorities = none.authorities.map(|all| all.to_vec()).unwrap_or_default();
                // Without a SOA record nothing says how long it holds. Source: RFC 2308, section 5.
                Ok(Fresh { answer, ttl: Duration::from_secs(none.negative_ttl.unwrap_or(0).into()) })
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                self.health().heard();
                Err(format!("answered {code}"))
            }
            Err(error) => {
                self.health().silent(Instant::now());
                Err(error.to_string())
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn positive(message: hickory_resolver::proto::op::Message) -> Fresh {
    let least = message.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    let answer = Answer {
        authentic: message.metadata.authentic_data,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
        ..Answer::empty(message.metadata.response_code)
    };
    let kept = answer.code == ResponseCode::NoError || answer.code == ResponseCode::NXDomain;
    Fresh { answer, ttl: Duration::from_secs(if kept { least.into() } else { 0 }) }
}

impl Health {
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Whether to ask now. After a pause one question goes ahead, and the next only when that one was answered.
    fn may_ask(&mut self, now: Instant) -> bool {
        if self.is_paused(now) {
            return false;
        }
        if self.paused_until.is_some() {
            self.paused_until = now.checked_add(PAUSE);
        }
        true
    }

    fn heard(&mut self) {
        *self = Self::default();
    }

    fn silent(&mut self, now: Instant) {
        self.silences = self.silences.saturating_add(1);
        if self.silences >= SILENCES {
            self.paused_until = now.checked_add(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silence_is_forgiven_and_a_pause_ends_with_one_question() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.silent(start);
        assert!(health.may_ask(start));
        health.silent(start);
        assert!(!health.may_ask(start + PAUSE - Duration::from_millis(1)));
        assert!(health.may_ask(start + PAUSE), "one goes ahead");
        assert!(!health.may_ask(start + PAUSE), "the others wait for what it finds");
        health.heard();
        assert!(health.may_ask(start + PAUSE) && health.may_ask(start + PAUSE));
    }
}
