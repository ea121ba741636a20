"""Variants over several tasks: contrasts with the unit task × training seed, aggregates, and which tasks were learned.

docs/contrasts.md says how every number is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.contrasts import p_text, stars
from analysis.frames import tidy
from analysis.learned import above_chance
from analysis.tables import NO_VALUE
from muvla.errors import MuvlaError
from muvla.evaluation.baselines import memoryless_ideal
from muvla.stats.aggregates import interquartile_mean, probability_of_improvement
from muvla.stats.hypotheses import holm, stratified_permutation_p
from muvla.stats.means import stratified_welch_interval
from sweeps.contrasts import RATES
from sweeps.study import Study
from sweeps.study_results import StudyResults

Pairs = tuple[tuple[str, str], ...]
WHAT = ("variants", "contrasts", "contrasts.primary")


@dataclass(frozen=True)
class Tasks:
    """The plain runs of one set of variants on several tasks.

    Attributes:
        rates: a line per task, variant and training seed: `analysis.frames.tidy` with the columns `task` and `learned`.
        variants: all variants, in the studies' order.
        pairs: (variant, reference) of the contrasts.
        metric: "success", "choice" or "touch".
    """

    rates: pd.DataFrame
    variants: tuple[str, ...]
    pairs: Pairs
    metric: str

    @property
    def names(self) -> list[str]:
        return list(self.rates["task"].unique()) if len(self.rates) else []

    def scores(self, variant: str) -> dict[str, np.ndarray]:
        """Task → (training seeds,) values of the metric; a task without a result is missing."""
        lines = self.rates[self.rates["variant"] == variant] if len(self.rates) else self.rates
        values = {task: part[f"{self.metric}_rate"].dropna() for task, part in _by_task(lines)}
        return {task: scores.to_numpy(float) for task, scores in values.items() if len(scores)}


def _by_task(lines: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return list(lines.groupby("task", sort=False)) if len(lines) else []


def tasks_of(read: Sequence[StudyResults]) -> Tasks:
    """The tasks of several studies: each contributes its first protocol under its own name.

    Raises:
        MuvlaError: the studies have other variants, contrasts or metrics, or only one study is given.
    """
    first = read[0].study
    if len(read) < 2:
        raise MuvlaError(
            "STUDY",
            got=f"one study, {first.name}",
            expected="at least two studies with the same variants, one task each",
            remedy=f"name the other tasks too, or report one study with `muvla report {first.name}`",
        )
    for other in (each.study for each in read[1:]):
        for what, mine, others in zip(WHAT, _declared(first), _declared(other), strict=True):
            if mine != others:
                raise MuvlaError(
                    f"study {other.name}: {what}",
                    got=others,
                    expected=f"{mine}, as in {first.name}",
                    remedy="name studies of one list of variants, or their common variants with --variant",
                )
    lines = [line for each in read if len(line := _lines(each))]
    rates = pd.concat(lines, ignore_index=True) if lines else pd.DataFrame()
    metric = first.contrasts.primary if first.contrasts.primary in RATES else "success"
    return Tasks(rates, tuple(first.variants), first.contrast_pairs, metric)


def _declared(study: Study) -> tuple[object, ...]:
    """The declarations that studies of one comparison share, in the order of WHAT."""
    return list(study.variants), list(study.contrast_pairs), study.contrasts.primary


def _lines(results: StudyResults) -> pd.DataFrame:
    rates = tidy(results.records)
    if not len(rates):
        return rates
    protocol = results.study.protocols[0]
    plain = rates[(rates["intervention"] == "none") & (rates["protocol"] == protocol.id)]
    ideal = memoryless_ideal(protocol).get("success")
    learned = above_chance(plain) if plain["choices"].any() else True
    learned = learned & (plain["success_low"] > (0 if ideal is None else ideal))
    return plain.assign(task=results.study.name, learned=learned)


def pooled_frame(tasks: Tasks) -> pd.DataFrame:
    """A line per contrast over the tasks in which both variants have two training seeds or more.

    Returns:
        Columns variant, reference, tasks, n and reference_n (task × seed), mean, reference_mean, difference, low, high
        (95 %), p, p_holm (over all planned contrasts) and improvement (probability that a seed of the variant beats a
        seed of the reference).
    """
    lines = []
    for variant, reference in tasks.pairs:
        of_variant, of_reference = tasks.scores(variant), tasks.scores(reference)
        common = [task for task in of_variant if min(len(of_variant[task]), len(of_reference.get(task, ()))) >= 2]
        if not common:
            continue
        first, second = ([scores[task] for task in common] for scores in (of_variant, of_reference))
        means = [float(np.mean([scores.mean() for scores in group])) for group in (first, second)]
        low, high = stratified_welch_interval(first, second)
        lines.append(
            {"variant": variant, "reference": reference, "tasks": len(common)}
            | {"n": sum(map(len, first)), "reference_n": sum(map(len, second))}
            | {
                "mean": means[0],
                "reference_mean": means[1],
                "difference": means[0] - means[1],
                "low": low,
                "high": high,
            }
            | {"p": stratified_permutation_p(first, second), "improvement": probability_of_improvement(first, second)}
        )
    missing = [1.0] * (len(tasks.pairs) - len(lines))
    corrected = holm([*(line["p"] for line in lines), *missing])
    return pd.DataFrame([line | {"p_holm": p} for line, p in zip(lines, corrected, strict=False)])


def aggregate_frame(tasks: Tasks) -> pd.DataFrame:
    """A line per variant: tasks, n (task × seed), mean over tasks and interquartile mean of the metric."""
    lines = []
    for variant in tasks.variants:
        scores = list(tasks.scores(variant).values())
        if scores:
            every = np.concatenate(scores)
            mean = float(np.mean([of_task.mean() for of_task in scores]))
            line = {"variant": variant, "tasks": len(scores), "n": len(every), "mean": mean}
            lines.append(line | {"iqm": float(interquartile_mean(every))})
    return pd.DataFrame(lines)


def learned_table(tasks: Tasks) -> pd.DataFrame:
    """A row per variant and a column per task: the training seeds that learned it, marked where more than half did."""
    rows = []
    for variant in tasks.variants:
        lines = tasks.rates[tasks.rates["variant"] == variant] if len(tasks.rates) else tasks.rates
        of_task = dict(_by_task(lines))
        counts = {task: of_task[task]["learned"] for task in tasks.names if task in of_task}
        entries = {task: _count_text(counts.get(task)) for task in tasks.names}
        climbed = sum(2 * int(learned.sum()) > len(learned) for learned in counts.values())
        rows.append({"variant": variant} | entries | {"tasks learned by most seeds": f"{climbed} of {len(counts)}"})
    return pd.DataFrame(rows)


def _count_text(learned: pd.Series | None) -> str:
    if learned is None:
        return NO_VALUE
    text = f"{int(learned.sum())} of {len(learned)}"
    return f"**{text}**" if 2 * int(learned.sum()) > len(learned) else text


def pooled_text(line: pd.Series) -> str:
    """For example "+0.41 [+0.35, +0.47] p < 0.001 ***", with p after Holm's correction."""
    interval = "" if math.isnan(line["low"]) else f" [{line['low']:+.2f}, {line['high']:+.2f}]"
    return f"{line['difference']:+.2f}{interval} p {p_text(line['p_holm'])} {stars(line['p_holm'])}".rstrip()
