//! Routes of the Gateway API, whose definitions are installed after Tulle: a split by header and by weight, in force without
//! a restart, and gone with the route.

use anyhow::{Context as _, ensure};

use super::traffic::seen;
use crate::harness::Cluster;
use crate::harness::enclosure::WORK;

/// Where requests are counted.
const URL: &str = "http://server.shop/";

/// Requests with a certain path and header, and some of the others, go to the second version.
pub(crate) fn routes(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&format!("apply --server-side -f {WORK}/programs/gateway-api.yaml"))?;
    for kind in ["httproutes", "grpcroutes", "referencegrants"] {
        cluster.wait("shop", &format!("crd/{kind}.gateway.networking.k8s.io"), "condition=Established")?;
    }
    cluster.apply_in("shop", include_str!("../manifests/routes.yaml"))?;
    cluster.rolled_out("shop", "deployment/server-v2")?;
    cluster.until("the route to be accepted", |cluster| {
        let status = cluster.get("-n shop httproute split").ok()?["status"].clone();
        let ours = status["parents"].as_array()?.iter().find(|parent| parent["controllerName"] == "tulle.io/mesh")?;
        let holds = |index: usize| ours["conditions"][index]["status"] == "True";
        (holds(0) && holds(1)).then_some(())
    })?;
    cluster.until("a path of the second version's own to lead there", |cluster| {
        pod(cluster, &format!("{URL}v2/")).ok()?.starts_with("server-v2-").then_some(())
    })?;
    let mut second = 0;
    for _ in 0..100 {
        second += u32::from(pod(cluster, URL)?.starts_with("server-v2-"));
    }
    // One in ten: five standard deviations around it.
    ensure!((1..=25).contains(&second), "{second} of 100 requests went to the second version");
    cluster.kubectl("-n shop delete httproute split")?;
    cluster.until("the first version to have all again", |cluster| {
        (!pod(cluster, &format!("{URL}v2/")).ok()?.starts_with("server-v2-")).then_some(())
    })?;
    cluster.kubectl("-n shop delete deployment/server-v2 service/server-v2")?;
    cluster.kubectl(&format!("delete -f {WORK}/programs/gateway-api.yaml")).map(drop)
}

/// The pod that answers the client.
fn pod(cluster: &Cluster, url: &str) -> anyhow::Result<String> {
    let seen = seen(cluster, "shop", "client", url)?;
    Ok(seen["pod"].as_str().context("an answer without its pod")?.to_owned())
}
