//! Source `kubernetes`: the API of a cluster, watched kind by kind.
//!
//! Each kind is a source of its own to the registry, with its own first set, so that the mesh is ready when all are
//! there. An object is converted as it arrives and forgotten: only values of the model are kept. While the API does not
//! answer, what was last seen stays in force.

/// Manifests as types of the client library.
mod watched;

/// What was seen of one kind.
mod table;

/// Any JSON as a value of bounded depth.
mod tree;

/// Word of a kind that is to come.
mod definition;

/// One kind, watched for good.
mod follow;

/// Kinds that become an object of the mesh each.
mod objects;

/// Pods and the nodes they run on.
mod pods;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Config;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

pub use kube::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::model::problem::Place;
use crate::model::ranges::WorkloadRanges;
use crate::model::{Delta, Origin, Problem};
use follow::Need;
use objects::Objects;
use pods::Pods;

/// A connection that says nothing for this long is given up: watches end sooner by themselves.
const READ_TIMEOUT: Duration = Duration::from_secs(80);

/// Where deltas go.
pub trait Sink: Send + Sync + 'static {
    /// Hands over one step; false ends the source.
    fn send(&self, step: Vec<Delta>) -> impl Future<Output = bool> + Send;
}

/// A running source. Dropping it ends its tasks.
#[derive(Debug)]
pub struct KubeSource {
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file is not there or not one.
    #[error(transparent)]
    File(#[from] KubeconfigError),
    /// This is no cluster, and `KUBECONFIG` names none.
    #[error(transparent)]
    Infer(#[from] InferConfigError),
    /// What the file says cannot be used.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// A client of the cluster a kubeconfig file names; without one, of the cluster this process runs in, or of the one
/// `KUBECONFIG` names.
///
/// # Errors
/// When none is there, or what it says is not usable. Nothing is asked of the cluster yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    Ok(Client::try_from(config)?)
}

impl KubeSource {
    /// How many sinks [`Self::start`] takes.
    pub const SOURCES: usize = 8;

    /// Starts to watch. Each sink gets the whole set of its kind first. A Workload has its addresses from `ranges`.
    pub fn start<S: Sink>(client: &Client, sinks: Vec<S>, ranges: WorkloadRanges) -> Self {
        let ranges = Arc::new(ranges);
        let mut sinks = sinks.into_iter();
        let mut tasks = Vec::new();
        let mut run = |task: Task<S>| {
            if let Some(sink) = sinks.next() {
                #[expect(clippy::disallowed_methods, reason = "beside every path, and ended by the handle")]
                tasks.push(AbortOnDropHandle::new(tokio::spawn(task(client.clone(), sink, ranges.clone()))));
            }
        };
        run(|client, sink, _| Box::pin(objects::run(client, sink, Need::Always, Objects::namespace())));
        run(|client, sink, _| Box::pin(objects::run(client, sink, Need::Always, Objects::service())));
        run(|client, sink, _| Box::pin(objects::run(client, sink, Need::Always, Objects::endpoint_slice())));
        run(|client, sink, ranges| Box::pin(objects::run(client, sink, Need::WhenThere, Objects::workload(ranges))));
        run(|client, sink, _| Box::pin(objects::run(client, sink, Need::WhenThere, Objects::http_route())));
        run(|client, sink, _| Box::pin(objects::run(client, sink, Need::WhenThere, Objects::grpc_route())));
        run(|client, sink, _| Box::pin(objects::run(client, sink, Need::WhenThere, Objects::grant())));
        run(|client, sink, _| Box::pin(pods::run(client, sink, Pods::default())));
        Self { _tasks: tasks }
    }
}

/// Watches a kind through a client, into a sink.
type Task<S> = fn(Client, S, Arc<WorkloadRanges>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The one place everything of a cluster was read at.
fn origin() -> Origin {
    Origin { file: Arc::from(NAME), document: 0, line: 0 }
}

/// A problem with the API itself.
fn problem(reason: impl Into<Box<str>>) -> Problem {
    Problem::file(Place { file: Arc::from(NAME), line: 0, column: 0 }, reason)
}

const NAME: &str = "kubernetes";
