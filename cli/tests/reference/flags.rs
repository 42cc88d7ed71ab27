//! Flags of the programs.

use std::fmt::Write as _;

use clap::{Arg, Command};
use tulle_control_plane::settings::Settings as ControlPlane;
use tulle_injector::settings::Settings as Injector;
use tulle_proxy::config::bootstrap::Bootstrap;

use crate::table::Table;

#[test]
fn flags() {
    let mut body = String::new();
    for (command, about) in [
        (Bootstrap::command(), "Also `tulle proxy`. With several values, commas go between them."),
        (ControlPlane::command(), "Also `tulle control-plane`."),
        (Injector::command(), "The flags under \"what is added to pods\" are those of `tulle inject` too."),
        (tulle_injector::init::command(), "Lists take commas."),
        (
            tulle_injector::cni::cli::command(),
            "A container runtime runs it without flags; these are for `tulle-cni install`.",
        ),
    ] {
        let name = command.get_name();
        let _ = write!(body, "## {name}\n\n{about}\n\n{}\n", section(&command));
    }
    let intro = "Every flag can be given by the variable beside it; a flag wins. Values that are wrong are reported all at once,\n\
                 with a right one. The commands of `tulle` explain themselves: `tulle --help`.";
    super::page("flags.md", "Flags of the programs", intro, &body);
}

fn section(command: &Command) -> String {
    let mut table = Table::new(&["flag", "variable", "default", "meaning"]);
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(long) = arg.get_long() else { continue };
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        // Defaults that depend on something are in the help.
        let (help, depends) = match help.split_once(" [default: ") {
            Some((help, default)) => (help, default.trim_end_matches(['.', ']'])),
            None => (help.as_str(), ""),
        };
        let fixed: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let fixed = fixed.join(",");
        let default = match (arg.get_action().takes_values(), fixed.as_str()) {
            (false, _) | (true, "") => depends.to_owned(),
            (true, fixed) => format!("`{fixed}`"),
        };
        table.row(&[&format!("`--{long}{}`", value(arg)), &variable, &default, help]);
    }
    table.text()
}

/// What follows the flag's name, with the space or equals sign before it.
fn value(arg: &Arg) -> String {
    let possible: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !arg.get_action().takes_values() || arg.is_require_equals_set() {
        String::new()
    } else if possible.is_empty() {
        let name = arg.get_value_names().and_then(|names| names.first());
        format!(" {}", name.map_or("VALUE", |name| name.as_str()))
    } else {
        format!(" {}", possible.join("|"))
    }
}
