//! `tulle token create`: a credential for a workload outside Kubernetes. Prints the token and nothing else, so that
//! its output can be a file.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::TokenIssuer;

use crate::args::{TokenArgs, TokenCommand, TokenCreateArgs};
use crate::render;

/// Runs the subcommand.
///
/// # Errors
/// When a name is not one, the state directory cannot be used, or the time to live is out of range.
pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        TokenCommand::Create(args) => create(args),
    }
}

fn create(args: &TokenCreateArgs) -> anyhow::Result<ExitCode> {
    let domain = TrustDomain::parse(&args.trust_domain)
        .with_context(|| format!("--trust-domain {}: give a DNS-like name such as cluster.local", args.trust_domain))?;
    let id = SpiffeId::workload(&domain, &args.namespace, &args.service_account)
        .context("--namespace and --service-account: give them as Kubernetes names them, such as shop and web")?;
    if !args.state_dir.is_dir() {
        // Both may come first; but a slip of the pen here would give a token that no control plane knows.
        let dir = args.state_dir.display();
        render::complain(&format!("{dir} is new: start the control plane with --state-dir {dir}"));
    }
    let issuer = TokenIssuer::open(&args.state_dir).context("opening the token key in --state-dir")?;
    let token = issuer.issue(&id, args.ttl, SystemTime::now()).context("issuing the token")?;
    render::lines([token])?;
    Ok(ExitCode::SUCCESS)
}
