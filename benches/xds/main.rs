//! The control plane under many proxies: `cargo bench --bench xds`. See `benches/README.md` for the numbers' meaning.
//!
//! The real `tulle-control-plane` over TLS with tokens; simulated proxies (`tulle_testing::fleet`) in this process.

/// The control plane as a process whose cost is read from `/proc`.
mod process;

/// What is measured, one after the other.
mod phases;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use phases::{Bench, Row};

/// What to run.
#[derive(Clone, Copy, Debug)]
struct Options {
    services: usize,
    endpoints: usize,
    dialled: usize,
    seconds: u32,
}

fn main() -> anyhow::Result<()> {
    let mut options = Options { services: 1_000, endpoints: 10, dialled: 20, seconds: 20 };
    let mut fleets = vec![1_000, 5_000];
    let mut binary: Option<std::path::PathBuf> = None;
    let mut write = false;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| anyhow::anyhow!("{flag} needs a value"));
        match flag.as_str() {
            "--bench" => {}
            "--proxies" => fleets = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--services" => options.services = value()?.parse()?,
            "--endpoints" => options.endpoints = value()?.parse()?,
            "--dialled" => options.dialled = value()?.parse()?,
            "--binary" => binary = Some(value()?.into()),
            "--seconds" => options.seconds = value()?.parse()?,
            "--write" => write = true,
            _ => anyhow::bail!(
                "{flag}? There are --binary PATH --proxies N,N --services N --endpoints N --dialled N --seconds N --write"
            ),
        }
    }
    // One thread: what the proxies cost must not hide what the control plane does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let binary = match binary {
        Some(binary) => binary,
        None => tulle_testing::bin_path::binary("tulle-control-plane", "tulle-control-plane")?,
    };
    let mut rows = Vec::new();
    for proxies in fleets {
        rows.extend(runtime.block_on(Bench::run(options, &binary, proxies))?);
    }
    let table = table(&rows);
    std::io::stdout().lock().write_all(format!("\n{table}").as_bytes())?;
    if write {
        let Options { services, endpoints, dialled, .. } = options;
        let head = format!(
            "# Scale\n\nWritten by `cargo bench --bench xds -- --write`: one control plane, {services} services of {endpoints} \
             endpoints, simulated proxies that dial {dialled} services each, all on {} cores. [benches](../benches/README.md) \
             says how each figure is taken.\n\n",
            std::thread::available_parallelism()?
        );
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scale.md"), head + &table)?;
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut table = "| proxies | what | measured | goal |\n| ---: | --- | ---: | ---: |\n".to_owned();
    for Row { proxies, what, measured, goal } in rows {
        let _ = writeln!(table, "| {proxies} | {what} | {measured} | {goal} |");
    }
    table
}
