//! What is measured, one after the other, with one fleet.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tulle_testing::fleet::{Fleet, Services};

use crate::Options;
use crate::process::ControlPlane;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// Changes whose propagation is timed, of each kind.
const CHANGES: usize = 20;

/// Changes each second while it churns.
const CHURN: u32 = 10;

/// The control plane is idle when it takes less than this of a core over a second.
const IDLE: f64 = 0.03;

/// Changes of the one service that every proxy dials.
const EVERYWHERE: &str = "of a service all dial";

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) proxies: usize,
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) goal: &'static str,
}

/// One fleet and its control plane.
#[derive(Debug)]
pub(crate) struct Bench {
    options: Options,
    services: Services,
    control: ControlPlane,
    fleet: Fleet,
    generation: u32,
    rows: Vec<Row>,
}

impl Bench {
    /// Everything, for `proxies` proxies.
    pub(crate) async fn run(options: Options, binary: &Path, proxies: usize) -> anyhow::Result<Vec<Row>> {
        let dir = tempfile::tempdir()?;
        let services =
            Services::write(&dir.path().join("config"), options.services, options.endpoints, options.dialled)?;
        let control = ControlPlane::start(binary, dir.path().to_owned()).await?;
        idle(&control).await?;
        let (empty, _) = control.memory()?;
        let fleet = Fleet::start(proxies, &services, control.address, &control.state())?;
        let mut bench = Self { options, services, control, fleet, generation: 1, rows: Vec::new() };
        bench.first(empty).await?;
        bench.propagation(EVERYWHERE, |_| 0).await?;
        bench.propagation("of other services", |n| 1 + n * 37).await?;
        bench.churn("over all services", |n| 1 + n * 37).await?;
        bench.churn(EVERYWHERE, |_| 0).await?;
        bench.storm().await?;
        Ok(bench.rows)
    }

    /// All come for the first time.
    async fn first(&mut self, empty: u64) -> anyhow::Result<()> {
        let (since, cpu) = (Instant::now(), self.control.cpu()?);
        self.until("the first convergence", |bench| bench.fleet.tally().totals().synced == bench.fleet.len()).await?;
        let took = since.elapsed();
        let cpu = self.control.cpu()?.saturating_sub(cpu);
        self.row(
            "first configuration of all",
            format!("{:.1} s, {:.1} CPU s", took.as_secs_f64(), cpu.as_secs_f64()),
            "",
        );
        idle(&self.control).await?;
        let (now, peak) = self.control.memory()?;
        let each = now.saturating_sub(empty) / self.fleet.len().max(1) as u64;
        let text = format!("{} KiB ({} MiB without, {} MiB at most)", each >> 10, empty >> 20, peak >> 20);
        self.row("memory per proxy", text, "≤ 100 KB");
        Ok(())
    }

    /// One change after the other, each when the one before arrived everywhere.
    async fn propagation(&mut self, of: &str, service: impl Fn(usize) -> usize) -> anyhow::Result<()> {
        let mut all = Vec::new();
        let cpu = self.control.cpu()?;
        for n in 0..CHANGES {
            let service = service(n) % self.services.len();
            let dialling = self.dialling(service);
            self.change(service, true)?;
            self.until("a change everywhere", |bench| bench.fleet.tally().arrived() >= dialling).await?;
            all.extend(self.fleet.tally().take_arrivals().into_iter().flat_map(|arrivals| arrivals.after));
        }
        let cpu = self.control.cpu()?.saturating_sub(cpu) / u32::try_from(CHANGES)?;
        all.sort_unstable();
        let at =
            |share: f64| all.get((all.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let text = format!("p50 {:.0} ms, p99 {:.0} ms, {:.1} CPU ms each", ms(at(0.5)), ms(at(0.99)), ms(cpu));
        let goal = if self.fleet.len() <= 1_000 { "p99 ≤ 250 ms" } else { "p99 ≤ 1000 ms" };
        self.row(&format!("an endpoint change {of}"), text, goal);
        Ok(())
    }

    /// Changes at a fixed rate.
    async fn churn(&mut self, of: &str, service: impl Fn(usize) -> usize) -> anyhow::Result<()> {
        idle(&self.control).await?;
        let (before, cpu, since) = (self.fleet.tally().totals(), self.control.cpu()?, Instant::now());
        let changes = CHURN * self.options.seconds;
        let mut tick = tokio::time::interval(Duration::from_secs(1) / CHURN);
        for n in 0..changes as usize {
            tick.tick().await;
            self.change(service(n) % self.services.len(), false)?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (after, elapsed) = (self.fleet.tally().totals(), since.elapsed());
        let cpu = self.control.cpu()?.saturating_sub(cpu);
        let bytes = (after.bytes - before.bytes) as f64 / (self.fleet.len() as f64 * f64::from(changes));
        let text = format!(
            "{:.2} cores, {bytes:.0} B per proxy and change, {} resources",
            cpu.as_secs_f64() / elapsed.as_secs_f64(),
            after.resources - before.resources
        );
        // A service that everybody dials is the worst there is: each change goes to each proxy.
        let goal = if of == EVERYWHERE { "" } else { "≤ 0.2 cores, ≤ 300 B" };
        self.row(&format!("{CHURN} changes/s {of}"), text, goal);
        Ok(())
    }

    /// The control plane crashes and comes back.
    async fn storm(&mut self) -> anyhow::Result<()> {
        idle(&self.control).await?;
        let (before, all) = (self.fleet.tally().totals(), self.fleet.len());
        self.control.kill();
        // Something changes meanwhile, so that every proxy has something to learn.
        self.change(0, true)?;
        let since = Instant::now();
        self.control.restart().await?;
        let listening = since.elapsed();
        self.until("convergence after a restart", |bench| bench.fleet.tally().arrived() >= all).await?;
        let took = since.elapsed();
        let after = self.fleet.tally().totals();
        ensure!(after.connected == all, "{} of {all} are connected", after.connected);
        let text = format!("{:.1} s (listening after {:.1} s)", took.as_secs_f64(), listening.as_secs_f64());
        self.row("reconnect storm: all converged after", text, "≤ 10 s");
        let quiet = idle(&self.control).await?;
        let cpu = self.control.cpu()?;
        let text =
            format!("{:.1} s, {:.1} CPU s since the start", (since.elapsed() - quiet).as_secs_f64(), cpu.as_secs_f64());
        self.row("reconnect storm: idle again after", text, "");
        let (now, peak) = self.control.memory()?;
        let text = format!("{} MiB, {} MiB at most", now >> 20, peak >> 20);
        self.row("reconnect storm: memory", text, "≤ 2 × steady");
        let unchanged = after.unchanged - before.unchanged;
        self.row("reconnect storm: resources sent that were held", unchanged.to_string(), "0");
        Ok(())
    }

    /// Changes an endpoint of `service`.
    fn change(&mut self, service: usize, expected: bool) -> anyhow::Result<()> {
        self.generation += 1;
        if expected {
            self.fleet.tally().expect(self.services.name(service), self.generation);
        }
        Ok(self.services.set(service, self.generation)?)
    }

    /// Proxies that dial `service`.
    fn dialling(&self, service: usize) -> usize {
        let name = self.services.name(service);
        (0..self.fleet.len()).filter(|i| self.services.dialled(*i).contains(&name)).count()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + DEADLINE;
        while !holds(self) {
            if Instant::now() > end {
                let tally = self.fleet.tally();
                bail!("waited for {what}: {:?}, {} arrived", tally.totals(), tally.arrived());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn row(&mut self, what: &str, measured: String, goal: &'static str) {
        let row = Row { proxies: self.fleet.len(), what: what.to_owned(), measured, goal };
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{row:?}\n").as_bytes());
        self.rows.push(row);
    }
}

/// Waits until the control plane is idle; how long that was observed.
async fn idle(control: &ControlPlane) -> anyhow::Result<Duration> {
    const LOOK: Duration = Duration::from_secs(1);
    let end = Instant::now() + DEADLINE;
    loop {
        let before = control.cpu()?;
        tokio::time::sleep(LOOK).await;
        if (control.cpu()?.saturating_sub(before)).as_secs_f64() < IDLE {
            return Ok(LOOK);
        }
        ensure!(Instant::now() < end, "the control plane does not come to rest");
    }
}
