//! The scenarios at full length: `cargo bench --bench chaos-table -- [--quick] [ID...]` prints a table and, when all of them ran, writes
//! it to `docs/chaos.md`. Takes about ten minutes on two cores; needs no root.

mod scenarios;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use scenarios::{ALL, Outcome, Scale};

/// What stands above the table.
const HEAD: &str = "# Chaos\n\nWritten by `cargo bench --bench chaos-table`: real proxies and, where the scenario is about it, the \
    real control plane, each a process of its own; scripted applications and clients. Every scenario also runs in `cargo test \
    --test chaos`, at a smaller scale. `Wrong` is what a user would have noticed: failed requests, limits that did not hold.\n\n\
    | id | scenario | requests | wrong | seen | time |\n| --- | --- | ---: | ---: | --- | ---: |\n";

/// What is not in the table.
const ELSEWHERE: &str = "\n## Covered elsewhere\n\n| id | where |\n| --- | --- |\n\
    | RB-02 with 5,000 proxies | `cargo bench --bench xds` |\n\
    | RB-03 refused configuration | `proxy/src/xds/tests`, `control-plane/src/xds/session/tests`, `tests/path/discovery.rs` |\n\
    | RB-07 outbound while the application ends | `tests/path/drain.rs` |\n\
    | RB-09 a control plane that does not sign | `proxy/src/identity`, `tests/path/discovery.rs`, `tests/path/rotation.rs` |\n\
    | RB-19 trailers, `Expect`, interim replies, bulk | `tests/path/{fields,expect,grpc,http2}.rs`, `tests/soak` |\n\
    | RB-22 servers that speak first | `tests/path/opaque.rs` |\n\
    | captured traffic, self-calls, loops | `tests/netns` |\n\
    | a whole mesh while its parts are stopped and broken | `tulle demo` |\n";

fn main() -> anyhow::Result<()> {
    let (flags, names): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let scale = Scale::of(!flags.iter().any(|flag| flag == "--quick"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = HEAD.to_owned();
    let mut failures = Vec::new();
    for (id, name, scenario) in ALL.iter().filter(|(id, ..)| names.is_empty() || names.iter().any(|name| name == id)) {
        let started = Instant::now();
        let outcome = runtime.block_on(async {
            let mut task = tokio::task::JoinSet::new();
            task.spawn(scenario(scale));
            task.join_next().await
        });
        let Outcome { requests, wrong, note } = match outcome {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => Outcome::failed(format!("the scenario broke off: {error}")),
            None => Outcome::failed("it did not run"),
        };
        let line = format!(
            "| {id} | {name} | {requests} | {} | {note} | {:.0} s |\n",
            wrong.len(),
            started.elapsed().as_secs_f64()
        );
        std::io::stdout().lock().write_all(line.as_bytes())?;
        table.push_str(&line);
        failures.extend(wrong.into_iter().map(|wrong| format!("{id}: {wrong}")));
    }
    for failure in failures.iter().take(20) {
        let _ = write!(table, "\n- {failure}");
    }
    table.push_str(ELSEWHERE);
    if names.is_empty() && scale == Scale::of(true) {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/chaos.md"), &table)?;
    }
    anyhow::ensure!(failures.is_empty(), "{failures:#?}");
    Ok(())
}
