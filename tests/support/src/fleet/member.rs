//! The life of one simulated proxy: connect, ask, acknowledge, and come back when the control plane goes away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tulle_proto::envoy::config::core::v3::Node;
use tulle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use tulle_proto::google::protobuf::{Struct, Value, value::Kind};
use tulle_proto::{ResourceType, names};

use super::link::{Link, Target};
use super::tally::Tally;

/// Waits of `tulle-proxy` between attempts: the first, and the bounds of later ones, which grow with the outage.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const SHORT_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// One proxy.
#[derive(Debug)]
pub(super) struct Member {
    node: Node,
    inbound: Arc<str>,
    services: Vec<Arc<str>>,
    token: Arc<str>,
    /// Versions held, by type in the order of [`ResourceType::ALL`].
    held: [HashMap<Arc<str>, String>; ResourceType::ALL.len()],
    synced: bool,
}

impl Member {
    /// A proxy beside `account` in `namespace` that dials `services`.
    pub(super) fn new(namespace: &str, account: &str, services: Vec<Arc<str>>, token: Arc<str>) -> Self {
        let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
        let fields = HashMap::from([
            (names::node::NAMESPACE.to_owned(), text(namespace)),
            (names::node::WORKLOAD.to_owned(), text(account)),
            (names::node::SERVICE_ACCOUNT.to_owned(), text(account)),
        ]);
        let node = Node {
            id: format!("{account}.{namespace}"),
            metadata: Some(Struct { fields }),
            user_agent_name: names::node::USER_AGENT.to_owned(),
            ..Node::default()
        };
        let inbound = names::inbound_listener(namespace, account).into();
        Self { node, inbound, services, token, held: Default::default(), synced: false }
    }

    /// Lives until dropped.
    pub(super) async fn run(mut self, target: Arc<Target>, tally: Arc<Tally>) {
        let mut lost: Option<Instant> = None;
        loop {
            if let Ok(mut link) = Link::open(&target, &self.token, &self.first_requests(), &tally).await {
                tally.note_opened();
                lost = None;
                // Whatever ended it, what follows is the same.
                let _ = self.follow(&mut link, &tally).await;
                tally.update(|totals| totals.connected -= 1);
            }
            tally.update(|totals| totals.failures += 1);
            let outage = lost.map(|since| since.elapsed());
            lost.get_or_insert_with(Instant::now);
            let bound = outage.map_or(FIRST_WAIT, |outage| outage.clamp(SHORT_WAIT, LONGEST_WAIT));
            tokio::time::sleep(bound.mul_f64(rand::random::<f64>())).await;
        }
    }

    async fn follow(&mut self, link: &mut Link, tally: &Tally) -> anyhow::Result<()> {
        while let Some((response, bytes)) = link.next().await? {
            tally.update(|totals| {
                totals.responses += 1;
                totals.resources += response.resources.len();
                totals.removed += response.removed_resources.len();
                totals.bytes += bytes;
            });
            let Some(ty) = ResourceType::from_url(&response.type_url) else { continue };
            link.send(&DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                ..DeltaDiscoveryRequest::default()
            })?;
            for request in self.take_in(ty, response, tally) {
                link.send(&request)?;
            }
        }
        Ok(())
    }

    /// Notes what came, and asks for what follows from it: listeners name routes, clusters and endpoints.
    fn take_in(
        &mut self,
        ty: ResourceType,
        response: DeltaDiscoveryResponse,
        tally: &Tally,
    ) -> Vec<DeltaDiscoveryRequest> {
        let mut new: Vec<String> = Vec::new();
        for resource in response.resources {
            if ty == ResourceType::Endpoint
                && let Some(generation) = tally.expected(&resource.name)
                && resource.resource.as_ref().and_then(|any| heaviest(&any.value)) == Some(generation)
            {
                tally.note_arrival();
            }
            let held = &mut self.held[index(ty)];
            match held.get_mut(&*resource.name) {
                Some(version) if *version == resource.version => tally.update(|totals| totals.unchanged += 1),
                Some(version) => *version = resource.version,
                None => {
                    let dialled = self.services.iter().find(|name| ***name == *resource.name);
                    let name = dialled.cloned().unwrap_or_else(|| resource.name.as_str().into());
                    held.insert(name, resource.version);
                    if ty == ResourceType::Listener && dialled.is_some() {
                        new.push(resource.name);
                    }
                }
            }
        }
        if !self.synced && self.complete() {
            self.synced = true;
            tally.update(|totals| totals.synced += 1);
        }
        if new.is_empty() {
            return Vec::new();
        }
        let ask = |ty: ResourceType| DeltaDiscoveryRequest {
            type_url: ty.url().to_owned(),
            resource_names_subscribe: new.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Route].map(ask).into()
    }

    /// Whether everything that is asked for is there.
    fn complete(&self) -> bool {
        ResourceType::ALL.iter().all(|ty| {
            let wanted = match ty {
                ResourceType::Secret => 1,
                ResourceType::Name | ResourceType::Ranges => 0,
                ResourceType::Listener => self.services.len() + 1,
                ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Route => self.services.len(),
            };
            self.held[index(*ty)].len() == wanted
        })
    }

    /// What a stream begins with: everything asked for by then, with the versions held.
    fn first_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(self.node.clone());
        let request = |ty: &ResourceType| {
            let held = &self.held[index(*ty)];
            let subscribe: Vec<String> = match ty {
                ResourceType::Secret => vec![names::TRUST_BUNDLE.to_owned()],
                ResourceType::Name | ResourceType::Ranges => Vec::new(),
                ResourceType::Listener => {
                    self.services.iter().chain([&self.inbound]).map(ToString::to_string).collect()
                }
                ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Route => self.held
                    [index(ResourceType::Listener)]
                .keys()
                .filter(|name| **name != self.inbound)
                .map(ToString::to_string)
                .collect(),
            };
            let versions = held.iter().map(|(name, version)| (name.to_string(), version.clone()));
            (!subscribe.is_empty()).then(|| DeltaDiscoveryRequest {
                node: node.take(),
                type_url: ty.url().to_owned(),
                resource_names_subscribe: subscribe,
                initial_resource_versions: versions.collect(),
                ..DeltaDiscoveryRequest::default()
            })
        };
        ResourceType::ALL.iter().filter_map(request).collect()
    }
}

/// The largest weight in an encoded load assignment.
fn heaviest(encoded: &[u8]) -> Option<u32> {
    let assignment = ClusterLoadAssignment::decode(encoded).ok()?;
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    endpoints.filter_map(|endpoint| endpoint.load_balancing_weight.as_ref()).map(|weight| weight.value).max()
}

fn index(ty: ResourceType) -> usize {
    ResourceType::ALL.iter().position(|other| *other == ty).unwrap_or_default()
}
