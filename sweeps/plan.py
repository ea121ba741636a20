"""The plan of a sweep, in print: cells, budgets, what differs, and which cues each K and H can credit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from muvla.config import Cell, canonical
from muvla.config.serialization import flatten
from muvla.data.store import EpisodeStore
from muvla.probes.base import Grid, ScheduledMeasurement
from muvla.training.coverage import Coverage, measure_coverage
from muvla.utils.table import text_table
from sweeps.applicability import applicability_lines, not_applicable
from sweeps.cells import StudyCell
from sweeps.contents import DAMAGED
from sweeps.contrasts import design_lines
from sweeps.costs import HEADER as COST_HEADER
from sweeps.costs import NOTE as COST_NOTE
from sweeps.costs import cost_rows
from sweeps.ledger import Entry
from sweeps.study import Study
from sweeps.union import inseparable_lines

HEADER = [
    "variant",
    "differs from the base in",
    "budget",
    "B",
    "W",
    "U",
    "warm-up",
    "F=B·W",
    "frames F·U",
    "done",
    "marked",
]
U_NOTE = "U counts optimizer steps, one per window, and is the length of the learning-rate schedule, warm-up included."
NO_K_NOTE = " A variant without recurrence has no K, and so the declared budget under every regime."
NO_DATA_NOTE = (
    "The data are not collected yet: train ids, the cost of the memories, and what each K and H can credit follow from "
    "them (`muvla collect`)"
)


def differences_from_base(base: dict[str, Any], cell: Cell) -> str:
    """`field=value` for each field in which a variant's cell differs from the flattened base."""
    fields = flatten(cell)
    changed = {name: value for name, value in fields.items() if name != "seed" and base.get(name) != value}
    if "data.mixture" in changed:
        changed["data.mixture"] = " + ".join(data.task.name for data in cell.data.mixture) or "none"
    return ", ".join(f"{name.split('.')[-1]}={value}" for name, value in changed.items()) or "nothing"


def plan_text(
    study: Study,
    entries: list[Entry] | None,
    stores: dict[str, EpisodeStore] | None,
    states: Sequence[str] | None = None,
) -> str:
    """The plan of a study as it stands: how many cells are finished, and which are marked.

    Args:
        study: the study.
        entries: every cell; None without the data, where there are no train ids and no states.
        stores: variant → its data; None without the data.
        states: the states of the entries; None reads them.
    """
    entries = entries or []
    states = [entry.state for entry in entries] if states is None else states
    cells: dict[str, StudyCell] = {item.variant: item for item in study.of_one_seed}
    seeds = ", ".join(map(str, study.seeds))
    protocols = ", ".join(f"{protocol.id} ({protocol.episodes} episodes)" for protocol in study.protocols)
    lines = [
        f"Study {study.name}: {study.title}",
        f"{len(study.variants)} variants × training seeds {seeds} = {len(study.cells())} cells",
        f"Protocols: {protocols}; interventions on every cell with memory tokens: "
        f"{', '.join(study.interventions) or 'none'}",
        *applicability_lines(not_applicable(study.cells(), study.every_intervention)),
        *_probe_lines(study),
        *design_lines(study.contrasts, len(study.contrast_pairs), len(study.seeds)),
        *inseparable_lines([study]),
        f"Declared factors: {', '.join(study.factors)}. Nothing else differs between two cells (checked).",
        "",
        text_table(HEADER, _budget_rows(study, cells, entries, states)),
    ]
    has_no_k = any(item.cell.budget.regime != "matched" and not item.cell.recurs for item in cells.values())
    lines += [U_NOTE + NO_K_NOTE if has_no_k else U_NOTE, ""]
    if not entries:
        return "\n".join([*lines, NO_DATA_NOTE])
    costs = [text_table(COST_HEADER, cost_rows(study, stores)), f"{COST_NOTE}.", ""]
    return "\n".join([*lines, *costs, *coverage_lines(entries, stores)])


def _budget_rows(
    study: Study, cells: dict[str, StudyCell], entries: list[Entry], states: Sequence[str]
) -> list[list[str]]:
    by_variant: dict[str, list[str]] = {}
    for entry, state in zip(entries, states, strict=True):
        by_variant.setdefault(entry.item.variant, []).append(state)
    rows, base = [], flatten(study.base)
    for variant in study.variants:
        cell, of_variant = cells[variant].cell, by_variant.get(variant, [])
        budget = cell.effective_budget
        rows.append(
            [
                variant,
                differences_from_base(base, cell),
                cell.budget.regime if cell.recurs else "matched",
                budget.slots,
                budget.window,
                budget.updates,
                math.ceil(cell.optimizer.warmup * budget.updates),
                budget.frames_per_update,
                f"{budget.total_frames:,}",
                f"{of_variant.count('done')}/{len(study.seeds)}" if of_variant else "–",
                ", ".join(sorted({s for s in of_variant if s in ("failed", "not a measurement", DAMAGED)})),
            ]
        )
    return rows


def _probe_lines(study: Study) -> list[str]:
    """A line for each probe, and the number of evaluations in all."""
    lines = [f"Probe {probe.id}: {_size_of(probe)}" for probe in study.probes]
    if lines:
        conditions = [len(list(study.conditions(item.cell))) for item in study.of_one_seed]
        measurements = sum(len(study.measurements_of(item.cell)) for item in study.of_one_seed)
        seeds, at_most = len(study.seeds), f"at most {max(conditions)} a cell"
        lines.append(f"Conditions in all: {seeds * sum(conditions)}, {at_most}; measurements: {seeds * measurements}")
    if study.time_to_learn is not None:
        lines.append(study.time_to_learn.plan_line(item.cell for item in study.cells()))
    if study.predictions:
        lines.append(f"Predictions: {len(study.predictions)}, registered before the first row")
    return lines


def _size_of(probe: Grid | ScheduledMeasurement) -> str:
    if isinstance(probe, Grid):
        return f"{len(probe.points)} conditions"
    return f"a measurement on {len(probe.seeds)} episodes of {probe.protocol.id}"


def coverage_lines(entries: list[Entry], stores: dict[str, EpisodeStore]) -> list[str]:
    """Which cues each K and H can credit, counted on the stream of the first training seed.

    Two lines per dataset, order and budget among the cells; for a mixture, a line on its shares and two lines per
    dataset. A last line names imports that might hold evaluation episodes.
    """
    groups: dict[tuple, list[Entry]] = {}
    for entry in entries:
        cell = canonical(entry.item.cell)
        padded = "padded " if cell.data.group_padding == "repeat" else ""
        order = f"{padded}groups of {cell.data.group}" if cell.data.order == "grouped" else cell.data.order
        groups.setdefault((cell.data.datasets, cell.data.balance, order, cell.budget), []).append(entry)
    lines = []
    for (datasets, balance, order, budget), members in groups.items():
        name = ""
        if len(groups) > 1:
            tasks = " + ".join(data.task.name for data in datasets)
            if len(datasets) > 1:
                tasks += f", by {balance}"
            name = f" ({tasks}, {order}, U={budget.updates}, B={budget.slots}, W={budget.window})"
        lines += [line + name for line in _coverage(members, stores[members[0].item.variant])]
    silent = dict.fromkeys(part.name for store in stores.values() for part in store.parts if not part.seeds)
    if silent:
        names = " + ".join(silent)
        lines.append(f"Overlap of {names} with the evaluation's episodes: unknown, as the import names no seeds")
    return lines


def _coverage(entries: list[Entry], store: EpisodeStore) -> list[str]:
    if store.knows_executed and not store.knows_phases:
        derived = {part.name: part.meta["derived"]["rule"] for part in store.parts if not part.knows_phases}
        rules = ", ".join(sorted(set(derived.values())))
        return [
            f"Cue-to-decision pairs and look-ahead share: unknown, the phases of {' + '.join(derived)} are derived by "
            f"{rules}, which does not separate cue from delay"
        ]
    if not store.knows_executed:
        unknown = " + ".join(part.name for part in store.parts if not part.knows_executed)
        return [
            f"Cue-to-decision pairs and look-ahead share: unknown, the import {unknown} has no phases",
            f"Statistics of {store.name}: of the recorded actions, as the executed actions are unknown too",
        ]
    cells = [canonical(entry.item.cell) for entry in entries]
    cell = cells[0]
    truncations = sorted({(c.block_length, c.truncation_from) for c in cells if c.recurs})
    chunks = sorted({c.model.chunk for c in cells})
    counted = measure_coverage(store, cell.data, cell.budget, cell.seed, truncations, chunks)
    if not counted.parts:
        return _counted(counted, cell.seed)
    named = dict(zip(_part_names(store), counted.parts, strict=True))
    shares = []
    for name, part in named.items():
        of_episodes = f" {part.pieces / counted.pieces:.2f} of the episodes,"
        if cell.data.order == "shuffled":  # single frames: the stream has no episodes
            of_episodes = ""
        shares.append(f"{name}{of_episodes} {part.frames / counted.frames:.2f} of the frames")
    return [
        f"Mixture balanced by {cell.data.balance}, in seed {cell.seed}'s stream: {', '.join(shares)}",
        *(f"{name}: {line}" for name, part in named.items() for line in _counted(part, cell.seed)),
    ]


def _part_names(store: EpisodeStore) -> list[str]:
    """Names for the datasets of a mixture: their tasks, or their folders where two datasets have one task."""
    tasks = [part.spec.task.name for part in store.parts]
    return tasks if len(set(tasks)) == len(tasks) else [part.name for part in store.parts]


def _counted(counted: Coverage, seed: int) -> list[str]:
    inside = []
    for (k, origin), share in counted.inside_block.items():
        blocks = f"K={k} from the episode" if origin == "episode" else f"K={k}"
        inside.append(f"{blocks} {share:.2f}")
    ahead = ", ".join(f"H={h} {share:.2f}" for h, share in counted.look_ahead.items())
    return [
        f"Cue-to-decision pairs inside one truncation block, of {counted.pairs} in seed {seed}'s stream: "
        f"{', '.join(inside) or 'no recurrent variant'}",
        f"Look-ahead share, of {counted.delay_frames} delay frames those whose chunk holds decision actions: {ahead}",
    ]
