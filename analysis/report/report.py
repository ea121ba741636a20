"""A study's report: tables, figures, and the generated block of a results file."""

from __future__ import annotations

import io
import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis import baselines as untrained
from analysis import by_seed as byseed
from analysis import causal, tables
from analysis.figures import rates as figures
from analysis.frames import READING_TITLES, file_stems, reading_of, readings_of, tidy
from analysis.report.interventions import WORDS, probe_block
from muvla.errors import MuvlaError
from muvla.evaluation.records import Baselines, CellRecords
from muvla.utils.io import disk_errors, write_atomically
from sweeps.predictions import Prediction

# What must not differ silently between the cells of one table, as a key of a provenance record.
SAME_FOR_ALL = {
    "code": "code versions",
    "device": "devices",
    "threads": "thread counts",
    "compiled": "settings of --compile",
}


@dataclass(frozen=True)
class Report:
    """What stands around the numbers."""

    name: str
    title: str
    command: str
    notes: str
    coverage: tuple[str, ...]
    differences: tuple[str, ...] = ()  # what is computed differently, variant by variant
    mix_provenance: bool = False
    with_rows: bool = False  # also write every episode row
    baselines: dict[str, Baselines] = field(default_factory=dict)  # protocol id → what its cells lie between
    predictions: tuple[Prediction, ...] = ()


def write_report(
    cells: list[CellRecords],
    out: Path,
    report: Report,
    results: Path | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Writes tables (Markdown, CSV, LaTeX) and figures (PNG, PDF) to `out`, and the block between the report's markers
    of `results`; returns the tidy frame.

    Raises MuvlaError if no cell has a result, or if rows come from different code versions, devices or simulators, or
    only some from a compiled step, or by another number of ranks.
    """
    report = replace(report, baselines={p: untrained.compared(one, cells, p) for p, one in report.baselines.items()})
    frame = tidy(cells)
    if frame.empty:
        raise MuvlaError(
            "report", got="no complete result", expected="at least one evaluated cell", remedy="run the sweep first"
        )
    mixed = _mixed(cells)
    if mixed and not report.mix_provenance:
        raise MuvlaError(
            "report",
            got=f"rows of several {'; '.join(mixed)}",
            expected="one of each",
            remedy="remove the run folders that differ (their provenance/ tells) and sweep again, or say "
            "--mix-provenance, which the report then states",
        )
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "cells.csv", frame.drop(columns="order").to_csv(index=False).encode())
    if report.with_rows:
        rows = [asdict(row) for cell in cells for of_result in cell.rows.values() for row in of_result]
        write_atomically(out / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    if not (known := untrained.frame(report.baselines)).empty:
        write_atomically(out / "baselines.csv", known.to_csv(index=False).encode())
    here, changed = results.parent if results else out, causal.causal(cells)
    more = f"[{byseed.NAME}]({os.path.relpath(out / byseed.NAME, here)})"
    if (frame["intervention"] != "none").any():
        text = byseed.by_seed_file(frame, changed, report.title, WORDS)
        write_atomically(out / byseed.NAME, text.encode())
    block = [f"### {report.title}", "", *_provenance_lines(cells, frame, report, mixed)]
    stems = file_stems(frame["protocol"])
    for protocol, lines in frame.groupby("protocol", sort=False):
        stem = stems[protocol]
        drawn = _draw(lines, out, report.title, stem)
        baselines = report.baselines.get(protocol, Baselines())
        main, interventions = _tables(lines, baselines)
        _write_tables(main, interventions, lines, out, report, stem)
        links = [os.path.relpath(out / name, here) for name in drawn]
        block += _protocol_block(protocol, lines, links, baselines, more)
        say(f"{protocol}:\n" * bool(stem) + tables.to_text(main))
        if not interventions.empty:
            say(f"\n{_title(reading_of(lines))}, under interventions on the memory:\n")
            say(tables.to_text(interventions) + "\n")
    block += _sets_block(cells, frame, out, report, say)
    save = partial(_save, out)
    block += probe_block(cells, changed, out, report.title, report.predictions, save, here, more, say)
    missing = [f"{c.variant}, seed {c.cell.seed}: {c.state}" for c in cells if c.state != "done"]
    if missing:
        block += [f"Not complete: {'; '.join(missing)}.", ""]
        say(f"Not complete: {'; '.join(missing)}.\n")
    text = "\n".join(block) + "\n"
    write_atomically(out / "report.md", text.encode())
    say(f"Tables and plots are in {out}: {', '.join(p.name for p in sorted(out.iterdir()))}")
    if results is not None:
        write_between_markers(results, report.name, text)
        say(f"Results block written to {results}")
    return frame


def _mixed(cells: list[CellRecords]) -> list[str]:
    found, records = [], [record for cell in cells for record in cell.provenance.values()]
    for key, name in SAME_FOR_ALL.items():
        values = sorted({str(record.get(key, False)) for record in records})
        if len(values) > 1:
            found.append(f"{name} ({', '.join(values)})")
    if len({any(r.get("cached_vision") for r in cell.provenance.values()) for cell in cells}) > 1:  # of training alone
        found.append("settings of --cache-vision")
    # Of what trained a cell: it was evaluated by one process, whose record tells none.
    trained = [cell.provenance.values() for cell in cells if cell.provenance]
    ranks = sorted({max(str(record.get("ranks", "1")) for record in of_cell) for of_cell in trained})
    if len(ranks) > 1:
        found.append(f"numbers of ranks ({', '.join(ranks)})")
    for what, simulators in _simulators(cells).items():
        if len(simulators) > 1:
            found.append(f"simulator backends of {what} ({'; '.join(sorted(simulators))})")
    packages = [record["packages"] for record in records]
    for name in sorted({name for one in packages for name in one}):
        # A package that was not installed was not used: the simulator may be added between two sweeps of a study.
        versions = sorted({one[name] for one in packages if one.get(name)})
        if len(versions) > 1:
            found.append(f"versions of {name} ({', '.join(versions)})")
    return found


def _simulators(cells: list[CellRecords]) -> dict[str, set[str]]:
    """Protocol → what simulated and drew its episodes, and variant → the same of its demonstrations. Only within one of
    them is a difference a mix: every task has assets of its own. A reading's record tells no renderer, so of it only
    another backend than that of its protocol's rows counts."""
    made, backends = defaultdict(set), defaultdict(set)
    for cell in cells:
        used = defaultdict(set)
        points = [(point.protocol, point.rows) for grid in cell.grids for point in grid.points]
        results = [*((protocol, rows) for (protocol, _), rows in cell.rows.items()), *points]
        for protocol, rows in results:
            used[protocol] |= {row.provenance for row in rows if row.error is None}
            backends[protocol] |= {cell.provenance[identity]["simulator"] for identity in used[protocol]}
        evaluated = {row.provenance for _, rows in results for row in rows} | {one.provenance for one in cell.readings}
        used[f"the data of {cell.variant}"] = cell.provenance.keys() - evaluated
        for what, identities in used.items():
            for record in (cell.provenance[identity] for identity in identities):
                drawn = sorted(set((record.get("environment") or {}).get("renderers", ())))
                if record["simulator"]:
                    made[what].add(", ".join([record["simulator"], *(f"drawn by {one}" for one in drawn)]))
    for record, one in ((cell.provenance[one.provenance], one) for cell in cells for one in cell.readings):
        simulator = record["simulator"]
        if simulator and simulator not in backends[one.protocol]:
            made[one.protocol].add(simulator)
    return made


def _tables(lines: pd.DataFrame, baselines: Baselines) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The main one, and that of interventions, which is empty where there are none."""
    columns = {READING_TITLES[one]: one for one in readings_of(lines)}
    main = untrained.with_readings(tables.main_table(lines), baselines, columns)
    interventions = tables.intervention_table(lines)
    if interventions.empty:
        return main, interventions
    return main, untrained.with_readings(interventions, baselines, {"none": reading_of(lines)})


def _write_tables(
    main: pd.DataFrame, interventions: pd.DataFrame, lines: pd.DataFrame, out: Path, report: Report, stem: str
) -> None:
    for kind, table, caption in (
        ("main", main, "95 % Wilson intervals per training seed."),
        ("interventions", interventions, f"{_title(reading_of(lines))} under interventions."),
    ):
        if not table.empty:
            _write_table(table, out, report, f"{kind}{stem}", caption)


def _write_table(table: pd.DataFrame, out: Path, report: Report, name: str, caption: str) -> None:
    write_atomically(out / f"{name}.md", (tables.to_markdown(table) + "\n").encode())
    latex = tables.to_latex(table, f"{report.title}. {caption}", f"tab:{report.name}-{name}")
    write_atomically(out / f"{name}.tex", latex.encode())


def _sets_block(
    cells: list[CellRecords], frame: pd.DataFrame, out: Path, report: Report, say: Callable[[str], None]
) -> list[str]:
    """Of a study that evaluates every protocol of a set, the means over it; else nothing."""
    sets = {name: protocols for cell in cells for name, protocols in cell.sets.items()}
    table = tables.set_table(frame, sets)
    if table.empty:
        return []
    table = untrained.over_sets(table, sets, report.baselines)
    caption = "Success by set of protocols: the unweighted mean of its protocols' rates, by training seed."
    _write_table(table, out, report, "sets", caption)
    say(f"\n{caption}\n\n{tables.to_text(table)}\n")
    return [caption, "", tables.to_markdown(table), ""]


def _title(reading: str) -> str:
    return READING_TITLES[reading].capitalize()


def _draw(lines: pd.DataFrame, out: Path, title: str, stem: str) -> list[str]:
    drawn = [(reading_of(lines), figures.main_figure(lines, title))]
    if (lines["intervention"] != "none").any():
        drawn.append(("interventions", figures.intervention_figure(lines, f"{title}: interventions on the memory")))
    for kind, figure in drawn:
        _save(out, figure, f"{kind}{stem}")
    return [f"{kind}{stem}.png" for kind, _ in drawn]


def _save(out: Path, figure: Figure, name: str) -> None:
    for suffix in ("png", "pdf"):
        # No date in the file: the same rows give the same bytes.
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        content = io.BytesIO()
        figure.savefig(content, format=suffix, dpi=150, metadata=metadata)
        write_atomically(out / f"{name}.{suffix}", content.getvalue())


def _provenance_lines(cells: list[CellRecords], frame: pd.DataFrame, report: Report, mixed: list[str]) -> list[str]:
    records = [record for cell in cells for record in cell.provenance.values()]
    hardware = sorted(
        {
            f"{r['processor']}, {r['device']}, {r['threads']} thread(s) per cell"
            + ", compiled" * r.get("compiled", False)
            + f", trained by {r.get('ranks')} ranks" * ("ranks" in r)
            for r in records
        }
    )
    simulators = sorted({r["simulator"] for r in records if r["simulator"]})
    packages = sorted({f"{k} {v}" for r in records for k, v in r["packages"].items() if v})
    commits = sorted({f"{r['git']['commit'][:12]}{' with changes' * r['git']['dirty']}" for r in records if r["git"]})
    versions = ", ".join(sorted({r["code"] for r in records})) + f" (commit {', '.join(commits)})" * bool(commits)
    told = f" Mixed, as told: {'; '.join(mixed)}." if mixed else ""
    never = [(p.protocol, p.intervention) for c in cells for g in c.grids for p in g.points if p.never_fired]
    never += [condition for cell in cells for condition in cell.never_fired]
    silent = sorted({f"`{kind}` under {name}" for name, kind in never})
    minutes = {what: sum(cell.seconds[what] for cell in cells) / 60 for what in ("training", "evaluation")}
    return [
        f"Command: `{report.command}`. Training seeds: {', '.join(map(str, sorted(frame['seed'].unique())))}. "
        f"Episodes that ended in an error, in no rate: {int(frame['errors'].sum())}."
        + f" Never fired, in some cell at least, so without a result: {', '.join(silent)}."
        * bool(silent),
        "",
        f"Hardware: {'; '.join(hardware)}. {'Simulator: ' + ', '.join(simulators) + '. ' if simulators else ''}"
        f"Wall time summed over {len(cells)} cells: training {minutes['training']:.0f} min, evaluation "
        f"{minutes['evaluation']:.0f} min. Code version {versions}; {', '.join(packages)}.{told}",
        "",
        *([report.notes.strip(), ""] if report.notes.strip() else []),
        *[f"- {line}." for line in report.coverage],
        *(["", "All that differs, of what is computed:", ""] if report.differences else []),
        *[f"- {line}." for line in report.differences],
        "",
    ]


def _protocol_block(protocol: str, lines: pd.DataFrame, links: list[str], baselines: Baselines, more: str) -> list[str]:
    """`more` is the link to what has no room here."""
    plain = lines[lines["intervention"] == "none"]
    episodes = "/".join(map(str, sorted(lines[~lines["never_fired"]]["episodes"].unique())))
    chance = plain["chance"].iloc[0]
    constant = plain["best_constant"].max()
    bound = f"no bound{', ' * bool(baselines.unbounded)}{baselines.unbounded}" if pd.isna(chance) else f"{chance:.2f}"
    expected = f"Expected without memory: {bound}; always the most frequent target of this block: {constant:.2f}"
    if pd.isna(constant):
        expected = "Nothing is chosen in this task: its reading is the success rate"
    reading = reading_of(lines)
    given = "; n of the choice accuracy is the episodes with a touch" * (reading == "choice")
    block = [
        f"Protocol `{protocol}`, {episodes} episodes per cell and condition, the same seeds in all. {expected}. "
        f"Entries: rate [95 % Wilson interval] count/n of one trained policy{given}. Episodes are never pooled over "
        "training seeds.",
        "",
        untrained.sentence(baselines),
        "",
    ]

    def table(of: str, kind: str) -> str:
        return tables.to_markdown(untrained.by_seed(tables.by_seed(lines, of, kind, counts=True), baselines, of))

    block += [] if pd.isna(constant) else [f"{tables.above_constant(plain)}", ""]
    for one in readings_of(lines):
        block += [f"{_title(one)}, without intervention:", "", table(one, "none"), ""]
    touched = tables.short_intervention_table(lines)
    if not touched.empty:
        seeds = " / ".join(map(str, sorted(lines["seed"].unique())))
        block += [f"{_title(reading)} under interventions, training seeds {seeds}; intervals and counts: {more}.", ""]
        block += [tables.to_markdown(touched), ""]
    return block + [f"![{Path(link).stem}]({link})" for link in links] + [""]


def write_between_markers(path: Path, name: str, block: str) -> None:
    """Replaces what stands between the generated markers of `name`; appends them if the file has none."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end generated: {name} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    generated = f"{begin}\n{block}{end}"
    if begin in text and end in text:
        head, _, rest = text.partition(begin)
        text = head + generated + rest.partition(end)[2]
    elif begin in text or end in text:
        raise MuvlaError(str(path), got="one of two markers", expected=f"{begin} and {end}", remedy="restore the other")
    else:
        text = text.rstrip("\n") + f"\n\n{generated}\n"
    write_atomically(path, text.encode())
