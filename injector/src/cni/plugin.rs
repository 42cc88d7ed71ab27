//! A call of the container runtime, answered.
//!
//! A pod that should be captured never starts uncaptured: whatever goes wrong for one that is, or may be, fails the call, and the
//! kubelet tries again. Nothing can go wrong for one that is known not to be.

use std::collections::BTreeMap;

use super::protocol::{self, Config, Failure, VERSIONS, Verb};
use super::{ask, netns, wanted};
use crate::decide::NEVER;
use crate::redirect::{self, ApplyError, Settings, Tools};

/// What the runtime gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For stdout.
    pub text: String,
    /// Whether the exit code is 0.
    pub success: bool,
}

/// Answers a call: `env` and `input` are the process's environment and stdin.
pub fn answer(env: &BTreeMap<String, String>, input: &str, tools: &Tools) -> Answer {
    match act(env, input, tools) {
        Ok(text) => Answer { text, success: true },
        Err(failure) => {
            let config = Config::read(input);
            let version = config.as_ref().map_or(VERSIONS[VERSIONS.len() - 1], Config::version);
            Answer { text: failure.text(version), success: false }
        }
    }
}

fn act(env: &BTreeMap<String, String>, input: &str, tools: &Tools) -> Result<String, Failure> {
    match protocol::verb(env)? {
        Verb::Version => Ok(protocol::versions()),
        // The rules go with the namespace, and what has no rules has nothing to lose.
        Verb::Del | Verb::Gc => Ok(String::new()),
        // The plugin itself is always ready: pods that are not captured need nothing else.
        Verb::Status => Config::read(input).map(|_| String::new()),
        Verb::Add => {
            let config = Config::read(input)?;
            let result = config.previous()?;
            in_pod(env, &config, |settings| redirect::apply(settings, tools))?;
            Ok(result)
        }
        Verb::Check => {
            let config = Config::read(input)?;
            in_pod(env, &config, |settings| redirect::verify(settings, tools))?;
            Ok(String::new())
        }
    }
}

/// Does `work` in the network namespace of a pod that is to be captured.
fn in_pod(
    env: &BTreeMap<String, String>,
    config: &Config,
    work: impl FnOnce(&Settings) -> Result<(), ApplyError> + Send,
) -> Result<(), Failure> {
    let Some(mut settings) = wanted(env, config)? else { return Ok(()) };
    let path = protocol::netns(env)?;
    let done = netns::inside(&path, || {
        settings.ipv6 = netns::has_ipv6();
        work(&settings)
    });
    let done =
        done.map_err(|error| Failure::new(Failure::RULES, format!("cannot enter {}: {error}", path.display())))?;
    done.map_err(|error| Failure::new(Failure::RULES, error.to_string()))
}

/// The settings of a pod that is to be captured.
fn wanted(env: &BTreeMap<String, String>, config: &Config) -> Result<Option<Settings>, Failure> {
    let Some(pod) = protocol::pod(env) else { return Ok(None) };
    if NEVER.contains(&pod.namespace.as_str()) || config.excludes(&pod.namespace) {
        return Ok(None);
    }
    let annotations = match (config.annotations(), config.kubeconfig()) {
        (Some(annotations), _) => annotations,
        (None, Some(kubeconfig)) => ask::annotations(&kubeconfig, &pod).map_err(|error| {
            let held = format!("{error}; it is not known whether the pod is to be captured, so it does not start yet");
            Failure::new(Failure::LATER, held)
        })?,
        (None, None) => return Err(Failure::new(Failure::CONFIGURATION, "the configuration names no kubeconfig")),
    };
    let refused = |reason: String| Failure::new(Failure::POD, format!("pod {}/{}: {reason}", pod.namespace, pod.name));
    wanted::settings(&annotations).map_err(refused)
}
