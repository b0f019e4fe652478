"""Tables, sections of docs/speed.md and README.md, and a picture of what short.py measured.

A record is a figure of short_table.py in one case: the seconds of fastrnn and of the peers.
"""

from __future__ import annotations

from pathlib import Path
from statistics import geometric_mean
from typing import Any

from report import COLOURS, LABELS, best_peer, coloured, of_shape, ratio, versions, write_between
from rich.console import Console
from rich.table import Table
from short_table import FIGURES, GROUPS, LOOP, Figure

Record = dict[str, Any]
Run = dict[str, Any]


# --- what follows from the records ---------------------------------------------------------------------------------------


def by_figure(run: Run) -> dict[str, list[Record]]:
    """The records that have a ratio, of the figures that have some."""
    found = {key: [r for r in run["records"] if r["figure"] == key and ratio(r)] for key in FIGURES}
    return {key: records for key, records in found.items() if records}


def mean_of(records: list[Record]) -> float:
    return geometric_mean([ratio(record) for record in records])


def slowest_of(records: list[Record]) -> Record:
    return min(records, key=ratio)


def name_of(record: Record) -> str:
    """A record's case: "LSTM T1 B16 I64 H64"; a step of a cell has no T, and H is I."""
    figure, shape = FIGURES[record["figure"]], of_shape(record)
    if figure.group == "cells":
        shape = "B{1} H{3}".format(*record["shape"])
    return " ".join(filter(None, [LABELS[record["cell"]], record["kind"], shape]))


def threads_of(figure: Figure) -> str:
    threads = GROUPS[figure.group].threads
    return f"{threads} thread{'s' if threads > 1 else ''}"


def missed(run: Run) -> list[str]:
    """The targets that were not reached, a line each."""
    lines = []
    for key, records in by_figure(run).items():
        figure, mean = FIGURES[key], mean_of(records)
        if mean < figure.mean:
            lines.append(f"{key}: mean {mean:.3f}, not {figure.mean}")
        for record in sorted(records, key=ratio):
            if ratio(record) < figure.worst:
                lines.append(f"{key}: {name_of(record)} {ratio(record):.3f}, not {figure.worst}")
    return lines


def unmeasured(run: Run) -> list[str]:
    """The figures of the groups that were asked for which have no ratio."""
    return [key for key, figure in FIGURES.items() if figure.group in run["groups"] and key not in by_figure(run)]


def progress(record: Record) -> str:
    faster = ratio(record)
    errors = "".join(f" [red]{name}: {error}[/red]" for name, error in record["wrong"].items())
    return f"{record['figure']} {name_of(record)}: " + (f"{faster:.2f} x {best_peer(record)}" if faster else "no ratio") + errors


# --- tables -------------------------------------------------------------------------------------------------------------


def show(run: Run) -> None:
    """All tables, on standard output; then what is wrong, what was not measured and which targets were missed."""
    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    figures = by_figure(run)
    for key, records in figures.items():
        console.print(table(FIGURES[key], records))
    for group in GROUPS:
        of_group = {key: records for key, records in figures.items() if FIGURES[key].group == group}
        if of_group:
            console.print(summary(group, of_group))
    console.print(run["machine"], run.get("configuration", ""), versions(run), sep="\n")
    for record in run["records"]:
        if record["wrong"]:
            console.print(f"[red]wrong and not timed: {progress(record)}")
    for line in unmeasured(run):
        console.print(f"[yellow]not measured: {line}")
    for line in missed(run):
        console.print(f"[yellow]missed: {line}")
    if run["quick"]:
        console.print("[yellow]A quick look, not a measurement.")


def table(figure: Figure, records: list[Record]) -> Table:
    """Times in microseconds, a row per case; the best peer is bold."""
    title = f"{GROUPS[figure.group].title}: {figure.title}; {threads_of(figure)}".replace("`", "")
    result = Table(title=title, title_justify="left", title_style="bold")
    result.add_column("microseconds" + (" per step" if figure.group == "cells" else ""))
    names = ["fastrnn", *(name for name in figure.peers if any(name in record["seconds"] for record in records))]
    for heading in [*names, "x best peer"]:
        result.add_column(heading, justify="right")
    for record in records:
        best, times = best_peer(record), []
        for name in names:
            text = microseconds(record["seconds"][name]) if name in record["seconds"] else ""
            times.append(f"[bold]{text}[/bold]" if name == best else text)
        result.add_row(name_of(record), *times, coloured(ratio(record)))
    return result


def microseconds(seconds: float) -> str:
    us = seconds * 1e6
    return f"{us:,.0f}" if us >= 100 else f"{us:.1f}" if us >= 10 else f"{us:.2f}"


def summary(group: str, figures: dict[str, list[Record]]) -> Table:
    result = Table(title=f"{GROUPS[group].title}: geometric means, and the slowest case", title_justify="left", title_style="bold")
    result.add_column("")
    cells = GROUPS[group].cells
    for heading in ("cases", "x best peer", "target", "slowest", "target", *(LABELS[cell] for cell in cells)):
        result.add_column(heading, justify="right")
    result.add_column("slowest case")
    for key, records in figures.items():
        figure, worst = FIGURES[key], slowest_of(records)
        means = [f"{mean_of(mine):.2f}" if (mine := [r for r in records if r["cell"] == cell]) else "" for cell in cells]
        numbers = [*beside(mean_of(records), figure.mean), *beside(ratio(worst), figure.worst)]
        result.add_row(key, str(len(records)), *numbers, *means, f"{name_of(worst)}, {best_peer(worst)}")
    return result


def beside(value: float, target: float) -> tuple[str, str]:
    """A figure and its target; red if it is below."""
    return f"[{'green' if value >= target else 'red'}]{value:.2f}[/]", f"{target:.1f}"


# --- the pages ----------------------------------------------------------------------------------------------------------

BEGIN, END = (f"<!-- {edge}: short calls, written by make compare -->" for edge in ("begin", "end"))
NO_MEASUREMENT = "These are figures of a quick look, some of the cases on a busy machine, to be replaced by a measurement."


def write_section(run: Run, path: Path) -> None:
    write_between(BEGIN, END, section(run), path)


def write_readme(run: Run, path: Path) -> None:
    write_between(BEGIN, END, readme(run), path)


def section(run: Run) -> str:
    """A table per group, and how long a step takes, in Markdown."""
    parts = [NO_MEASUREMENT] if run["quick"] else []
    figures = by_figure(run)
    for group, about in GROUPS.items():
        of_group = {key: records for key, records in figures.items() if FIGURES[key].group == group}
        if of_group:
            heading = f"| {about.title}, {about.threads} thread{'s' if about.threads > 1 else ''} | beside the best of | cases "
            rows = [heading + "| times as fast | target | slowest case |", "|---|---|---|---|---|---|"]
            parts.append("\n".join(rows + [row(FIGURES[key], records) for key, records in of_group.items()]))
    steps = step_times(figures)
    parts += [steps] if steps else []
    return "\n\n".join([*parts, f"{run['machine']}; {versions(run)}."])


def row(figure: Figure, records: list[Record]) -> str:
    worst = slowest_of(records)
    where = f"{ratio(worst):.2f}: {name_of(worst)}, {best_peer(worst)}"
    peers = ", ".join(name for name in figure.peers if any(name in record["seconds"] for record in records))
    return f"| {figure.title} | {peers} | {len(records)} | {mean_of(records):.2f} | {figure.mean:.1f} | {where} |"


def step_times(figures: dict[str, list[Record]]) -> str:
    """Microseconds of a step of an LSTM cell at B=1, by H: ours in each way, and the peers'."""
    rows: dict[str, dict[int, str]] = {}
    for key in ("cell", "cell, frozen", "cell, training", "cell, unrolled"):
        for record in figures.get(key, []):
            _, B, _, H = record["shape"]
            if record["cell"] == "lstm" and B == 1:
                for name, seconds in record["seconds"].items():
                    rows.setdefault(line_of(key, name), {})[H] = microseconds(seconds)
    sizes = sorted({H for times in rows.values() for H in times})
    if not sizes:
        return ""
    lines = ["| LSTM, B=1, microseconds of a step | " + " | ".join(f"H={H}" for H in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(times.get(H, "") for H in sizes) + " |" for name, times in rows.items()])


def line_of(key: str, name: str) -> str:
    if key in ("cell", "cell, frozen"):
        return FIGURES[key].title if name == "fastrnn" else name
    return name + {"cell, training": ", with gradients", "cell, unrolled": f", with gradients in a loop of {LOOP} steps"}[key]


def readme(run: Run) -> str:
    """A row per group, and the picture."""
    figures = by_figure(run)
    rows = ["| short calls | times as fast as the best peer, and in the slowest case |", "|---|---|"]
    for group, about in GROUPS.items():
        mine = {FIGURES[key]: records for key, records in figures.items() if FIGURES[key].group == group}
        parts = [f"{figure.short} {mean_of(rs):.1f} ({ratio(slowest_of(rs)):.2f})" for figure, rs in mine.items()]
        if parts:
            rows.append(f"| {about.title}, {threads_of(next(iter(mine)))} | {'; '.join(parts)} |")
    picture = "![times as fast as the best peer, each short call](docs/short.png)"
    return "\n\n".join([*([NO_MEASUREMENT] if run["quick"] else []), "\n".join(rows), picture])


# --- the picture --------------------------------------------------------------------------------------------------------


def draw(run: Run, path: Path) -> None:
    """A line per figure and on it a dot per case, by its ratio to the best peer; the mean, and its target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figures = by_figure(run)
    if not figures:
        print("no picture: nothing was measured")
        return
    figure, panel = plt.subplots(figsize=(10, 0.55 * len(figures) + 1.8), layout="constrained")
    for line, (key, records) in enumerate(figures.items()):
        dots(panel, line, records)
        mean, target, worst = mean_of(records), FIGURES[key].mean, ratio(slowest_of(records))
        panel.plot([mean, mean], [line - 0.36, line + 0.36], color="black", linewidth=2, label="mean")
        panel.plot([target, target], [line - 0.36, line + 0.36], color="black", linewidth=1, linestyle=":", label="its target")
        panel.text(1.01, line, f"{mean:.2f}\n({worst:.2f})", fontsize=8, va="center", transform=panel.get_yaxis_transform())
    panel.text(1.01, -0.8, "mean\n(slowest)", fontsize=8, va="center", transform=panel.get_yaxis_transform())
    titles = [f"{GROUPS[f.group].title}\n{f.title.replace('`', '')}; {threads_of(f)}" for f in map(FIGURES.get, figures)]
    panel.set_yticks(range(len(figures)), titles, fontsize=8)
    panel.set_ylim(len(figures) - 0.5, -0.5)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator([2.0**k for k in range(-6, 8)]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g} x"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="x", labelsize=8)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    look = "; a quick look, no measurement" if run["quick"] else ""
    figure.suptitle(f"Short calls, times as fast as the best peer{look}", fontsize=11)
    panel.legend(*in_order(panel), ncols=6, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    figure.supxlabel(f"{run['machine']}\n{versions(run)}", fontsize=7, color="#555555")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def dots(panel: Any, line: int, records: list[Record]) -> None:
    """The cells of a figure one above the other."""
    cells = list(dict.fromkeys(record["cell"] for record in records))
    for k, cell in enumerate(cells):
        values = [ratio(record) for record in records if record["cell"] == cell]
        height = line + 0.2 * (k - (len(cells) - 1) / 2)
        panel.scatter(values, [height] * len(values), s=16, color=COLOURS[cell], alpha=0.65, linewidths=0, label=LABELS[cell])


def in_order(panel: Any) -> tuple[list[Any], list[str]]:
    """Handles and names of the legend, each name once."""
    handles, labels = panel.get_legend_handles_labels()
    named = dict(zip(labels, handles))
    names = [name for name in (*LABELS.values(), "mean", "its target") if name in named]
    return [named[name] for name in names], names
