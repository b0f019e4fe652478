"""Tables, a section of docs/speed.md and a picture of what compare.py measured.

A record is one cell of the grid: seconds by contestant, its number of operations, and the machine's limit in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from rich.console import Console
from rich.table import Table

Record = dict[str, Any]
OURS, OURS_IN_FLOAT32 = "fastrnn", "fastrnn, float32"
LABELS = {"lstm": "LSTM", "gru-after": "GRU", "relu": "ReLU RNN", "tanh": "tanh RNN"}
TITLES = {"forward": "Forward, inference", "training": "Forward and backward, all gradients"}
COLOURS = {"lstm": "#1b6ca8", "gru-after": "#e08a1e", "relu": "#3a9d5d", "tanh": "#8e5aa8"}


# --- what follows from a record -----------------------------------------------------------------------------------------


def best_peer(record: Record) -> str | None:
    """The fastest of the others."""
    others = {name: seconds for name, seconds in record["seconds"].items() if name not in (OURS, OURS_IN_FLOAT32)}
    return min(others, key=others.__getitem__) if others else None


def ratio(record: Record) -> float | None:
    """Time of the best peer over ours: above 1 we are faster."""
    peer, seconds = best_peer(record), record["seconds"]
    return seconds[peer] / seconds[OURS] if peer and OURS in seconds else None


def percent(record: Record) -> float | None:
    """How much of the machine's limit we reach; not of bf16, whose limit is not measured."""
    return 100 * record["limit"] / record["seconds"][OURS] if OURS in record["seconds"] and record["limit"] else None


def of_shape(record: Record) -> str:
    return "T{} B{} I{} H{}".format(*record["shape"])


def groups(records: list[Record]) -> dict[tuple[str, int, str], list[Record]]:
    """Records by what, threads and dtype."""
    result: dict[tuple[str, int, str], list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["dtype"], r["what"], r["threads"])):
        result.setdefault((record["what"], record["threads"], record["dtype"]), []).append(record)
    return result


def title(what: str, threads: int, dtype: str) -> str:
    return f"{TITLES[what]}; {threads} thread{'s' if threads > 1 else ''}; {dtype}"


def progress(record: Record) -> str:
    """One line about a record."""
    faster = ratio(record)
    ours = f"{faster:.2f} x {best_peer(record)}" if faster else "no peer"
    errors = "".join(f" [red]{name}: {error}[/red]" for name, error in record["wrong"].items())
    where = f"{record['what']} {record['threads']} {record['dtype']} {LABELS[record['cell']]}"
    return f"{where} {of_shape(record)}: {ours}{errors}"


# --- tables -------------------------------------------------------------------------------------------------------------


def show(run: dict[str, Any]) -> None:
    """All tables, on standard output."""
    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    for (what, threads, dtype), records in groups(run["records"]).items():
        console.print(table(title(what, threads, dtype), records))
    console.print(summary(run["records"]))
    for limit in run["limits"]:
        console.print(limits(limit))
    console.print(run["machine"], run.get("configuration", ""), versions(run), sep="\n")
    for record in run["records"]:
        for name, error in record["wrong"].items():
            console.print(f"[red]{name} is wrong and not timed: {progress(record)}: {error}")


def table(heading: str, records: list[Record]) -> Table:
    """Times in microseconds, one row per cell and shape; the best peer is bold."""
    names = list(dict.fromkeys(name for record in records for name in record["seconds"]))
    result = Table(title=heading, title_justify="left", title_style="bold")
    result.add_column("microseconds")
    for heading in [*names, "GFLOP/s", "% of limit", "x best peer"]:
        result.add_column(heading, justify="right")
    for record in records:
        seconds, best = record["seconds"], best_peer(record)
        times = [f"{seconds[name] * 1e6:,.0f}" if name in seconds else "" for name in names]
        times = [f"[bold]{text}[/bold]" if name == best else text for name, text in zip(names, times)]
        rate = f"{record['operations'] / seconds[OURS] * 1e-9:.1f}" if OURS in seconds else ""
        name = f"{LABELS[record['cell']]} {of_shape(record)}"
        result.add_row(name, *times, rate, number(percent(record), ".0f"), coloured(ratio(record)))
    return result


def summary(records: list[Record]) -> Table:
    """Geometric mean and worst cell of each figure, per group; those of two groups are ratios of rates."""
    result = Table(title="Geometric means, and the worst cell", title_justify="left", title_style="bold")
    result.add_column("")
    for heading in ("x best peer", "worst", "% of limit", "worst", "x one thread", "worst", "% of float32", "worst"):
        result.add_column(heading, justify="right")
    for (what, threads, dtype), group in groups(records).items():
        of_limit = known(percent(record) for record in group)
        single = known(against(record, records, threads=1) for record in group) if threads > 1 else []
        halves = known(to_float32(record, records) for record in group) if dtype != "float32" else []
        row = [*mean_and_worst(known(ratio(record) for record in group), ".2f"), *mean_and_worst(of_limit, ".0f")]
        result.add_row(
            title(what, threads, dtype),
            *row,
            *mean_and_worst(single, ".2f"),
            *mean_and_worst([100 * half for half in halves], ".0f"),
        )
    return result


def to_float32(record: Record, records: list[Record]) -> float | None:
    """Our time in float32 over our time in this one: in the same turns where it was there."""
    seconds = record["seconds"]
    if OURS_IN_FLOAT32 in seconds and OURS in seconds:
        return seconds[OURS_IN_FLOAT32] / seconds[OURS]
    return against(record, records, dtype="float32")


def against(record: Record, records: list[Record], **changes: Any) -> float | None:
    """Our time in the record that differs by the changes, over our time in this one."""
    wanted = {name: record[name] for name in ("what", "threads", "dtype", "cell", "shape")} | changes
    other = next((r for r in records if all(r[name] == value for name, value in wanted.items())), None)
    times = [r["seconds"].get(OURS) for r in (other, record) if r]
    return times[0] / times[1] if len(times) == 2 and all(times) else None


def known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def mean_and_worst(values: list[float], form: str) -> tuple[str, str]:
    return (format(geometric_mean(values), form), format(min(values), form)) if values else ("", "")


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def coloured(value: float | None) -> str:
    return "" if value is None else f"[{'green' if value >= 1 else 'red'}]{value:.2f}[/]"


def limits(limit: dict[str, Any]) -> str:
    """What the machine can do, and how that was measured."""
    how = {"C": "a loop in C", "NumPy": "NumPy: no C compiler was found"}[limit["by"]]
    sizes = sorted((int(size), rate) for size, rate in limit["bandwidth"].items())
    reading = ", ".join(f"{size / 1024:.0f} KiB {rate * 1e-9:.0f}" for size, rate in sizes)
    heading = f"Limits, {limit['threads']} thread{'s' if limit['threads'] > 1 else ''}, {limit['dtype']} (by {how})"
    reads = f"; GB/s of reading a buffer shared out over the threads: {reading}" if reading else ""
    return f"{heading}: {limit['peak'] * 1e-9:.0f} GFLOP/s{reads}"


def versions(run: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in run["versions"].items())


# --- the page -----------------------------------------------------------------------------------------------------------

BEGIN, END = "<!-- begin: written by make compare -->", "<!-- end: written by make compare -->"


def write_section(run: dict[str, Any], path: Path) -> None:
    """Replace what stands between the two markers of a page."""
    write_between(BEGIN, END, section(run), path)


def write_between(begin: str, end: str, new: str, path: Path) -> None:
    text = path.read_text("utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"{path}: expected one line {begin} and after it one line {end}")
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{before}{begin}\n{new}\n{end}{after}", "utf-8")


def section(run: dict[str, Any]) -> str:
    """Geometric mean and worst case of each group, in Markdown, and what was measured where."""
    rows = ["| | threads | times as fast as the best peer | slowest case |", "|---|---|---|---|"]
    for (what, threads, dtype), records in groups(run["records"]).items():
        ratios = [(value, k) for k, record in enumerate(records) if (value := ratio(record))]
        if ratios:
            mean, (worst, k) = geometric_mean(value for value, _ in ratios), min(ratios)
            case = f"{LABELS[records[k]['cell']]} {of_shape(records[k])}, {best_peer(records[k])}"
            rows.append(f"| {TITLES[what]}, {dtype} | {threads} | {mean:.2f} | {worst:.2f}: {case} |")
    return "\n".join([*rows, "", f"{run['machine']}; {versions(run)}."])


# --- the picture --------------------------------------------------------------------------------------------------------


def draw(run: dict[str, Any], path: Path) -> None:
    """The ratio to the best peer per shape and cell: float32, the most threads measured; forward above training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    threads = max(record["threads"] for record in run["records"])
    shown = {key[0]: group for key, group in groups(run["records"]).items() if key[1:] == (threads, "float32")}
    if not shown:
        print(f"no picture: it shows float32 with {threads} threads, and nothing of that was measured")
        return
    figure, panels = plt.subplots(len(shown), 1, figsize=(10, 3.4 * len(shown) + 0.6), squeeze=False, layout="constrained")
    for panel, (what, records) in zip(panels[:, 0], shown.items()):
        bars(panel, records)
        panel.set_title(title(what, threads, "float32"), loc="left", fontsize=11)
    panels[0, 0].legend(ncols=4, frameon=False, loc="upper right", bbox_to_anchor=(1, 1.14), fontsize=9)
    figure.supxlabel(f"{run['machine']}\n{versions(run)}", fontsize=7, color="#555555")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def bars(panel: Any, records: list[Record]) -> None:
    """Groups of bars, a group per shape and a bar per cell, from 1 up where we are faster."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shapes = list(dict.fromkeys(of_shape(record) for record in records))
    cells = list(dict.fromkeys(record["cell"] for record in records))
    width = 0.8 / len(cells)
    for k, cell in enumerate(cells):
        mine = [(shapes.index(of_shape(r)), value) for r in records if r["cell"] == cell and (value := ratio(r))]
        places = [place + (k - (len(cells) - 1) / 2) * width for place, _ in mine]
        drawn = panel.bar(places, [value - 1 for _, value in mine], width, bottom=1, color=COLOURS[cell], label=LABELS[cell])
        panel.bar_label(drawn, [f"{value:.2f}" for _, value in mine], fontsize=6.5, padding=1)
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.margins(y=0.12)
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_xticks(range(len(shapes)), [shape.replace(" I", "\nI") for shape in shapes], fontsize=8)
    panel.set_ylabel("times as fast as\nthe best peer", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
