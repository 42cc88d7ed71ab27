"""What was measured, for readers: a line while it runs, a table of ratios, a chart."""

import pathlib
import platform
import re
import subprocess

from machine import CONGESTION

# What the chart shows of a result: the first row of each, and its title. Less is better in all of them.
CHARTED = (
    ("HTTP/1.1 pair", "HTTP/1.1 through two sidecars, mutual TLS", "CPU µs per request"),
    ("HTTP/2 pair", "HTTP/2 through two sidecars, mutual TLS", "CPU µs per request"),
    ("HTTP/1.1 hop", "HTTP/1.1 through one proxy", "CPU µs per request"),
    ("memory of the idle pair", "Two idle sidecars", "MiB"),
    ("memory per idle mTLS", "An idle mutual TLS connection", "KiB"),
)
NAMES = {"tulle": "Tulle", "envoy": "Envoy", "haproxy": "HAProxy", "nginx": "nginx"}

def figure(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def line(row):
    shown = "  ".join(f"{name} {figure(value)}" for name, value in row["median"].items())
    return f"{row['goal']} {row['what']} [{row['unit']}]: {shown}"


def table(result):
    """Each figure with Tulle's as a ratio to it: below 1 Tulle costs less, or with * does more for the same."""
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["median"]))
    lines = ["| goal | | tulle |" + "".join(f" {n} | ratio |" for n in names if n != "tulle")]
    lines.append("|" + " --- |" * (lines[0].count("|") - 1))
    for row in result["rows"]:
        median, ours = row["median"], row["median"].get("tulle")
        cells = [row["goal"], f"{row['what']}, {row['unit']}{' (more is better)' if row['higher_is_better'] else ''}"]
        cells.append(figure(ours) if ours is not None else "–")
        for name in names:
            if name != "tulle":
                value = median.get(name)
                cells += [figure(value), f"**{ours / value:.2f}**"] if ours is not None and value else ["–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    versions = "; ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join(lines) + f"\n\nRatio: Tulle ÷ the other. {versions}. {result['machine']}.\n"


def versions(found):
    flags = {"haproxy": "-v", "nginx": "-v"}
    shown = {}
    for peer in found:
        words = [str(peer.program), flags.get(peer.name, "--version")]
        text = subprocess.run(words, capture_output=True, text=True, check=False)
        match = re.search(r"\d+\.\d+\.\d+", text.stdout + text.stderr)
        shown[peer.name] = match[0] if match else "?"
    return shown


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    congestion = CONGESTION.read_text().strip()
    return f"{cpu[1] if cpu else platform.machine()}, Linux {platform.release().split('-')[0]}, TCP {congestion}"


# Legible on white and on black, so that one file serves every theme.
TEXT, OURS, OTHERS = "#7d8590", "#0d9488", "#8b949e"
SHADE = 0.55
WIDTH, LEFT, ROW, GAP = 720, 86, 20, 46


def chart(result):
    """Bars, a group for each row; the longest of a group is the full width."""
    y, parts, most = 22, [], WIDTH - LEFT - 120
    for begins, title, unit in CHARTED:
        row = next((row for row in result["rows"] if row["what"].startswith(begins)), None)
        median = {name: value for name, value in (row or {}).get("median", {}).items() if name in NAMES}
        if "tulle" not in median:
            continue
        parts.append(_text(0, y, title, 'font-weight="600" font-size="14"'))
        parts.append(_text(WIDTH, y, unit, 'text-anchor="end"'))
        for name in sorted(median, key=lambda name: name != "tulle"):
            y, value = y + ROW + 2, median[name]
            width, ours = max(2, most * value / max(median.values())), name == "tulle"
            weight = 'font-weight="600"' if ours else ""
            parts.append(_text(LEFT - 8, y + 1, NAMES[name], f'text-anchor="end" {weight}'))
            colour = f'fill="{OURS}"' if ours else f'fill="{OTHERS}" fill-opacity="{SHADE}"'
            top, height = y - ROW // 2 - 4, ROW - 4
            parts.append(f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{height}" rx="2" {colour}/>')
            times = "" if ours else f" · {value / median['tulle']:.1f}×"
            parts.append(_text(LEFT + width + 8, y + 1, figure(value) + times, weight))
        y += GAP
    parts.append(_text(0, y - 10, f"Less is better. {result['machine']}.", 'font-size="11"'))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 0 {WIDTH + 24} {y + 4}" width="{WIDTH + 24}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">\n'
        f"<title>Cost of Tulle beside other proxies</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x, y, text, attributes=""):
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y}" fill="{TEXT}" {attributes}>{text}</text>'


def page(result):
    """`docs/performance.md`."""
    return PAGE.format(table=table(result), chart="performance.svg", **result["run"])


PAGE = """# Performance

Written by `benches/load/run.py --publish` on {date}: {rounds} rounds of {seconds} s, medians. Everything of Tulle is on, every proxy has one
worker, all of them take turns on the same core. [benches](../benches/README.md) has the method. Only ratios within one run mean something.

![cost of Tulle beside other proxies]({chart})

{table}"""
