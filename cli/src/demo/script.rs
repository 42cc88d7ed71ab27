//! What happens in the demo, step by step, and what is claimed of each step.
//!
//! What the death of an application does to its callers: its sidecar lives on and answers for it, with 503 and the
//! reason `connect_refused`. That reply proves that the request never reached an application, so the caller's sidecar
//! may send it to another replica, whatever the request is. A request that the dying application held is another
//! matter: it may have taken effect. It is repeated only because the catalog's manifest says that its reads can be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::board::{Board, Certificate};
use super::claims::Claims;
use super::mesh::Mesh;
use super::shop::{Net, PODS, identity};
use super::tally::Tally;
use super::watch;

/// Length of the steps below in seconds, as they are written there.
const SHOW: f64 = 36.0;

/// Lifetime of certificates in a show of the usual length, and the shortest one. Each is renewed after half of it or a
/// little more: at least once in the show, and late enough to do without a control plane for as long as the show does.
const LEAF_TTL: f64 = 20.0;
const SHORTEST_LEAF_TTL: f64 = 15.0;

/// Longest wait for traffic to follow a change of the manifests.
const FOLLOWS: Duration = Duration::from_secs(10);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Lifetime of certificates in a show of this length; whole seconds.
pub(super) fn leaf_ttl(show_seconds: u64) -> Duration {
    let scaled = LEAF_TTL * show_seconds as f64 / SHOW;
    Duration::from_secs(scaled.max(SHORTEST_LEAF_TTL) as u64)
}

/// Everything the steps need.
pub(super) struct Stage<'d> {
    pub(super) mesh: &'d mut Mesh,
    pub(super) net: Net,
    pub(super) tally: &'d Tally,
    pub(super) board: &'d Board,
    /// Length of the show in seconds.
    pub(super) seconds: u64,
    claims: Claims,
    /// The certificates in use before the show, and when the new root began to issue.
    first: BTreeMap<&'static str, Certificate>,
    old: BTreeMap<&'static str, Certificate>,
}

impl<'d> Stage<'d> {
    /// A stage on which nothing has happened.
    pub(super) fn new(mesh: &'d mut Mesh, net: Net, tally: &'d Tally, board: &'d Board, seconds: u64) -> Self {
        let (first, old) = (BTreeMap::new(), BTreeMap::new());
        Self { mesh, net, tally, board, seconds, claims: Claims::default(), first, old }
    }

    /// Plays every step and returns what was claimed.
    ///
    /// # Errors
    /// When the show cannot go on: a part ended by itself, or something that is waited for does not come.
    pub(super) async fn play(mut self) -> anyhow::Result<Claims> {
        self.steady().await?;
        self.begin_rotation().await?;
        self.stop_a_replica().await?;
        self.break_a_replica().await?;
        self.restart_the_control_plane().await?;
        self.bring_replicas_back().await?;
        self.finish_rotation().await?;
        self.sum_up().await?;
        Ok(self.claims)
    }

    async fn steady(&mut self) -> anyhow::Result<()> {
        self.begin("1/7 steady traffic", "client -> web -> catalog over HTTP, client -> reviews over gRPC")?;
        self.hold(5.0).await?;
        let step = self.tally.step();
        let [first, second, third] = ["catalog-1", "catalog-2", "catalog-3"].map(|name| step.share(name));
        let balanced = [first, second].iter().all(|share| (30.0..=70.0).contains(share)) && third < 1.0;
        let numbers = format!("{first:.0} % and {second:.0} % in the caller's zone, {third:.0} % in the other");
        self.claims.add_lossless("replicas in the caller's zone share the load", &step, balanced, &numbers);
        Ok(())
    }

    async fn begin_rotation(&mut self) -> anyhow::Result<()> {
        self.begin("2/7 a new root certificate", "a second root: all sidecars learn to trust it beside the first")?;
        watch::look(self.net, self.board).await;
        self.first = self.board.certificates();
        self.mesh.rotate_root("begin").await?;
        self.wait_for_certificates("the sidecars to trust both roots", |_, now| now.roots == 2).await?;
        self.mesh.rotate_root("activate").await?;
        watch::look(self.net, self.board).await;
        self.old = self.board.certificates();
        let lifetime = leaf_ttl(self.seconds).as_secs();
        let text = format!("the new root signs from here on; certificates live {lifetime} s and renew one by one");
        self.board.say(&text)?;
        Ok(())
    }

    async fn stop_a_replica(&mut self) -> anyhow::Result<()> {
        self.begin("3/7 a replica is stopped", "catalog-1 is told to stop: it finishes what it has, and leaves")?;
        self.board.state("catalog-1", "draining");
        let drained = self.mesh.stop("catalog-1").await?;
        self.board.state("catalog-1", "stopped");
        self.board.say(&format!("catalog-1 is gone after {:.1} s", drained.as_secs_f64()))?;
        let before = self.tally.total().replica("catalog-1");
        self.hold(4.0).await?;
        let late = self.tally.total().replica("catalog-1") - before;
        let numbers = format!("drained in {:.1} s", drained.as_secs_f64());
        self.claims.add_lossless("stopping a replica loses nothing", &self.tally.step(), late == 0, &numbers);
        Ok(())
    }

    async fn break_a_replica(&mut self) -> anyhow::Result<()> {
        self.begin("4/7 a replica breaks", "catalog-2's application is killed with SIGKILL, and nobody is told")?;
        watch::look(self.net, self.board).await;
        let retries = self.board.retries();
        self.mesh.crash("catalog-2").await;
        self.board.state("catalog-2", "killed");
        self.hold(3.0).await?;
        watch::look(self.net, self.board).await;
        let retried = self.board.retries() - retries;
        let hidden = self.tally.step();
        let numbers = format!("{retried} retries on another replica");
        self.claims.add_lossless("retries hide a broken replica", &hidden, retried > 0, &numbers);

        self.tally.begin_step();
        self.board
            .say("its readiness probe notices: the zone has no replica left, traffic fails over to the other zone")?;
        self.mesh.declare_unready("catalog-2")?;
        self.board.state("catalog-2", "unready");
        self.hold(3.0).await?;
        let step = self.tally.step();
        let away = step.share("catalog-3");
        let numbers = format!("{away:.0} % by catalog-3 in the other zone");
        self.claims.add_lossless("traffic fails over to another zone", &step, away > 99.0, &numbers);
        Ok(())
    }

    async fn restart_the_control_plane(&mut self) -> anyhow::Result<()> {
        self.begin(
            "5/7 no control plane",
            "the control plane is killed with SIGKILL: sidecars go on with what they know",
        )?;
        let begun = Instant::now();
        self.mesh.kill_control_plane().await;
        self.hold(4.0).await?;
        let numbers = format!("{:.1} s without one", begun.elapsed().as_secs_f64());
        self.claims.add_lossless("traffic goes on without a control plane", &self.tally.step(), true, &numbers);
        self.tally.begin_step();
        let begun = Instant::now();
        self.mesh.restart_control_plane().await?;
        let (count, took) = (self.mesh.sidecars().len(), begun.elapsed().as_secs_f64());
        self.board
            .say(&format!("the control plane is back; {count} sidecars are connected again after {took:.1} s"))?;
        Ok(())
    }

    async fn bring_replicas_back(&mut self) -> anyhow::Result<()> {
        let name = "6/7 replicas come back";
        self.board.step(name);
        self.board.say(&format!("{name}: catalog-1 and the application of catalog-2 are started again"))?;
        for name in ["catalog-1", "catalog-2"] {
            self.mesh.revive(name).await?;
            self.board.state(name, "ready");
        }
        let counts = || ["catalog-1", "catalog-2"].map(|name| self.tally.total().replica(name));
        let (begun, before) = (Instant::now(), counts());
        let back = loop {
            let back = counts().iter().zip(before).all(|(now, before)| *now > before + 10);
            if back || begun.elapsed() > FOLLOWS {
                break back;
            }
            tokio::time::sleep(LOOK).await;
        };
        let took = format!("traffic is back on both after {:.1} s", begun.elapsed().as_secs_f64());
        self.board.say(&took)?;
        self.hold(2.0).await?;
        let text = "a control plane that comes back takes over";
        self.claims.add_lossless(text, &self.tally.step(), back, &took);
        Ok(())
    }

    async fn finish_rotation(&mut self) -> anyhow::Result<()> {
        self.begin(
            "7/7 the old root goes",
            "once every sidecar has a certificate of the new root, the old one is dropped",
        )?;
        let old = self.old.clone();
        self.wait_for_certificates("certificates of the new root", |pod, now| {
            old.get(pod).is_none_or(|old| old.serial != now.serial)
        })
        .await?;
        self.mesh.rotate_root("finish").await?;
        let first = self.first.clone();
        self.wait_for_certificates("the old root to be gone", |pod, now| {
            now.roots == 1 && first.get(pod).is_none_or(|first| first.bundle != now.bundle)
        })
        .await?;
        self.board.say("all sidecars trust the new root only")?;
        self.hold(3.0).await?;
        let (fewest, all) = self.board.renewals();
        let numbers = format!("{all} renewals, every sidecar at least {fewest}; the root is another one");
        self.claims.add_lossless("certificates and root rotate under load", &self.tally.step(), fewest > 0, &numbers);
        Ok(())
    }

    async fn sum_up(&mut self) -> anyhow::Result<()> {
        watch::look(self.net, self.board).await;
        let total = self.tally.total();
        let (callers, strangers) = self.tally.callers();
        let (mutual, plain) = self.board.tls();
        let expected = [identity("client"), identity("web")];
        let proven = strangers == 0 && expected.iter().all(|caller| callers.contains_key(caller));
        let seen: u64 = callers.values().sum();
        let numbers =
            format!("{seen} callers verified, {strangers} strangers; {mutual} requests encrypted, {plain} not");
        self.claims.add("mutual TLS proves who calls", proven && mutual > 0 && plain == 0, numbers);
        let numbers = format!("{} requests, {} failed", total.requests(), total.failed);
        self.claims.add("no request failed", total.failed == 0 && total.succeeded > 0, numbers);
        Ok(())
    }

    /// Begins a step.
    fn begin(&self, name: &str, text: &str) -> anyhow::Result<()> {
        self.tally.begin_step();
        self.board.step(name);
        self.board.say(&format!("{name}: {text}"))?;
        Ok(())
    }

    /// Lets the step be watched for a while; `seconds` are those of a show of the usual length.
    async fn hold(&mut self, seconds: f64) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_secs_f64(seconds * self.seconds as f64 / SHOW)).await;
        self.mesh.check_running()
    }

    /// Waits until the certificate of every sidecar is as it should be.
    async fn wait_for_certificates(
        &mut self,
        what: &str,
        right: impl Fn(&'static str, &Certificate) -> bool,
    ) -> anyhow::Result<()> {
        let (net, board) = (self.net, self.board);
        self.mesh
            .wait(what, async |_| {
                watch::look(net, board).await;
                let now = board.certificates();
                PODS.iter().all(|pod| now.get(pod.name).is_some_and(|certificate| right(pod.name, certificate)))
            })
            .await
    }
}
