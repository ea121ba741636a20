"""The command line's verbs on trained cells and released checkpoints: train, evaluate, watch, inspect, export."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from muvla.checkpoints.hub import checkpoint_folder
from muvla.checkpoints.inspect import inspect
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.config.sizes import get_size
from muvla.envs.registry import backends
from muvla.errors import MuvlaError
from muvla.evaluation.evaluate import require_prompts
from muvla.evaluation.protocol import get_protocol, get_protocols, require_decisions
from muvla.evaluation.records import Summary, summarise
from muvla.evaluation.replay import require_same
from muvla.evaluation.video import compose, write_video
from muvla.interventions import canonical_name
from muvla.models.compilation import compile_step
from muvla.runs.export import export
from muvla.runs.released import released_run
from muvla.runs.run import NOT_A_MEASUREMENT, Run
from muvla.runs.sanity_check import look
from muvla.training.distributed.base import Ranks
from muvla.training.options import TrainingOptions
from muvla.training.run import Progress
from muvla.training.vision_cache import require_cacheable


def run_conditions(arguments: Namespace, kinds: list[str], device: str, stop_on_signal: Callable) -> None:
    """Evaluates under every protocol and every intervention in `kinds`, and prints a line for each."""
    run = run_of(arguments)
    require_measurement(run)
    wanted = {name: get_protocols(name) for name in arguments.protocol}
    require_decisions(one for several in wanted.values() for one in several)
    kinds = [canonical_name(kind) for kind in kinds]
    for one in (one for several in wanted.values() for one in several):
        if not all(run.has_result(one, kind, without_errors=arguments.retry_errors) for kind in kinds):
            backends(one.task)  # raises for a simulator or an asset that is not there, before the first episode
    stop = stop_on_signal()
    with run.working(marks_failure=False):  # a protocol that does not fit says nothing against the cell
        policy = run.load_policy(device)
        if arguments.compile:
            compile_step(policy)
        if policy.memory.width == 0 and kinds != ["none"]:
            raise MuvlaError(
                "KIND",
                got=", ".join(kinds),
                expected="nothing: this policy has no memory",
                remedy="use `muvla evaluate`",
            )
        require_prompts(policy, [one for several in wanted.values() for one in several])
        for name, several in wanted.items():
            found: dict[str, list[Summary]] = {kind: [] for kind in kinds}
            for one in several:
                for kind in kinds:
                    rows = run.evaluate(one, kind, device, policy, stop, arguments.retry_errors, arguments.workers)
                    summary = summarise(rows)
                    found[kind].append(summary)
                    print(f"{one.id} {kind}: {summary.readings()}")
                    if summary.success_rate == 0:
                        print(*look(run, one, kind, policy, stop, arguments.workers), sep="\n")
            for kind, summaries in found.items():
                rates = [s.success_rate for s in summaries if s.success_rate is not None]
                if len(several) > 1 and rates:
                    mean = sum(rates) / len(rates)
                    print(f"{name} {kind}: mean success {mean:.3f} over {len(rates)} of {len(several)} tasks")


def watch(arguments: Namespace, device: str) -> None:
    """Runs a recorded episode again, holds it against its row and writes a video of it."""
    run, one, kind = run_of(arguments), get_protocol(arguments.protocol), canonical_name(arguments.intervention)
    require_measurement(run)
    seed = one.seed + arguments.episode
    row = next((row for row in run.result_rows(one, kind) if row.seed == seed), None)
    if row is None or row.error:
        raise MuvlaError(
            "--episode",
            got=f"{arguments.episode}, which {row.error if row else 'has no row'}",
            expected=f"an episode of {one.id} under {kind} that was measured",
            remedy=f"choose one in 0…{one.episodes - 1}, or run `muvla evaluate` or `muvla intervene` first",
        )
    policy = run.load_policy(device)
    if arguments.compile:
        compile_step(policy)
    watched, _ = run.watch(one, kind, seed, policy)
    require_same(watched, row)
    file = arguments.out or run.folder / "videos" / f"{one.id}-{kind.replace('/', '-')}-{arguments.episode}.mp4"
    write_video(compose(watched, f"{run.train}  {one.id}  {kind}  episode {arguments.episode}"), file)
    print(f"{file}: {len(watched.steps)} steps, and it ended as its row says")


def inspect_checkpoint(name: str, size_name: str | None) -> None:
    for line in inspect(checkpoint_folder(name), get_size(size_name) if size_name else None):
        print(line)


def export_run(runs: Path, data: Path, train: str, directory: Path, key: str) -> None:
    run = find_run(runs, data, train)
    require_measurement(run)
    export(run, directory, key)
    print(f"{directory}: written, and read again")


def run_of(arguments: Namespace) -> Run:
    """The run that `RUN` names: a train id, which has no slash, or a released checkpoint."""
    if "/" not in arguments.run and not Path(arguments.run).is_dir():
        _require_no_option_of_a_release(arguments)
        return find_run(arguments.runs, arguments.data, arguments.run)
    place = checkpoint_folder(arguments.run)
    directory = ReleasedCheckpoint(
        place, get_size(arguments.size) if arguments.size else None, arguments.without_memory
    )
    return released_run(
        arguments.runs, arguments.data, arguments.run, directory, arguments.statistics, arguments.precision
    )


def _require_no_option_of_a_release(arguments: Namespace) -> None:
    """A trained cell has its own scale, size, precision and memory."""
    told = {
        "--statistics": arguments.statistics,
        "--size": arguments.size,
        "--without-memory": arguments.without_memory,
        "--precision": arguments.precision != "float32",
    }
    for option, value in told.items():
        if value:
            raise MuvlaError(
                option,
                got=f"with the train id {arguments.run}",
                expected="a released checkpoint",
                remedy="leave it out; what a trained cell is, stands in its configuration",
            )


def require_measurement(run: Run) -> None:
    if (run.failure or {}).get("kind") == NOT_A_MEASUREMENT:
        raise MuvlaError(
            "RUN",
            got=f"{run.train}, marked {NOT_A_MEASUREMENT!r}",
            expected="a cell whose numbers count",
            remedy=run.way_out,
        )


def train_cells(study, ledger, device: str, options: TrainingOptions, ranks: Ranks, stop: Callable[[], bool]) -> None:
    """The cells of a `sweeps` study one after the other, by these ranks, where they have no mark."""
    if ranks.size > 1 and ":" in device:
        raise MuvlaError("--device", got=device, expected="auto, cpu or cuda", remedy="every rank takes its own GPU")
    if options.cached_vision:  # before any cell is marked
        for item in study.cells():
            require_cacheable(item.cell, ranks.size)
    ranks.on_main(lambda: ledger.stores(study) and None, long_running=True)
    with ranks.raise_together():
        stores = ledger.opened(study)
    for entry in ledger.entries(study, stores):
        if failure := ranks.on_main(lambda run=entry.run: run.failure):
            raise MuvlaError(
                entry.item.label,
                got=f"a cell marked {failure['kind']!r}",
                expected="a cell without a mark",
                remedy=entry.run.way_out,
            )
        hidden = not (ranks.is_main and sys.stderr.isatty())
        with tqdm(unit="update", disable=hidden, dynamic_ncols=True, desc=entry.item.label) as bar:

            def progress(p: Progress, bar=bar) -> None:
                bar.total, bar.n = p.updates, p.update
                bar.set_postfix_str(f"loss {p.loss:.4f}, {p.frames_per_second:.0f} frames/s")

            with entry.run.working(ranks=ranks):
                entry.run.train_cell(
                    entry.item.cell, stores[entry.item.variant], device, progress, stop, options, ranks
                )
        if ranks.is_main:
            print(f"{entry.item.label}: trained, {entry.run.folder}")


def find_run(root: Path, data: Path, prefix: str) -> Run:
    """A run by its train id or the beginning of it."""
    found = sorted(p.name for p in root.glob(f"{prefix}*") if (p / "run.json").exists())
    if len(found) != 1:
        raise MuvlaError(
            "RUN",
            got=prefix,
            expected=f"one train id under {root}" + (f", not {len(found)}" if found else ""),
            remedy="`muvla sweep STUDY --plan` lists the train ids of a study",
        )
    return Run(root, data, found[0])
