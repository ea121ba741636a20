"""`muvla tune`: search a recipe for every variant of a study."""

from __future__ import annotations

import math
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muvla.cli import options as o
from muvla.cli.sweep import Address, GpusPerCell, Launcher, Option, OptionsFile, Processes, TimeLimit, place_cells

if TYPE_CHECKING:
    from sweeps.ledger import Ledger
    from sweeps.study import Study
    from sweeps.sweep import SweepOptions
    from sweeps.tune.trials import TrialRow
    from sweeps.tune.tuning import Tuning

SEARCH = "Search"
Over = Annotated[
    list[str],
    typer.Option(
        "--over",
        metavar="FIELD=VALUES",
        help="A field to tune: LOW:HIGH, LOW:HIGH:log, or choices A,B,C; repeatable.",
        rich_help_panel=SEARCH,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(metavar="N", help="Trials per variant.", show_default="all points of a grid", rich_help_panel=SEARCH),
]
Sampler = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="sobol or grid, the same trials for every variant; or tpe, which follows each variant's results.",
        rich_help_panel=SEARCH,
    ),
]
Batch = Annotated[
    int, typer.Option(metavar="N", help="Trials per variant that tpe asks at once.", rich_help_panel=SEARCH)
]
Rungs = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="Shares of a training, such as 0.25,0.5, after which the worse trials are pruned by training loss.",
        show_default="no pruning",
        rich_help_panel=SEARCH,
    ),
]
Keep = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Share of the trials that continues after a rung.", rich_help_panel=SEARCH),
]
TuneSeeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="LIST",
        help="Training seeds of the trials; none of the study's.",
        show_default="two that the study does not use",
        rich_help_panel=SEARCH,
    ),
]
TuneProtocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="Evaluation whose success is the objective; its episodes belong to no other evaluation.",
        show_default="the study's first, on episodes for tuning",
        rich_help_panel=SEARCH,
    ),
]
Episodes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Episodes of the default protocol.",
        show_default="as the study's",
        rich_help_panel=SEARCH,
        callback=o.at_least_one("--episodes"),
    ),
]
SamplerSeed = Annotated[int, typer.Option(metavar="N", help="Seed of the sampler.", rich_help_panel=SEARCH)]
Plan = Annotated[bool, typer.Option("--plan", metavar="", help="Print the trials; run nothing.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", metavar="", help="Run failed cells again.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of the tuned study and report.", show_default="tune/STUDY in --runs"),
]


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla tune recall_quick --over optimizer.lr=1e-5:1e-3:log --trials 16 --rungs 0.25,0.5")(tune)


def tune(
    study: o.StudyName,
    over: Over,
    trials: Trials = None,
    sampler: Sampler = "sobol",
    rungs: Rungs = None,
    keep: Keep = 0.5,
    batch: Batch = 4,
    seeds: TuneSeeds = None,
    protocol: TuneProtocol = None,
    episodes: Episodes = None,
    sampler_seed: SamplerSeed = 0,
    set: o.Set = None,
    variants: o.Variants = None,
    out: Out = None,
    plan: Plan = False,
    retry_failed: RetryFailed = False,
    time_limit: TimeLimit = None,
    launcher: Launcher = "local",
    option: Option = None,
    options_file: OptionsFile = None,
    gpus_per_cell: GpusPerCell = None,
    address: Address = None,
    processes: Processes = None,
    device: o.Device = "auto",
    threads: o.Threads = 1,
    workers: o.Workers = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> int:
    """Search a recipe for every variant of a study.

    Every variant gets the same trials, on training seeds and episodes that no evaluation uses. The chosen recipes are
    written as a study, with a report. The same command continues after a stop.
    """
    from muvla.cli.studies import find_study, open_ledger, open_study
    from muvla.config.serialization import parse_assignments
    from sweeps.launchers.options import read_texts
    from sweeps.sweep import SweepOptions

    launch = read_texts(option or [], options_file, gpus_per_cell=gpus_per_cell, address=address)
    where = place_cells(launcher, launch, processes, device, threads, False)
    whole = open_study(study, set)
    searched = _tuning(whole, over, trials, sampler, batch, rungs, keep, seeds, protocol, episodes, sampler_seed)
    tuning = _narrowed(searched, variants)
    ledger, folder = open_ledger(runs, data), out or runs / "tune" / whole.name
    if plan:
        return _show_plan(tuning)

    options = SweepOptions(
        **where,
        time_limit=None if time_limit is None else 60 * time_limit,
        track=False,
        retry_failed=retry_failed,
        workers=workers,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is handled like Ctrl-C
    return _run(_Views(tuning, folder, find_study(study), _command(), parse_assignments(set or [])), ledger, options)


def _run(views: _Views, ledger: Ledger, options: SweepOptions) -> int:
    """Run the tuning, write its views, print the chosen recipes and what remains; return the exit status."""
    from muvla.cli.output import EXIT_FAILED_CELLS, show
    from muvla.utils.table import text_table
    from sweeps.tune.run import run_tuning

    tuning = views.tuning
    result = run_tuning(tuning, ledger, options, views.folder, on_stage=views.write)
    if not result.unfinished:
        views.write_study()
    names = [dimension.name for dimension in tuning.space]
    rows = [
        [variant, row.number, *(row.recipe[name] for name in names), f"{row.mean:.3f}"]
        for variant, row in views.chosen.items()
    ]
    lines = [text_table(["variant", "trial", *names, "mean success"], rows)] if rows else ["No trial is complete."]
    if result.unfinished:
        lines.append(f"Not finished: {'; '.join(result.unfinished)}. The same command continues.")
    else:
        lines.append(f"The tuned study is {views.folder / 'study.py'}; its report is {views.folder / 'report.md'}.")
    chosen = {variant: row.plain() for variant, row in views.chosen.items()}
    plain = [row.plain() for row in result.rows]
    show(
        {"study": tuning.study.name, "chosen": chosen, "trials": plain, "unfinished": result.unfinished},
        "\n".join(lines),
    )
    return EXIT_FAILED_CELLS if result.unfinished or len(views.chosen) < len(tuning.variants) else 0


def _tuning(
    study: Study,
    over: list[str],
    trials: int | None,
    sampler: str,
    batch: int,
    rungs: str | None,
    keep: float,
    seeds: str | None,
    protocol: str | None,
    episodes: int | None,
    sampler_seed: int,
) -> Tuning:
    """The tuning of the options; see `Tuning` for each of them."""
    from muvla.errors import MuvlaError
    from muvla.evaluation.catalog import get_protocol
    from sweeps.sweep import parse_seeds
    from sweeps.tune.space import parse_space
    from sweeps.tune.tuning import Tuning, default_protocol, default_seeds

    if protocol is not None and episodes is not None:
        raise MuvlaError(
            "--episodes",
            got=f"{episodes} with --protocol {protocol}",
            expected="no number where --protocol names a protocol, which has its own",
            remedy="leave one of the two out",
        )
    return Tuning(
        study=study,
        space=parse_space(study, over),
        protocol=get_protocol(protocol) if protocol else default_protocol(study, episodes),
        seeds=default_seeds(study) if seeds is None else parse_seeds(seeds),
        trials=trials,
        sampler=sampler,
        batch=batch,
        rungs=_parse_rungs(rungs),
        keep=keep,
        seed=sampler_seed,
    )


def _parse_rungs(text: str | None) -> tuple[float, ...]:
    from muvla.errors import MuvlaError

    try:
        rungs = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        rungs = (math.nan,)
    if any(math.isnan(rung) for rung in rungs):
        raise MuvlaError(
            "--rungs", got=text, expected="shares of a training, separated by commas", remedy="for example 0.25,0.5"
        )
    return rungs


def _narrowed(tuning: Tuning, variants: list[str] | None) -> Tuning:
    """The tuning of some variants; the checks against the study's seeds and episodes have used the whole study."""
    from dataclasses import replace

    return replace(tuning, study=tuning.study.narrowed(variants=tuple(variants) if variants else None))


def _command() -> str:
    """The command line of this process."""
    return shlex.join(["muvla", *sys.argv[1:]])


def _show_plan(tuning: Tuning) -> int:
    """Print the trials that are known before any result."""
    from muvla.cli.output import show
    from muvla.utils.table import text_table

    recipes = tuning.recipes([])
    first = next(iter(recipes.values()))
    names = [dimension.name for dimension in tuning.space]
    trials = len(first) if tuning.trials is None else tuning.trials
    lines = [
        f"{len(recipes)} variants × {trials} trials × training seeds {', '.join(map(str, tuning.seeds))} = "
        f"{len(recipes) * trials * len(tuning.seeds)} cells; objective: success under {tuning.protocol.id} "
        f"({tuning.protocol.episodes} episodes from seed {tuning.protocol.seed})",
    ]
    if tuning.rungs:
        shares = ", ".join(f"{rung:g}" for rung in tuning.rungs)
        lines.append(f"After {shares} of a training, the better {tuning.keep:g} of a variant's trials continue")
    if tuning.sampler == "tpe":
        lines.append("tpe draws the first batch of each variant by itself; later batches follow from the results")
    rows = [[number, *(recipe[name] for name in names)] for number, recipe in enumerate(first)]
    lines += ["", text_table(["trial", *names], rows)]
    tuning.check(tuning.study_of({f"{v} #{i}": (v, r) for v, rs in recipes.items() for i, r in enumerate(rs)}))
    show({"study": tuning.study.name, "protocol": tuning.protocol.id, "recipes": recipes}, "\n".join(lines))
    return 0


class _Views:
    """The files that follow from the rows: Optuna's journal, the report and the tuned study."""

    def __init__(self, tuning: Tuning, folder: Path, study_file: Path, command: str, changes: dict[str, Any]):
        self.tuning, self.folder, self.study_file = tuning, folder, study_file
        self.command, self.changes = command, changes
        self.chosen: dict[str, TrialRow] = {}

    def write(self, rows: list[TrialRow]) -> None:
        """Write journal and report of the rows so far."""
        from analysis.report.tuning import write_tuning_report
        from sweeps.tune.journal import JOURNAL, write_journal
        from sweeps.tune.trials import choose

        tuning = self.tuning
        best = {v: choose([row for row in rows if row.variant == v], tuning.space) for v in tuning.variants}
        self.chosen = {variant: row for variant, row in best.items() if row is not None}
        write_journal(self.folder / JOURNAL, tuning.study.name, tuning.variants, tuning.space, rows)
        write_tuning_report(self.folder, tuning, rows, self.chosen, self.command)

    def write_study(self) -> None:
        """Write the tuned study, once no trial is left."""
        from sweeps.tune.recipe import STUDY_FILE, write_recipes

        file, study, seeds = self.folder / STUDY_FILE, self.tuning.study, self.tuning.seeds
        if self.chosen:
            write_recipes(file, self.study_file, study, self.chosen, self.command, self.changes, seeds)
