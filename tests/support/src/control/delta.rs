//! One incremental discovery stream: what it subscribed to, what it was sent, what it said to that.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tulle_proto::ResourceType;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::{Asked, Refused, State};

/// What a client was sent last under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    Nothing,
    Absent,
    Version(String),
}

/// A response that was not answered yet: its nonce, and for each name its version or absence.
type Pending = (String, Vec<(String, Option<String>)>);

#[derive(Debug, Default)]
struct PerType {
    names: BTreeMap<String, Sent>,
    wildcard: bool,
    pending: VecDeque<Pending>,
}

/// A stream; ends when the client does.
pub(super) struct Stream {
    state: Arc<State>,
    number: usize,
    authorization: Option<String>,
    types: HashMap<ResourceType, PerType>,
    nonce: u64,
    out: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Stream {
    pub(super) fn new(
        state: Arc<State>,
        authorization: Option<String>,
        out: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Self {
        let number = {
            let mut world = state.world();
            world.streams += 1;
            world.open_streams += 1;
            world.streams - 1
        };
        Self { state, number, authorization, types: HashMap::new(), nonce: 0, out }
    }

    pub(super) async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let mut changed = self.state.changed.subscribe();
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request),
                    Ok(None) | Err(_) => break,
                },
                change = changed.changed() => if change.is_err() { break },
                () = self.out.closed() => break,
            }
            // Make-before-break order is that of the enum.
            for kind in ResourceType::ALL {
                if self.push(kind).await.is_err() {
                    break;
                }
            }
        }
        let mut world = self.state.world();
        world.open_streams = world.open_streams.saturating_sub(1);
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) {
        let state = Arc::clone(&self.state);
        let mut world = state.world();
        let (stream, authorization) = (self.number, self.authorization.clone());
        world.requests.push(Asked { stream, authorization, request: request.clone() });
        let Some(kind) = ResourceType::from_url(&request.type_url) else { return };
        let first = !self.types.contains_key(&kind);
        let types = self.types.entry(kind).or_default();
        if let Some(at) = types.pending.iter().position(|(nonce, _)| *nonce == request.response_nonce) {
            let answered = types.pending.remove(at).map(|(_, names)| names).unwrap_or_default();
            match &request.error_detail {
                None => world.acknowledged.extend(answered.into_iter().map(|(n, v)| ((kind, n), v))),
                Some(status) => {
                    let names = answered.into_iter().map(|(name, _)| name).collect();
                    world.refused.push(Refused { kind, names, reason: status.message.clone() });
                }
            }
        }
        for name in &request.resource_names_subscribe {
            // Asking again asks for it again, whatever was sent before.
            types.names.insert(name.clone(), Sent::Nothing);
            types.wildcard |= name == "*";
        }
        types.wildcard |= first && request.resource_names_subscribe.is_empty();
        for name in &request.resource_names_unsubscribe {
            types.names.remove(name);
            types.wildcard &= name != "*";
        }
        for (name, version) in request.initial_resource_versions {
            types.names.insert(name, Sent::Version(version));
        }
        types.names.remove("*");
    }

    /// Sends what the client does not have yet.
    async fn push(
        &mut self,
        kind: ResourceType,
    ) -> Result<(), mpsc::error::SendError<Result<DeltaDiscoveryResponse, Status>>> {
        let Some(types) = self.types.get_mut(&kind) else { return Ok(()) };
        let mut response = DeltaDiscoveryResponse { type_url: kind.url().to_owned(), ..Default::default() };
        {
            let world = self.state.world();
            if types.wildcard {
                for (_, name) in world.resources.keys().filter(|(k, _)| *k == kind) {
                    types.names.entry(name.clone()).or_insert(Sent::Nothing);
                }
            }
            for (name, sent) in &mut types.names {
                let key = (kind, name.clone());
                match world.resources.get(&key) {
                    Some(resource) if *sent != Sent::Version(resource.version.clone()) => {
                        *sent = Sent::Version(resource.version.clone());
                        response.resources.push(resource.clone());
                    }
                    None if *sent != Sent::Absent && !world.silent.contains(&key) => {
                        *sent = Sent::Absent;
                        response.removed_resources.push(name.clone());
                    }
                    Some(_) | None => {}
                }
            }
        }
        if response.resources.is_empty() && response.removed_resources.is_empty() {
            return Ok(());
        }
        self.nonce += 1;
        response.nonce = self.nonce.to_string();
        response.system_version_info = self.nonce.to_string();
        let present = response.resources.iter().map(|r| (r.name.clone(), Some(r.version.clone())));
        let absent = response.removed_resources.iter().map(|name| (name.clone(), None));
        types.pending.push_back((response.nonce.clone(), present.chain(absent).collect()));
        self.out.send(Ok(response)).await
    }
}
