"""`muvla ls`: list what can be named in a study or on the command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from muvla.cli import options as o
from muvla.cli.output import show_table


def add(app: typer.Typer) -> None:
    group = o.group("List tasks, protocols, variants, runs and more.")
    for function in (tasks, protocols, memories, interventions, probes, datasets, runs):
        o.verb(group, o.SYSTEM, f"muvla ls {function.__name__}")(function)
    o.verb(group, o.SYSTEM, "muvla ls variants recall_quick")(variants)
    app.add_typer(group, name="ls", rich_help_panel=o.SYSTEM)


def tasks(
    suite: Annotated[str | None, typer.Option(metavar="NAME", help="Tasks of one suite.", show_default="all")] = None,
    json: o.Json = False,
) -> None:
    """List the tasks, with the accuracy of a guess.

    `chance` is the first-choice accuracy that no policy without memory exceeds.
    """
    from muvla.envs.registry import get_suite, suites

    wanted = [get_suite(suite)] if suite else suites()
    rows = [_task(item, name) for item in wanted for name in item.tasks()]
    show_table("tasks", ("task", "suite", "chance", "expert", "instruction"), rows, "No suite is registered.")


def _task(suite, name: str) -> dict[str, Any]:
    info = suite.info(name)
    return {
        "task": name,
        "suite": info.suite,
        "chance": None if info.chance is None else round(info.chance, 3),
        "expert": "yes" if info.expert else "no",
        "instruction": info.instruction,
    }


def protocols(json: o.Json = False) -> None:
    """List the protocols, and the sets of protocols."""
    from muvla.evaluation.catalog import declared_protocols, declared_sets

    rows = [
        {
            "protocol": protocol.id,
            "task": protocol.task.name,
            "episodes": protocol.episodes,
            "regime": protocol.regime,
            "h": protocol.h,
            "hash": protocol.hash,
        }
        for protocol in declared_protocols().values()
    ]
    rows += [
        {
            "protocol": name,
            "task": f"a set of {len(several)} tasks",
            "episodes": sum(protocol.episodes for protocol in several),
            "regime": several[0].regime,
            "h": several[0].h,
            "hash": None,
        }
        for name, several in declared_sets().items()
    ]
    show_table("protocols", ("protocol", "task", "episodes", "regime", "h"), rows, "No suite declares a protocol.")


def variants(study: o.StudyName, set: o.Set = None, json: o.Json = False) -> None:
    """List the variants of a study.

    The table shows how each variant differs from the base.
    """
    from muvla.cli.studies import open_study
    from muvla.config.serialization import flatten
    from sweeps.plan import differences_from_base

    opened = open_study(study, set)
    base = flatten(opened.base)
    rows = [
        {"variant": item.variant, "differs from the base in": differences_from_base(base, item.cell)}
        for item in opened.of_one_seed
    ]
    show_table("variants", ("variant", "differs from the base in"), rows, "The study has no variant.")


def memories(json: o.Json = False) -> None:
    """List the memory mechanisms."""
    from muvla.memory.registry import MECHANISMS

    rows = [
        {"memory": name, "mechanism": MECHANISMS.places()[name], "what": first_sentence(mechanism)}
        for name, mechanism in MECHANISMS.each()
    ]
    show_table("memories", ("memory", "what", "mechanism"), rows, "No mechanism is registered.")


def interventions(json: o.Json = False) -> None:
    """List the interventions on a memory."""
    from muvla.interventions.grammar import FORM, example
    from muvla.interventions.registry import INTERVENTIONS

    rows = [
        {
            "intervention": name,
            "example": example(spec),
            "site": spec.site,
            "schedule": spec.schedule.text if spec.schedule else "every tick",
            "sham": ", ".join(spec.shams) or None,
            "effect": first_sentence(spec.function),
        }
        for name, spec in INTERVENTIONS.each()
    ]
    show_table("interventions", ("example", "site", "schedule", "sham", "effect"), rows, "None is registered.")
    print(f"\nForm of a name: {FORM}")


def first_sentence(function) -> str:
    """The first sentence of a function's docstring."""
    return " ".join((function.__doc__ or "").split()).split(". ")[0].rstrip(".")


def probes(json: o.Json = False) -> None:
    """List the probes.

    A measurement reads the model's state. A grid changes the task.
    """
    from muvla.probes.base import Measurement
    from muvla.probes.registry import PROBES, load_probe

    rows = []
    for name, probe in sorted(PROBES.each(load_probe)):
        is_measurement = isinstance(probe, Measurement)
        function = probe.read if is_measurement else probe
        rows.append(
            {"probe": name, "type": "measurement" if is_measurement else "grid", "what": first_sentence(function)}
        )
    show_table("probes", ("probe", "type", "what"), rows, "No probe is registered.")


def datasets(json: o.Json = False, data: o.Data = o.DATA_FOLDER) -> None:
    """List the finished datasets."""
    from muvla.data.store import EpisodeStore, is_sealed

    stores = [EpisodeStore(path) for path in sorted(data.glob("*")) if is_sealed(path)]
    rows = [
        {
            "dataset": store.path.name,
            "task": store.spec.task.name,
            "episodes": len(store),
            "frames": store.frames,
            "content": store.sha256[:12],
        }
        for store in stores
    ]
    empty = f"No dataset under {data}. Collect one with `muvla collect STUDY`, or import one with `muvla data import`."
    show_table("datasets", ("dataset", "task", "episodes", "frames", "content"), rows, empty)


def runs(json: o.Json = False, runs: o.Runs = o.RUNS) -> None:
    """List the runs."""
    from muvla.runs.status import run_statuses

    rows = [item.plain() for item in run_statuses(runs)]
    header = ("train", "state", "updates", "results", "task", "memory", "seed")
    show_table("runs", header, rows, f"No run under {runs}. Start one with `muvla sweep STUDY`.")
