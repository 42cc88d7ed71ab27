"""What was measured, for readers: a line while it runs, a table of ratios, a chart."""

import pathlib
import platform
import re
import subprocess

COLOURS = {"tulle": "#0f766e", "envoy": "#a3a3a3", "haproxy": "#c4b5a0", "nginx": "#d4d4d4", "base": "#5eead4"}
# What the chart shows: the first row of each.
CHARTED = {"G1": "HTTP/1.1 pair", "G2": "HTTP/2 pair", "G3": "HTTP/1.1 hop"}


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
    return f"{cpu[1] if cpu else platform.machine()}, Linux {platform.release().split('-')[0]}"


def chart(result):
    """Bars of CPU per request; the longest of each group is the full width."""
    rows = {row["goal"]: row for row in reversed(result["rows"]) if row["goal"] in CHARTED}
    y, parts = 30, []
    for goal, title in CHARTED.items():
        if goal not in rows:
            continue
        median = {name: value for name, value in rows[goal]["median"].items() if name != "base"}
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{title}</text>')
        most = max(median.values())
        for name, value in median.items():
            y += 20
            width = 380 * value / most
            parts.append(f'<text x="90" y="{y}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="98" y="{y - 11}" width="{width:.0f}" height="14" fill="{COLOURS[name]}"/>')
            parts.append(f'<text x="{104 + width:.0f}" y="{y}">{figure(value)}</text>')
        y += 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="560" height="{y - 10}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}'
        f'<text x="10" y="{y - 18}" fill="#666">CPU microseconds per request, all proxies of the path together</text></svg>\n'
    )
