"""Tidy frames and tables of what interventions change: one line per trained cell, protocol and intervention, always
beside the same episodes without it, and a sham beside what it is the sham of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import pandas as pd
from scipy.stats import t as student

from analysis.frames import NEVER_FIRED, NOT_RUN, update_rule
from analysis.paired import CONFIDENCE, Verdict, difference, over_seeds, rate, verdict
from analysis.tables import NO_VALUE, by_seeds
from muvla.evaluation.records import CellRecords, EpisodeRow, GridRows, acted, summarise
from sweeps.predictions import Prediction

QUANTITIES = ("choice", "own", "success", "follow")
# Kind → the kinds that do the same to the episode but for what is claimed.
SHAMS = {"transplant": ("transplant_same", "transplant_self"), "direction": ("orthogonal",)}
KIND = re.compile(r"[a-z_]+")


def sham_of(name: str, known: Iterable[str]) -> list[str]:
    """Those among `known` that are the shams of an intervention: of its tokens, site and schedule."""
    kind = KIND.match(name).group()
    twins = [sham + name[len(kind) :] for sham in SHAMS.get(kind, ())]
    return [twin for twin in twins if twin in set(known)]


def with_shams(names: Iterable[str]) -> list[tuple[str, bool]]:
    """(intervention, whether it is the sham of the one before), every sham after what it is the sham of."""
    names = list(names)
    shams = {name: sham_of(name, names) for name in names}
    follows = {sham for of_name in shams.values() for sham in of_name}
    return [
        entry for name in names if name not in follows for entry in [(name, False), *((s, True) for s in shams[name])]
    ]


def labelled(cells: list[CellRecords]) -> list[tuple[str, CellRecords]]:
    """Variant by name, with its training length where it has several."""
    lengths = {(cell.variant, cell.cell.budget.updates) for cell in cells}
    several = {variant for variant, count in Counter(variant for variant, _ in lengths).items() if count > 1}
    return [
        (f"{cell.variant}, U={cell.cell.budget.updates}" if cell.variant in several else cell.variant, cell)
        for cell in cells
    ]


def causal(cells: list[CellRecords]) -> pd.DataFrame:
    """Columns: variant, seed, train, U, protocol, intervention, chance; `choices`, in how many measured episodes of the
    plain run there was something to choose; shares of all measured episodes in which the first touch was of the `own`
    target, the `donor`'s, `other` or `none`, which sum to 1; and for every quantity `_n`, `_without`, `_with`,
    `_difference`, `_low`, `_high` over the pairs with the plain run; `follow_rate_low` and `_high` with the follow
    rate's own interval. Where an intervention never fired, there is no pair, and each `_text` says it.
    """
    lines = []
    for order, (variant, cell) in enumerate(labelled(cells)):
        silent = {condition: [] for condition in cell.never_fired}
        for (protocol, intervention), rows in (cell.rows | silent).items():
            plain = cell.rows.get((protocol, "none"))
            if intervention == "none" or not plain:
                continue
            line = {
                "order": order,
                "variant": variant,
                "seed": cell.cell.seed,
                "train": cell.train,
                "rule": update_rule(cell.cell),
                "U": cell.cell.budget.updates,
                "protocol": protocol,
                "intervention": intervention,
                "chance": cell.chance[protocol],
                "choices": summarise(plain).choices,
                **{f"share_{name}": share for name, share in shares(rows).items()},
            }
            for quantity in QUANTITIES:
                found = difference(plain, rows, quantity)
                line |= {
                    f"{quantity}_n": found.n,
                    f"{quantity}_without": found.first,
                    f"{quantity}_with": found.second,
                    f"{quantity}_difference": found.value,
                    f"{quantity}_low": found.low,
                    f"{quantity}_high": found.high,
                    f"{quantity}_text": found.text,
                }
            follow = rate(rows, "follow")
            line |= {"follow_rate_low": follow.low, "follow_rate_high": follow.high, "follow_rate_text": follow.text}
            never = (protocol, intervention) in silent
            line |= {"never_fired": never} | {k: NEVER_FIRED for k in line if never and k.endswith("_text")}
            lines.append(line)
    frame = pd.DataFrame(lines)
    return frame if frame.empty else frame.astype({"chance": float})


def shares(rows: list[EpisodeRow]) -> dict[str, float]:
    """Of the measured episodes in which there was something to choose. A donor of the own target is no other choice."""
    measured = [row for row in acted(rows) if row.target is not None]
    own = sum(row.choice == row.target for row in measured)
    donor = sum(row.choice == row.donor_target != row.target for row in measured)
    none = sum(row.choice == -1 for row in measured)
    counts = {"own": own, "donor": donor, "other": len(measured) - own - donor - none, "none": none}
    return {name: count / len(measured) if measured else float("nan") for name, count in counts.items()}


def difference_table(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Of one protocol: a row per variant and intervention, a sham under what it is the sham of, a column per training
    seed."""
    rows = []
    for (_, variant), lines in frame.groupby([frame["variant"].map(_order(frame)), "variant"]):
        for name, is_sham in with_shams(lines["intervention"].drop_duplicates()):
            of_name = lines[lines["intervention"] == name].sort_values("seed")
            entries = {f"seed {line['seed']}": line[f"{quantity}_text"] for _, line in of_name.iterrows()}
            rows.append({"variant": variant, "intervention": f"{'↳ sham ' * is_sham}`{name}`"} | entries)
    return pd.DataFrame(rows).fillna(NOT_RUN)


def short_difference_table(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Of one protocol: a row per intervention, a sham under what it is the sham of, a column per variant, the
    differences by training seed and nothing else."""
    seeds, rows = sorted(frame["seed"].unique()), []
    variants = sorted(frame["variant"].unique(), key=_order(frame).get)
    for name, is_sham in with_shams(frame.sort_values("order", kind="stable")["intervention"].drop_duplicates()):
        row = {"intervention": f"{'↳ sham ' * is_sham}`{name}`"}
        for variant in variants:
            lines = frame[(frame["intervention"] == name) & (frame["variant"] == variant)]
            row[variant] = by_seeds({line["seed"]: _short(line, quantity) for _, line in lines.iterrows()}, seeds)
        rows.append(row)
    return pd.DataFrame(rows)


def _short(line: pd.Series, quantity: str) -> str:
    value = line[f"{quantity}_difference"]
    return line[f"{quantity}_text"] if pd.isna(value) else f"{value:+.2f}"


def short_follow_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Of one protocol, its interventions that have donors: a row per variant and intervention, a column per training
    seed with the follow rate and its paired difference."""
    rows = []
    for (_, variant), lines in with_donors(frame).groupby([frame["variant"].map(_order(frame)), "variant"]):
        for name, is_sham in with_shams(lines["intervention"].drop_duplicates()):
            row = {"variant": variant, "intervention": f"{'↳ sham ' * is_sham}`{name}`"}
            for _, line in lines[lines["intervention"] == name].sort_values("seed").iterrows():
                known = line["follow_n"] > 0
                row[f"seed {line['seed']}"] = (
                    f"{line['follow_with']:.2f} ({line['follow_text']})" if known else line["follow_text"]
                )
            rows.append(row)
    return pd.DataFrame(rows).fillna(NOT_RUN)


def with_donors(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of interventions that had a donor in some cell."""
    return frame[frame["intervention"].isin(frame[frame["follow_n"] > 0]["intervention"])]


def follow_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Of one protocol, its interventions that have donors: follow rate, and the shares of first touches."""
    rows, donors = [], with_donors(frame)
    for (_, variant), lines in donors.groupby([donors["variant"].map(_order(frame)), "variant"]):
        for name, is_sham in with_shams(lines["intervention"].drop_duplicates()):
            for _, line in lines[lines["intervention"] == name].sort_values("seed").iterrows():
                rows.append(
                    {
                        "variant": variant,
                        "intervention": f"{'↳ sham ' * is_sham}`{name}`",
                        "seed": line["seed"],
                        "follow rate": line["follow_rate_text"],
                        "without it": _two_digits(line["follow_without"]),
                        "difference": line["follow_text"],
                        "own / donor's / other / none": NEVER_FIRED
                        if line["never_fired"]
                        else " / ".join(
                            _two_digits(line[f"share_{which}"]) for which in ("own", "donor", "other", "none")
                        ),
                    }
                )
    return pd.DataFrame(rows)


def _two_digits(value: float) -> str:
    return NO_VALUE if pd.isna(value) else f"{value:.2f}"


def _order(frame: pd.DataFrame) -> dict[str, int]:
    return frame.groupby("variant")["order"].min().to_dict()


def chunk_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """How far interventions move the predicted chunk: a line per variant, seed, protocol, intervention and step since
    the cue's end, with the mean absolute difference of normalised actions over the `n` episodes and its 90 % interval
    of Student's t (none of n = 1)."""
    lines = []
    for order, (variant, cell) in enumerate(labelled(cells)):
        for (protocol, intervention), by_step in cell.chunk_changes.items():
            for since, values in by_step.items():
                n, mean = len(values), float(values.mean())
                half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else None
                lines.append(
                    {
                        "order": order,
                        "variant": variant,
                        "seed": cell.cell.seed,
                        "protocol": protocol,
                        "intervention": intervention,
                        "since_cue": since,
                        "n": n,
                        "value": mean,
                        "low": None if half is None else mean - half,
                        "high": None if half is None else mean + half,
                    }
                )
    return pd.DataFrame(lines)


# --- predictions ------------------------------------------------------------------------------------------------------


def verdicts(cells: list[CellRecords], predictions: Iterable[Prediction]) -> pd.DataFrame:
    """A line per prediction, variant and training seed, with `together`, the verdict over the variant's seeds."""
    lines = []
    for number, one in enumerate(predictions, start=1):
        for variant in dict.fromkeys(label for label, cell in labelled(cells) if cell.variant in one.variants):
            found = [(cell, _verdict(one, cell)) for label, cell in labelled(cells) if label == variant]
            together = over_seeds(v.said for _, v in found)
            for cell, v in found:
                line = {
                    "prediction": number,
                    "text": one.text,
                    "variant": variant,
                    "seed": cell.cell.seed,
                    "verdict": v.said,
                    "together": together,
                } | {k: w for k, w in asdict(one).items() if k not in ("text", "variants")}
                line |= {f"difference_{k}": w for k, w in (asdict(v.difference) if v.difference else {}).items()}
                line |= {"difference": v.difference.text if v.difference else "", "rate": v.rate.text if v.rate else ""}
                lines.append(line)
    return pd.DataFrame(lines)


def _verdict(one: Prediction, cell: CellRecords) -> Verdict:
    rows = dict(cell.rows)
    chances = dict(cell.chance)
    silent = set(cell.never_fired)
    for grid in cell.grids:
        silent |= {(point.protocol, point.intervention) for point in grid.points if point.never_fired}
        for point in grid.points:
            rows.setdefault((point.protocol, point.intervention), point.rows)
            chances.setdefault(point.protocol, point.chance)
    protocol = one.protocol or next(iter(cell.chance))
    if silent & {(protocol, one.versus), (protocol, one.intervention)}:
        return Verdict(NEVER_FIRED)
    plain, versus, own = (rows.get((protocol, name), []) for name in ("none", one.versus, one.intervention))
    return verdict(one, plain, versus, own, chances.get(protocol))


def verdict_table(found: pd.DataFrame) -> pd.DataFrame:
    """A row per prediction and variant, a column per training seed: the verdict, and the interval that it rests on."""
    rows = []
    for (number, variant), lines in found.groupby(["prediction", "variant"], sort=False):
        first = lines.iloc[0]
        entries = {
            f"seed {line['seed']}": " ".join([line["verdict"], *_evidence(line)])
            for _, line in lines.sort_values("seed").iterrows()
        }
        rows.append(
            {"": number, "prediction": first["text"], "variant": variant, "verdict": first["together"]} | entries
        )
    return pd.DataFrame(rows).fillna(NOT_RUN)


def _evidence(line: pd.Series) -> Iterator[str]:
    if line["verdict"] in (NOT_RUN, NEVER_FIRED):
        return
    if line["expected"] in ("null", "lower", "higher", "to_chance"):
        yield line["difference"]
    if line["expected"] in ("chance", "to_chance", "above_chance"):
        yield f"({line['rate']})"


# --- grids ------------------------------------------------------------------------------------------------------------


def grid_frame(cells: list[CellRecords], id: str) -> pd.DataFrame:
    """A line per cell and point of the grid `id` that has run or never fired: variant, seed, H, protocol, condition
    (the intervention), never_fired, chance, the point's coordinates under their names; where some point has a number h,
    `held`, that it is beyond H; of every quantity but `follow` `_n`, `_rate`, `_low`, `_high` (90 %); of an
    intervention, `difference`, `_low`, `_high`, `_n`: the paired difference of what the grid is drawn by, against the
    grid's own point of that protocol without intervention. No coordinate has one of these names
    (`muvla.probes.base.RESERVED`)."""
    points = [
        (order, variant, cell, point)
        for order, (variant, cell) in enumerate(labelled(cells))
        for grid in cell.grids
        for point in grid.points
        if grid.id == id and (point.rows or point.never_fired)
    ]
    has_h = any(isinstance(point.coordinates.get("h"), int) for *_, point in points)
    drawn_by = "choice" if any(rate(point.rows, "choice").n for *_, point in points) else "success"
    plain = {(cell.train, p.protocol): p.rows for _, _, cell, p in points if p.intervention == "none"}
    lines = []
    for order, variant, cell, point in points:
        line = {
            "order": order,
            "variant": variant,
            "seed": cell.cell.seed,
            "H": cell.cell.model.chunk,
            "protocol": point.protocol,
            "condition": point.intervention,
            "never_fired": point.never_fired,
            "chance": point.chance,
            **point.coordinates,
        }
        if has_h:
            h = point.coordinates.get("h")
            line["held"] = isinstance(h, int) and h > cell.cell.model.chunk
        for quantity in ("choice", "own", "success"):
            found = rate(point.rows, quantity)
            line |= {
                f"{quantity}_n": found.n,
                f"{quantity}_rate": found.value,
                f"{quantity}_low": found.low,
                f"{quantity}_high": found.high,
            }
        known = plain.get((cell.train, point.protocol)) if point.intervention != "none" else None
        found = difference(known or [], point.rows, drawn_by)
        line |= {
            "difference": found.value,
            "difference_low": found.low,
            "difference_high": found.high,
            "difference_n": found.n,
        }
        lines.append(line)
    frame = pd.DataFrame(lines)
    return frame if frame.empty else frame.astype({"chance": float})


def grids(cells: list[CellRecords]) -> dict[str, GridRows]:
    """Every grid among the probes, once."""
    return {grid.id: grid for cell in cells for grid in cell.grids}


def readings(cells: list[CellRecords]) -> dict[tuple[str, str], pd.DataFrame]:
    """(probe id, protocol id) → the frames of all cells that have it, with columns variant, seed and order."""
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for order, (variant, cell) in enumerate(labelled(cells)):
        for one in cell.readings:
            frame = pd.read_csv(one.file).assign(variant=variant, seed=cell.cell.seed, order=order)
            found.setdefault((one.id, one.protocol), []).append(frame)
    return {key: pd.concat(frames, ignore_index=True) for key, frames in found.items()}
