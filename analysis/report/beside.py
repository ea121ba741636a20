"""The section of a report that sets results of other policies beside ours: of policy servers and releases, which ran
under our protocols, and of other harnesses, which did not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.report.folder import ReportFolder
from analysis.tables import NO_VALUE, to_markdown
from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import summarise
from muvla.runs.results import read_result
from muvla.runs.run import Run
from muvla.serving.foreign_results import read_results
from muvla.stats import wilson
from muvla.utils.foreign import read_object

FACTS = ("server.json", "release.json")  # of the run of a policy that no study trained
LEFT_OUT, FAILURES = "left out", "counted as failures"
WORDS = (
    "Results of policies that this study did not train. A served policy or a release ran under our protocols. Another "
    "harness has its own episodes, so its lines are no controlled comparison. Brackets hold 95 % Wilson intervals"
)


@dataclass(frozen=True)
class OtherResult:
    """One line: the success of another policy on one protocol or task.

    Attributes:
        policy: name in the table, with a mark in brackets.
        task: protocol id, or the harness's name of the task.
        n: episodes; errors are among them where they count as failures.
        successes: successful episodes.
        errors: episodes that ended in an error; None where the source does not say.
        errors_are: `left out` or `counted as failures`.
        source: where the numbers come from.
    """

    policy: str
    task: str
    n: int
    successes: int
    errors: int | None
    errors_are: str
    source: str


def read_others(names: Iterable[str], runs: Path, data: Path, protocols: Sequence[Protocol]) -> tuple[OtherResult, ...]:
    """The results of other policies.

    Args:
        names: result files of vla-eval or LeRobot, and ids (or beginnings) of served policies and releases.
        runs: folder of all runs.
        data: folder of all datasets.
        protocols: of the study.

    Raises:
        MuvlaError: a name is neither, or a policy has no row under a protocol of the study.
    """
    lines: list[OtherResult] = []
    for name in names:
        lines += _foreign(Path(name)) if Path(name).is_file() else _evaluated(name, runs, data, protocols)
    return tuple(lines)


def beside_section(folder: ReportFolder, rates: pd.DataFrame, others: Sequence[OtherResult]) -> list[str]:
    """Writes beside.csv; empty without other results.

    Args:
        folder: where files go.
        rates: the tidy frame of the cells.
        others: results of other policies.
    """
    if not others:
        return []
    lines = [asdict(line) | _interval(line) for line in others]
    folder.write_csv("beside.csv", pd.DataFrame(lines))
    table = pd.DataFrame([*_ours(rates), *(_row(line) for line in lines)])
    return [f"{WORDS}.", "", to_markdown(table), ""]


def _foreign(file: Path) -> list[OtherResult]:
    return [
        OtherResult(
            f"{line.source.partition(':')[0]} (another harness)",
            line.task,
            line.n,
            line.successes,
            line.errors,
            FAILURES,
            str(file),
        )
        for line in read_results(file)
    ]


def _evaluated(name: str, runs: Path, data: Path, protocols: Sequence[Protocol]) -> list[OtherResult]:
    run, facts = _find(name, runs, data)
    is_server = "wire" in facts
    label = facts.get("name") or (f"{facts['wire']} {run.train[:8]}" if is_server else run.train[:8])
    lines = []
    for protocol in protocols:
        result = read_result(run, protocol, "none")
        summary = summarise(result.rows)
        if summary.measured:
            mark = ("served" if is_server else "release") + ("" if result.is_complete else ", not complete")
            place = str(run.folder)
            counts = (summary.measured, summary.success, summary.errors)
            lines.append(OtherResult(f"{label} ({mark})", protocol.id, *counts, LEFT_OUT, place))
    if not lines:
        raise MuvlaError(
            "--beside",
            got=f"{run.train}, without a measured episode under a protocol of the study",
            expected=f"rows under {', '.join(protocol.id for protocol in protocols)}",
            remedy=f"run `muvla evaluate ADDRESS --protocol {protocols[0].id}` first",
        )
    return lines


def _find(name: str, runs: Path, data: Path) -> tuple[Run, dict[str, Any]]:
    files = {path.parent.name: path for fact in FACTS for path in sorted(runs.glob(f"*/{fact}"))}
    matching = [train for train in files if train == name] or [train for train in files if train.startswith(name)]
    if len(matching) != 1:
        raise unknown_name("--beside", name, sorted(matching or files))
    (train,) = matching
    return Run(runs, data, train), read_object(files[train], 2**24)


def _interval(line: OtherResult) -> dict[str, float]:
    low, high = wilson(line.successes, line.n)
    return {"success": line.successes / line.n, "low": low, "high": high}


def _row(line: dict[str, Any]) -> dict[str, str]:
    success = f"{line['success']:.2f} [{line['low']:.2f}, {line['high']:.2f}] n = {line['n']}"
    errors = "unknown number" if line["errors"] is None else str(line["errors"])
    errors = f"{errors}, {line['errors_are']}"
    return {"policy": line["policy"], "task": line["task"], "success": success, "errors": errors} | {
        "source": line["source"]
    }


def _ours(rates: pd.DataFrame) -> list[dict[str, str]]:
    """A row per variant, training length and protocol: the mean over training seeds."""
    rows, plain = [], rates[rates["intervention"] == "none"]
    for (variant, length, protocol), group in plain.groupby(["variant", "U", "protocol"], sort=False):
        seeds, spread = len(group), group["success_rate"].std()
        text = f"{group['success_rate'].mean():.2f}" + (f" ± {spread:.2f}" if seeds > 1 else "")
        n = f"{seeds} {'seed' if seeds == 1 else 'seeds'} of n = {group['measured'].max()}"
        row = {"policy": f"{variant}, U = {length} (ours)", "task": protocol, "success": f"{text}, {n}"}
        rows.append(row | {"errors": f"{group['errors'].sum()}, {LEFT_OUT}", "source": NO_VALUE})
    return rows
