//! `tulle demo`: a whole mesh on this machine, each part a process of its own as in production, a steady load, and a
//! script that takes parts away while nothing fails.
//!
//! Every process is this binary again, with the hidden subcommand `demo-part`.

/// The pods and their addresses.
mod shop;

/// The applications.
mod app;

/// The client of the applications and of the load.
mod client;

/// One process.
mod part;

/// All processes.
mod mesh;

/// Who sends requests.
mod load;

/// What they see.
mod tally;

/// What the sidecars say.
mod watch;

/// What is shown.
mod board;

/// What is claimed.
mod claims;

/// What happens.
mod script;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{DemoArgs, PartArgs, PartKind};
use crate::{component, render};
use board::Board;
use claims::Claims;
use mesh::Mesh;
use script::Stage;
use shop::{ADMIN, CONTROL_ADMIN, INBOUND, Net, STATUS, TO_WEB, pod};
use tally::Tally;

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs the subcommand.
///
/// # Errors
/// When the mesh does not start, or the show cannot go on.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    // One thread, on purpose: the kernel ends the parts together with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(Box::pin(show(args)))
}

/// Runs one process of the demo.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run_part(args: PartArgs) -> anyhow::Result<ExitCode> {
    part::die_with(args.parent)?;
    match args.part {
        PartKind::App(args) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
            runtime.block_on(app::run(args))?;
            Ok(ExitCode::SUCCESS)
        }
        PartKind::Proxy(args) => Ok(component::proxy(args.flags)),
        PartKind::ControlPlane(args) => Ok(component::control_plane(args.flags)),
    }
}

async fn show(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::new()?;
    let dir = tempfile::Builder::new().prefix("tulle-demo-").tempdir().context("making a temporary directory")?;
    let net = Net::choose()?;
    let begun = Instant::now();
    render::lines(["Starting a control plane, 5 applications and 6 sidecars ..."])?;
    let started = tokio::select! {
        biased; // Ctrl-C goes first
        () = stop.asked() => None,
        mesh = Mesh::start(dir.path(), net, script::leaf_ttl(args.seconds)) => Some(mesh),
    };
    let Some(mesh) = started else { return Ok(ExitCode::from(INTERRUPTED)) };
    let outcome = match mesh {
        Ok(mesh) => {
            let took = begun.elapsed().as_secs_f64();
            render::lines([format!("{} processes are ready after {took:.1} s.\n", mesh.processes())])?;
            perform(args, mesh, net, &mut stop).await
        }
        Err(error) => Err(error),
    };
    if !matches!(&outcome, Ok(code) if *code != ExitCode::FAILURE) {
        // What happened is in the logs; they stay.
        let kept = dir.keep();
        render::complain(&format!("logs and manifests of this run are in {}", kept.display()));
    }
    outcome
}

/// The show itself, and its end.
async fn perform(args: &DemoArgs, mut mesh: Mesh, net: Net, stop: &mut Stop) -> anyhow::Result<ExitCode> {
    let now = Instant::now();
    let (tally, board) = (Tally::new(now), Board::new(now));
    let played = {
        let stage = Stage::new(&mut mesh, net, &tally, &board, args.seconds);
        tokio::select! {
            biased; // Ctrl-C goes first, and the end of the script before another request
            () = stop.asked() => None,
            claims = Box::pin(stage.play()) => Some(claims),
            error = board.refresh(&tally) => Some(error.map(|()| Claims::default()).map_err(Into::into)),
            () = watch::run(net, &board) => None,
            () = Box::pin(load::run(net, &tally)) => None,
        }
    };
    board.print(&[])?;
    let code = match played {
        None => ExitCode::from(INTERRUPTED),
        Some(Err(error)) => {
            render::lines(tally.failures())?;
            mesh.end().await;
            return Err(error);
        }
        Some(Ok(claims)) => {
            render::lines(std::iter::once(String::new()).chain(claims.lines(&tally.total())))?;
            render::lines(tally.failures().iter().map(|failure| format!("  failed {failure}")))?;
            if claims.all_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    };
    if args.keep && code != ExitCode::from(INTERRUPTED) {
        render::lines(to_try(net))?;
        stop.asked().await;
    }
    mesh.end().await;
    Ok(code)
}

/// What to do with a mesh that was left running.
fn to_try(net: Net) -> Vec<String> {
    let (client, catalog) = (pod("client"), pod("catalog-1"));
    let (web, admin, inbound) = (net.of(client, TO_WEB), net.of(client, ADMIN), net.of(catalog, INBOUND));
    let tulle = std::env::current_exe().map_or_else(|_| "tulle".to_owned(), |path| path.display().to_string());
    let tries = [
        ("as the client, through its sidecar: see who answers", format!("curl http://{web}/")),
        ("an order", format!("curl -d '{{\"item\":\"teapot\"}}' http://{web}/orders")),
        ("without an identity: strict mode closes the connection", format!("curl http://{inbound}/items/teapot")),
        ("what the client's sidecar knows", format!("{tulle} proxy-config --admin {admin}")),
        ("what it counts", format!("curl http://{}/metrics", net.of(client, STATUS))),
        ("what the control plane sees", format!("curl http://{}/debug/proxies", net.control_plane(CONTROL_ADMIN))),
    ];
    let head = [String::new(), "The mesh goes on, until Ctrl-C. To try in another terminal:".to_owned()];
    head.into_iter()
        .chain(tries.into_iter().flat_map(|(what, how)| [format!("  # {what}"), format!("  {how}")]))
        .collect()
}

/// The wish to end, of a person or of an orchestrator.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            biased; // either one, in any order
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
