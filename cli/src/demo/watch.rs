//! Looks at the sidecars once a second: the certificate each uses, and what those that send requests count.

use std::time::Duration;

use serde_json::Value;

use super::board::{Board, Certificate};
use super::shop::{ADMIN, Net, PODS, Pod, STATUS};
use crate::ask;

/// Between two looks at all of them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks for as long as it is polled. A sidecar that does not answer is not there at the moment.
pub(super) async fn run(net: Net, board: &Board) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        look(net, board).await;
    }
}

/// Looks once at every sidecar.
pub(super) async fn look(net: Net, board: &Board) {
    for pod in &PODS {
        if let Some(certificate) = certificate(net, pod).await {
            board.certificate(pod.name, certificate);
        }
        if pod.calls.is_empty() {
            continue;
        }
        if let Ok(metrics) = ask::get(net.of(pod, STATUS), "/metrics").await {
            let outbound =
                |tls| sum(&metrics, "tulle_requests_total", &["direction=\"outbound\"", &format!("tls=\"{tls}\"")]);
            board.counted(pod.name, sum(&metrics, "tulle_retries_total", &[]), (outbound("true"), outbound("false")));
        }
    }
}

async fn certificate(net: Net, pod: &Pod) -> Option<Certificate> {
    let page = ask::get(net.of(pod, ADMIN), "/certs").await.ok()?;
    let page: Value = serde_json::from_str(&page).ok()?;
    let identity = page.get("identity")?;
    Some(Certificate {
        serial: identity.get("serial")?.as_str()?.to_owned(),
        roots: identity.get("roots")?.as_u64()?,
        bundle: identity.get("bundle_hash")?.as_str()?.to_owned(),
    })
}

/// Sum of the samples of a counter that have all of `labels`, in Prometheus' text format.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        let (set, value) = rest.rsplit_once(' ')?;
        labels.iter().all(|label| set.contains(label)).then(|| value.parse::<u64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_by_label() {
        let metrics = "# TYPE a_total counter\na_total{x=\"1\",tls=\"true\"} 2\na_total{x=\"2\",tls=\"false\"} 3\na_total_b 9\nb 4\n";
        assert_eq!(sum(metrics, "a_total", &[]), 5);
        assert_eq!(sum(metrics, "a_total", &["tls=\"true\""]), 2);
        assert_eq!(sum(metrics, "b", &[]), 4);
    }
}
