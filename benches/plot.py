#!/usr/bin/env python3
"""Draws the plots of docs/PERFORMANCE.md from what the measuring program prints as JSON.

    python3 benches/plot.py              measures (some nine minutes, with nothing else running) and draws
    python3 benches/plot.py --draw-only  draws what was measured last

Measurements are kept in target/performance, the plots go to docs/performance. Needs cargo, redis-server, and python3 with its
module venv: matplotlib is installed below target.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "target/performance"
PLOTS = ROOT / "docs/performance"
ENVIRONMENT = ROOT / "target/plot-environment"

PATTERNS = {"list": "tab:blue", "stream": "tab:orange"}
BATCHES = [1, 5, 20, 100, 250, 500, 1000]
ROUND_TRIPS_MS = [0, 0.5, 1, 2]
LANES = {2: "-", 4: "--"}


def main():
    match sys.argv[1:]:
        case []:
            measure()
        case ["--draw-only"]:
            pass
        case _:
            sys.exit(__doc__)
    draw_with_matplotlib()


def measure():
    build = ["cargo", "build", "--quiet", "--release", "-p", "benches", "--bin", "throughput"]
    subprocess.run(build, cwd=ROOT, check=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    for pattern in PATTERNS:
        for batch in BATCHES:
            messages = min(500_000, 20_000 * batch)
            keep("drain", pattern=pattern, batch=batch, messages=messages, rounds=3)
            keep("latency", pattern=pattern, batch=batch, seconds=3, rounds=3)
        for ms in ROUND_TRIPS_MS:
            for lanes in LANES:
                keep("drain", pattern=pattern, rtt=ms, lanes=lanes, messages=400_000, rounds=3)
            keep("latency", pattern=pattern, rtt=ms, seconds=3, rounds=3)


def keep(what, **settings):
    """Measures, and keeps what is printed."""
    options = [f"--{name}={value}" for name, value in settings.items()]
    print("throughput", what, *options, flush=True)
    command = [ROOT / "target/release/throughput", what, "--json", *options]
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    path(what, **settings).write_bytes(printed)


def path(what, pattern, batch=None, rtt=None, lanes=None, **_):
    parts = [what, pattern]
    named = [("batch", batch), ("rtt", rtt), ("lanes", lanes)]
    parts += [f"{name}-{value}" for name, value in named if value is not None]
    return KEPT / ("-".join(parts) + ".json")


def kept(what, **settings):
    return json.loads(path(what, **settings).read_text())["pythia"]


def draw_with_matplotlib():
    """Draws, in an environment of its own if matplotlib is not installed here."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        if Path(sys.prefix) == ENVIRONMENT:
            raise
        python = ENVIRONMENT / "bin/python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "matplotlib"]
        subprocess.run(install, check=True)
        os.execv(python, [python, __file__, "--draw-only"])
    matplotlib.use("svg")
    # The same figures make the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "pythia", "font.size": 9, "axes.titlesize": 9, "axes.grid": True, "grid.alpha": 0.3})
    PLOTS.mkdir(parents=True, exist_ok=True)
    draw_batches()
    draw_round_trips()


def draw_batches():
    figure, (rates, waits) = two("messages of one fetch at most (--batch)")
    for pattern, color in PATTERNS.items():
        rate = [kept("drain", pattern=pattern, batch=batch)["rate"]["median"] for batch in BATCHES]
        rates.plot(BATCHES, rate, "o-", color=color, label=pattern)
        draw_waits(waits, BATCHES, pattern, [kept("latency", pattern=pattern, batch=batch) for batch in BATCHES])
    for axes in (rates, waits):
        axes.set_xscale("log")
        axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
        axes.minorticks_off()
    save(figure, "batch")


def draw_round_trips():
    figure, (rates, waits) = two("round trip to Redis, ms (--rtt)")
    for pattern, color in PATTERNS.items():
        for lanes, style in LANES.items():
            measured = [kept("drain", pattern=pattern, rtt=ms, lanes=lanes) for ms in ROUND_TRIPS_MS]
            rate = [one["rate"]["median"] for one in measured]
            rates.plot(ROUND_TRIPS_MS, rate, "o" + style, color=color, label=f"{pattern}, {lanes} lanes")
        draw_waits(waits, ROUND_TRIPS_MS, pattern, [kept("latency", pattern=pattern, rtt=ms) for ms in ROUND_TRIPS_MS])
    save(figure, "round-trip")


def draw_waits(axes, at, pattern, measured):
    for share, style in (("p50", "o-"), ("p99", "o:")):
        waits = [one["wait_ms"][share] for one in measured]
        axes.plot(at, waits, style, color=PATTERNS[pattern], label=f"{pattern}, {share}")


def two(label):
    """Two plots side by side: messages a second, and how long a message waits."""
    from matplotlib import pyplot

    figure, (rates, waits) = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for axes in (rates, waits):
        axes.set_xlabel(label)
    rates.set_title("messages a second, from a full queue")
    rates.yaxis.set_major_formatter("{x:,.0f}")
    waits.set_title("ms from publishing to the job, 500 messages a second")
    return figure, (rates, waits)


def save(figure, name):
    for axes in figure.axes:
        # Room for the legend above the lines.
        axes.set_ylim(bottom=0, top=1.3 * axes.dataLim.ymax)
        axes.legend(loc="upper center", ncols=2)
    figure.tight_layout()
    figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    print(PLOTS / f"{name}.svg")


if __name__ == "__main__":
    main()
