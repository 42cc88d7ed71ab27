//! The figures of `docs/security.md`, read from the sources, so that the page cannot say another number than the code.
//!
//! In the template `{{FILE NAME}}` stands for the value of the constant `NAME` in `FILE`, `{{bytes FILE NAME}}` for the
//! same as a size, and `{{--flag}}` for the default of a flag of the proxy.

use std::path::Path;

/// Where the flags of the proxy are declared.
const FLAGS: &str = "proxy/src/config/bootstrap/flags.rs";

/// The template with every placeholder replaced.
pub(crate) fn filled(root: &Path, template: &str) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (placeholder, after) = after.split_once("}}").expect("a placeholder has an end");
        page += before;
        page += &value(root, placeholder);
        rest = after;
    }
    page + rest
}

/// Cells of a table that bound something hold no figure of their own: every digit comes from a placeholder, a flag's
/// name, or the name of a protocol.
pub(crate) fn unchecked(template: &str) -> Vec<String> {
    let rows = template.lines().skip_while(|line| *line != "## Limits").filter(|line| line.starts_with('|'));
    let limits = rows.filter_map(|row| Some((row, row.split(" | ").nth(1)?)));
    let bare = limits.filter(|(_, limit)| {
        let mut text = String::new();
        let mut rest = *limit;
        while let Some((before, after)) = rest.split_once("{{") {
            text += before;
            rest = after.split_once("}}").map_or("", |(_, after)| after);
        }
        let text = (text + rest).replace("HTTP/1", "").replace("HTTP/2", "").replace("TLS 1.3", "");
        text.contains(|c: char| c.is_ascii_digit())
    });
    bare.map(|(row, _)| row.to_owned()).collect()
}

fn value(root: &Path, placeholder: &str) -> String {
    let words: Vec<&str> = placeholder.split_whitespace().collect();
    match words.as_slice() {
        [flag] if flag.starts_with("--") => default_of(root, flag),
        [file, name] => constant(root, file, name).shown(),
        ["bytes", file, name] => size(constant(root, file, name).number()),
        _ => panic!("no placeholder: {placeholder}"),
    }
}

fn source(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The default of a flag: of the attribute right before its field.
fn default_of(root: &Path, flag: &str) -> String {
    let text = source(root, FLAGS);
    let field = format!("pub(super) {}:", flag.trim_start_matches("--").replace('-', "_"));
    let (before, _) = text.split_once(&field).unwrap_or_else(|| panic!("{FLAGS} has no flag {flag}"));
    let attribute = before.rsplit("#[arg(").next().unwrap_or_default();
    let default = attribute.split_once("default_value = \"").and_then(|(_, rest)| rest.split_once('"'));
    let (default, _) = default.unwrap_or_else(|| panic!("{flag} has no default"));
    let unit = default.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = default.trim_end_matches(unit).parse().expect("a number");
    match unit {
        "" if flag.ends_with("-bytes") => size(number),
        "" => count(number),
        "s" => duration(number * 1000),
        "m" => duration(number * 60_000),
        "h" => duration(number * 3_600_000),
        other => panic!("{flag}: unit {other}"),
    }
}

/// What a constant is.
enum Constant {
    Number(u64),
    Millis(u64),
}

impl Constant {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) | Self::Millis(number) => *number,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Number(number) => count(*number),
            Self::Millis(millis) => duration(*millis),
        }
    }
}

fn constant(root: &Path, file: &str, name: &str) -> Constant {
    let text = source(root, file);
    let (_, after) =
        text.split_once(&format!("const {name}: ")).unwrap_or_else(|| panic!("{file} has no constant {name}"));
    let (_, expression) = after.split_once(" = ").expect("a value");
    let (expression, _) = expression.split_once(';').expect("an end");
    let number = |text: &str| product(root, file, text);
    let inner = |unit: &str| expression.strip_prefix(&format!("Duration::from_{unit}("))?.strip_suffix(')');
    match (inner("secs"), inner("millis")) {
        (Some(seconds), _) => Constant::Millis(number(seconds) * 1000),
        (None, Some(millis)) => Constant::Millis(number(millis)),
        (None, None) => Constant::Number(number(expression)),
    }
}

/// A product of numbers and constants of the same file.
fn product(root: &Path, file: &str, expression: &str) -> u64 {
    let factor = |text: &str| match text.replace('_', "").parse::<u64>() {
        Ok(number) => number,
        Err(_) => constant(root, file, text).number(),
    };
    if let Some((left, right)) = expression.split_once(" << ") {
        return factor(left.trim()) << factor(right.trim());
    }
    expression.split('*').map(|text| factor(text.trim())).product()
}

fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{} bytes", count(bytes)),
    }
}

fn duration(millis: u64) -> String {
    match millis {
        _ if millis.is_multiple_of(3_600_000) => format!("{} h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) && millis > 60_000 => format!("{} min", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{} s", millis / 1000),
        _ => format!("{millis} ms"),
    }
}

#[test]
fn figures_are_read_from_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shown = |text: &str| filled(root, text);
    assert_eq!(shown("x {{proxy/src/worker.rs HANDSHAKE_TIMEOUT}} y"), "x 10 s y");
    assert_eq!(shown("{{bytes proxy/src/codec/h2/engine.rs CONNECTION_WINDOW}}"), "32 MiB");
    assert_eq!(shown("{{--max-header-bytes}} {{--idle-timeout}} {{--max-connections}}"), "65,535 bytes 1 h 50,000");
    assert_eq!(unchecked("## Limits\n| a | 5 s | x |\n"), ["| a | 5 s | x |"]);
    assert!(unchecked("## Limits\n| a | {{--max-headers}} of HTTP/2 | 431 |\n").is_empty());
}
