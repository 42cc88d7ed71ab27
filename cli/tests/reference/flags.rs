//! What each program says of its flags, as it says it.

use std::fmt::Write as _;
use std::process::Command;

/// `--help` of the command or of a subcommand.
fn help(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tulle"));
    for (variable, _) in std::env::vars_os().filter(|(v, _)| v.to_string_lossy().starts_with("TULLE_")) {
        command.env_remove(variable);
    }
    let out = command.args(words).arg("--help").output().expect("the binary starts");
    assert!(out.status.success(), "tulle {words:?} --help");
    let text = String::from_utf8(out.stdout).expect("text");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn programs() {
    let mut body = String::new();
    for name in ["proxy", "control-plane"] {
        let _ = write!(body, "## tulle-{name}\n\n```text\n{}\n```\n\n", help(&[name]));
    }
    let intro = "A flag wins over its environment variable. Containers of Tulle are configured by the variables. `tulle proxy` and\n\
                 `tulle control-plane` are the same programs.";
    super::page("flags.md", "Flags of the programs", intro, &body);
}

#[test]
fn the_command() {
    let all = help(&[]);
    let listed = all.split("Commands:\n").nth(1).unwrap_or_default().lines();
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    // The components' own flags are on a page of their own.
    let names: Vec<&str> = names.filter(|name| !["help", "proxy", "control-plane"].contains(name)).collect();
    assert!(names.contains(&"install") && names.contains(&"validate"), "{all}");
    let mut body = format!("```text\n{all}\n```\n\n");
    for name in names {
        let words: &[&str] = if name == "token" { &["token", "create"] } else { &[name] };
        let _ = write!(body, "## tulle {}\n\n```text\n{}\n```\n\n", words.join(" "), help(words));
    }
    super::page(
        "tulle.md",
        "The command tulle",
        "Exit codes: 0 done, 1 it did not work or is not right, 2 the command line is wrong.",
        &body,
    );
}
