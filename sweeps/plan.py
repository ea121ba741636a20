"""What a sweep is about to do, in print: cells, budgets, what differs, and what each K and H can credit."""

from __future__ import annotations

import math

from muvla.config import Cell, canonical
from muvla.config.serialization import flatten
from muvla.data.store import EpisodeStore
from muvla.probes.base import Grid
from muvla.training.coverage import Coverage, coverage
from sweeps.ledger import Entry
from sweeps.study import Study, StudyCell, conditions, reads

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
NO_K = " Without recurrence there is no K: such variants have the declared budget under every regime."


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned by their widest entry."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def differences_from_base(study: Study, cell: Cell) -> str:
    """The variant's own fields that are not the base's, `field=value`."""
    base, own = flatten(study.base), flatten(cell)
    changed = {k: v for k, v in own.items() if k != "seed" and base[k] != v}
    if "data.mixture" in changed:
        changed["data.mixture"] = " + ".join(one.task.name for one in cell.data.mixture) or "none"
    return ", ".join(f"{k.split('.')[-1]}={v}" for k, v in changed.items()) or "nothing"


def plan_text(study: Study, entries: list[Entry] | None, stores: dict[str, EpisodeStore] | None) -> str:
    """The plan of a study as it stands: finished cells are skipped, marked ones named. Without its data there are no
    train ids yet, and so no states."""
    states: dict[str, list[str]] = {}
    for entry in entries or []:
        states.setdefault(entry.item.variant, []).append(entry.state)
    cells: dict[str, StudyCell] = {item.variant: item for item in reversed(study.cells())}
    rows = []
    for variant in study.variants:
        cell, of_variant = cells[variant].cell, states.get(variant, [])
        budget = cell.effective_budget
        rows.append(
            [
                variant,
                differences_from_base(study, cell),
                cell.budget.regime if cell.recurs else "matched",
                budget.slots,
                budget.window,
                budget.updates,
                math.ceil(cell.optimizer.warmup * budget.updates),
                budget.frames_per_update,
                f"{budget.total_frames:,}",
                f"{of_variant.count('done')}/{len(study.seeds)}" if of_variant else "–",
                ", ".join(sorted({s for s in of_variant if s in ("failed", "not a measurement")})),
            ]
        )
    lines = [
        f"Study {study.name}: {study.title}",
        f"{len(study.variants)} variants × training seeds {', '.join(map(str, study.seeds))} = "
        f"{len(study.cells())} cells",
        f"Protocols: {', '.join(f'{p.id} ({p.episodes} episodes)' for p in study.protocols)}; interventions on every "
        f"cell with memory tokens: {', '.join(study.interventions) or 'none'}",
        *_probe_lines(study),
        f"Declared factors: {', '.join(study.factors)}. Nothing else differs between two cells (checked).",
        "",
        text_table(HEADER, rows),
        "U counts optimizer steps, one per window, and is the length of the learning-rate schedule, warm-up included."
        + NO_K * any(item.cell.budget.regime != "matched" and not item.cell.recurs for item in cells.values()),
        "",
        *(
            coverage_lines(entries, stores)
            if entries
            else [
                "The data are not collected yet: train ids and what each K "
                "and H can credit follow from them (`muvla collect`)"
            ]
        ),
    ]
    return "\n".join(lines)


def _probe_lines(study: Study) -> list[str]:
    """What the probes add, and how much every cell is evaluated in all."""
    lines = [
        f"Probe {one.id}: "
        + (
            f"{len(one.points)} conditions"
            if isinstance(one, Grid)
            else f"a reading of {len(one.seeds)} episodes of {one.protocol.id}"
        )
        for one in study.probes
    ]
    if lines:
        counts = [len(list(conditions(study, item.cell))) for item in study.cells()]
        cells = [len(reads(study, item.cell)) for item in study.cells()]
        lines.append(f"Conditions in all: {sum(counts)}, at most {max(counts)} a cell; readings: {sum(cells)}")
    return lines + [f"Predictions, written before the run: {len(study.predictions)}"] * bool(study.predictions)


def coverage_lines(entries: list[Entry], stores: dict[str, EpisodeStore]) -> list[str]:
    """Two lines per dataset, order and budget among the cells, counted on the first of its training seeds' streams; of
    a mixture, a line on its shares and two per dataset of it. And one on imports that might hold what is evaluated."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in entries:
        cell = canonical(entry.item.cell)
        order = f"groups of {cell.data.group}" if cell.data.order == "grouped" else cell.data.order
        groups.setdefault((cell.data.datasets, cell.data.balance, order, cell.budget), []).append(entry)
    lines = []
    for (datasets, balance, order, budget), members in groups.items():
        tasks = " + ".join(one.task.name for one in datasets) + f", by {balance}" * (len(datasets) > 1)
        name = f" ({tasks}, {order}, U={budget.updates}, B={budget.slots}, W={budget.window})" * (len(groups) > 1)
        lines += [line + name for line in _coverage(members, stores[members[0].item.variant])]
    silent = dict.fromkeys(part.name for store in stores.values() for part in store.parts if not part.seeds)
    unknown = f"Overlap of {' + '.join(silent)} with the evaluation's episodes: unknown, as no seeds are told"
    return lines + [unknown] * bool(silent)


def _coverage(entries: list[Entry], store: EpisodeStore) -> list[str]:
    if store.knows_executed and not store.knows_phases:
        derived = {part.name: part.meta["derived"]["rule"] for part in store.parts if not part.knows_phases}
        return [
            f"Cue-to-decision pairs and look-ahead share: unknown, the phases of {' + '.join(derived)} are derived by "
            f"{', '.join(sorted(set(derived.values())))}, which does not tell cue from delay"
        ]
    if not store.knows_executed:
        unknown = " + ".join(part.name for part in store.parts if not part.knows_executed)
        return [
            f"Cue-to-decision pairs and look-ahead share: unknown, the imported {unknown} tells no phases",
            f"Statistics of {store.name}: of the recorded actions, as what was executed is unknown too",
        ]
    cells = [canonical(entry.item.cell) for entry in entries]
    cell = cells[0]
    truncations = sorted({(c.truncation, c.truncation_from) for c in cells if c.recurs})
    chunks = sorted({c.model.chunk for c in cells})
    counted = coverage(store, cell.data, cell.budget, cell.seed, truncations, chunks)
    if not counted.parts:
        return _counted(counted, cell.seed)
    named = dict(zip(_part_names(store), counted.parts, strict=True))
    # Single frames are no episodes: of them there are the frames alone.
    shares = ", ".join(
        name
        + f" {part.pieces / counted.pieces:.2f} of the episodes," * (cell.data.order != "shuffled")
        + f" {part.frames / counted.frames:.2f} of the frames"
        for name, part in named.items()
    )
    return [
        f"Mixture balanced by {cell.data.balance}, in seed {cell.seed}'s stream: {shares}",
        *(f"{name}: {line}" for name, part in named.items() for line in _counted(part, cell.seed)),
    ]


def _part_names(store: EpisodeStore) -> list[str]:
    """Of a mixture's datasets: their tasks, or where two have one task, their folders."""
    tasks = [part.spec.task.name for part in store.parts]
    return tasks if len(set(tasks)) == len(tasks) else [part.name for part in store.parts]


def _counted(counted: Coverage, seed: int) -> list[str]:
    inside = ", ".join(
        f"K={k}{' from the episode' * (origin == 'episode')} {share:.2f}"
        for (k, origin), share in counted.inside_block.items()
    )
    ahead = ", ".join(f"H={h} {share:.2f}" for h, share in counted.look_ahead.items())
    return [
        f"Cue-to-decision pairs inside one truncation block, of {counted.pairs} in seed {seed}'s stream: "
        f"{inside or 'no recurrent variant'}",
        f"Look-ahead share, of {counted.delay_frames} delay frames those whose chunk holds decision actions: {ahead}",
    ]
