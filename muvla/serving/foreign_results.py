"""Result files of other harnesses as lines beside ours: vla-eval's result and LeRobot's `eval_info.json`.

Errors count as failures in both files. Our rows leave errors out of every rate, so these lines are marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from muvla.errors import MuvlaError
from muvla.stats.proportions import wilson
from muvla.utils.foreign import decode, read_object

ALL = "all"  # name of the line over all tasks
FILE_BYTES = 2**28
Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class ForeignResult:
    """The success of one task, or of all.

    Attributes:
        source: the harness and the file's name.
        task: the harness's name of the task; `all` over all tasks.
        n: episodes, errors included.
        successes: successful episodes.
        errors: episodes that ended in an error, and that count as failures; None where the file does not say.
    """

    source: str
    task: str
    n: int
    successes: int
    errors: int | None

    def plain(self) -> dict[str, Any]:
        """Plain data with the rate and its Wilson interval."""
        low, high = wilson(self.successes, self.n)
        return {
            "source": self.source,
            "task": self.task,
            "n": self.n,
            "successes": self.successes,
            "errors": self.errors,
            "success": round(self.successes / self.n, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "errors_are_failures": True,
        }


class _Episode(msgspec.Struct):
    metrics: dict[str, Any]
    failure_reason: str | None = None


class _Task(msgspec.Struct):
    task: str
    episodes: list[_Episode]
    num_episodes: Count


class _VlaEval(msgspec.Struct):
    benchmark: str
    harness_version: str
    tasks: Annotated[list[_Task], msgspec.Meta(min_length=1)]


class _LeRobotMetrics(msgspec.Struct):
    successes: list[bool]


class _LeRobotTask(msgspec.Struct):
    task_group: str
    task_id: int
    metrics: _LeRobotMetrics


class _LeRobotTotal(msgspec.Struct):
    pc_success: Annotated[float, msgspec.Meta(ge=0, le=100)]
    n_episodes: Annotated[int, msgspec.Meta(ge=1)]


class _LeRobot(msgspec.Struct):
    """LeRobot 0.6.2. Versions before 0.4 wrote `per_episode` and `aggregated`, which are refused."""

    overall: _LeRobotTotal
    per_task: list[_LeRobotTask] = []
    per_group: dict[str, _LeRobotTotal] = {}


def read_results(path: Path) -> list[ForeignResult]:
    """Return a line for each task of a result file, and the line over all tasks last.

    Raises:
        MuvlaError: the file is no result of vla-eval or LeRobot, or its numbers contradict each other.
    """
    content = read_object(path, FILE_BYTES)
    if "tasks" in content:
        lines = _vla_eval(decode(content, _VlaEval, str(path)), path)
    elif "overall" in content:
        lines = _lerobot(decode(content, _LeRobot, str(path)), path)
    else:
        raise MuvlaError(
            str(path),
            got=f"the fields {', '.join(list(content)[:8])}",
            expected="`tasks` of a vla-eval result, or `overall` of LeRobot's eval_info.json",
            remedy="export the result with `vla-eval export`, or name LeRobot's eval_info.json",
        )
    if any(line.n == 0 for line in lines):
        raise MuvlaError(
            str(path), got="a task without an episode", expected="at least one episode", remedy="run the evaluation"
        )
    return lines


def _vla_eval(result: _VlaEval, path: Path) -> list[ForeignResult]:
    source, lines = f"vla-eval {result.harness_version}: {path.name}", []
    for number, task in enumerate(result.tasks):
        if task.num_episodes != len(task.episodes):
            raise MuvlaError(
                f"{path}: tasks[{number}].num_episodes",
                got=task.num_episodes,
                expected=f"{len(task.episodes)}, the number of episodes in the list",
                remedy="export the result again with `vla-eval export`",
            )
        successes = [
            _success(episode, f"{path}: tasks[{number}].episodes[{i}]") for i, episode in enumerate(task.episodes)
        ]
        errors = sum(episode.failure_reason is not None for episode in task.episodes)
        lines.append(ForeignResult(source, task.task, len(successes), sum(successes), errors))
    return [*lines, _total(source, lines)]


def _success(episode: _Episode, place: str) -> bool:
    """An episode that ended in an error may lack its metrics; it is a failure."""
    success = episode.metrics.get("success", False if episode.failure_reason else None)
    if not isinstance(success, bool | int | float) or success not in (0, 1):
        remedy = "import results of benchmarks that declare the metric `success`"
        raise MuvlaError(f"{place}.metrics.success", got=success, expected="true, false, 0 or 1", remedy=remedy)
    return bool(success)


def _lerobot(result: _LeRobot, path: Path) -> list[ForeignResult]:
    source = f"LeRobot: {path.name}"
    groups: dict[str, list[ForeignResult]] = {}
    for task in result.per_task:
        passed, place = task.metrics.successes, f"{task.task_group}/{task.task_id}"
        groups.setdefault(task.task_group, []).append(ForeignResult(source, place, len(passed), sum(passed), None))
    totals = {
        group: _lerobot_total(source, group, total, f"{path}: per_group.{group}")
        for group, total in result.per_group.items()
    }
    whole = _lerobot_total(source, ALL, result.overall, f"{path}: overall")
    for group, lines in groups.items():
        if group in totals:
            _require_sum(lines, totals[group], f"{path}: per_group.{group}")
    lines = [line for group in groups.values() for line in group] or list(totals.values())
    if lines:
        _require_sum(lines, whole, f"{path}: {'per_task' if groups else 'per_group'}")
    return [*lines, whole]


def _lerobot_total(source: str, task: str, total: _LeRobotTotal, place: str) -> ForeignResult:
    """The line of an aggregate, which holds a rate in place of a count."""
    successes = round(total.pc_success / 100 * total.n_episodes)
    if abs(successes / total.n_episodes * 100 - total.pc_success) > 0.01:
        raise MuvlaError(
            f"{place}.pc_success",
            got=total.pc_success,
            expected=f"a multiple of 100/{total.n_episodes}, for n_episodes {total.n_episodes}",
            remedy="run `lerobot-eval` again; the two numbers contradict each other",
        )
    return ForeignResult(source, task, total.n_episodes, successes, None)


def _require_sum(lines: list[ForeignResult], total: ForeignResult, place: str) -> None:
    summed = _total(total.source, lines)
    if (summed.n, summed.successes) != (total.n, total.successes):
        raise MuvlaError(
            place,
            got=f"{summed.successes} of {summed.n} successes",
            expected=f"{total.successes} of {total.n}, as in the total",
            remedy="run `lerobot-eval` again; the two parts contradict each other",
        )


def _total(source: str, lines: list[ForeignResult]) -> ForeignResult:
    errors = None if any(line.errors is None for line in lines) else sum(line.errors for line in lines)
    return ForeignResult(source, ALL, sum(line.n for line in lines), sum(line.successes for line in lines), errors)
