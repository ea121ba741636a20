"""Contrasts between variants, with the training seed as the unit: effects, intervals and tests of a tidy frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import METRIC_TITLES, has_several_lengths, metrics_of
from analysis.group_means import compare_means
from analysis.learned import above_chance, learned_contrast
from analysis.tables import NO_VALUE, to_markdown
from analysis.time_to_learn import TITLE, time_contrasts
from analysis.time_to_learn import WORDS as TIME_WORDS
from muvla.stats.hypotheses import holm, permutation_p
from muvla.stats.proportions import clopper_pearson
from sweeps.contrasts import Contrasts
from sweeps.time_to_learn import METRIC

NO_LINES = pd.DataFrame()

WORDS = (
    "A difference is the variant's mean over training seeds minus the reference's, with the 95 % interval of Welch (of "
    "the bootstrap from ten seeds) and the p of the permutation test. Stars and Holm's correction belong to the "
    "primary metric alone, and count planned contrasts that have not run."
)
CONTRAST_TITLES = METRIC_TITLES | {METRIC: TITLE}
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))  # of the primary metric after Holm's correction, alone


def contrast_frame(
    rates: pd.DataFrame,
    contrasts: Contrasts,
    pairs: tuple[tuple[str, str], ...],
    updates: pd.DataFrame = NO_LINES,
) -> pd.DataFrame:
    """A line per protocol, training length, pair of variants and metric, from plain runs.

    Args:
        rates: `analysis.frames.tidy` of the cells.
        contrasts: primary metric and test.
        pairs: (variant, reference).
        updates: `analysis.time_to_learn.update_frame` of the cells; empty without a time to learn.

    Returns:
        Columns protocol, U (nan where every variant has one), variant, reference, metric, primary, n and reference_n
        (training seeds), mean, sd, reference_mean, reference_sd, difference, low, high (95 %), p, p_holm (of the
        primary family), correlation (of equal seeds), learned, reference_learned, learned_low, learned_high (95 % of
        the difference of shares) and learned_p (Fisher). The primary family is the primary metric on the first
        protocol. Lines of the metric "time_to_learn" hold numbers of updates; their learned seeds reached the goal.
    """
    plain = rates[(rates["intervention"] == "none") & ~rates["never_fired"].astype(bool)]
    frames = []
    for number, (protocol, of_protocol) in enumerate(plain.groupby("protocol", sort=False)):
        metrics = metrics_of(of_protocol)
        primary = contrasts.primary if contrasts.primary in (*metrics, METRIC) else metrics[-1]
        for length, lines in _by_length(of_protocol):
            entries = [
                {"protocol": protocol, "U": length, "metric": metric, "primary": number == 0 and metric == primary}
                | contrast
                for metric in metrics
                for contrast in _contrasts(lines, metric, contrasts, pairs)
            ]
            frames.append(_corrected(entries, len(pairs)))
    for times in time_contrasts(updates, pairs) if len(updates) else ():
        entries = [entry | {"primary": contrasts.primary == METRIC} for entry in times]
        frames.append(_corrected(entries, len(pairs)))
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _corrected(entries: list[dict[str, Any]], planned: int) -> pd.DataFrame:
    """The lines with Holm's correction of the primary family, in which planned contrasts that lack have p = 1."""
    frame = pd.DataFrame(entries)
    if len(frame):
        family = frame["primary"]
        count = int(family.sum())
        frame["p_holm"] = math.nan
        missing = [1.0] * (planned - count) if count else []
        frame.loc[family, "p_holm"] = holm([*frame.loc[family, "p"], *missing])[:count]
    return frame


def _by_length(lines: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    """Training lengths apart, where a variant has several."""
    if not has_several_lengths(lines):
        yield math.nan, lines
        return
    yield from lines.groupby("U")


def _contrasts(
    lines: pd.DataFrame, metric: str, contrasts: Contrasts, pairs: tuple[tuple[str, str], ...]
) -> Iterator[dict[str, Any]]:
    by_variant = dict(list(lines.groupby("variant", sort=False)))
    for variant, reference in pairs:
        if variant in by_variant and reference in by_variant:
            yield _contrast(by_variant[variant], by_variant[reference], metric, contrasts) | {
                "variant": variant,
                "reference": reference,
            }


def _contrast(lines: pd.DataFrame, reference: pd.DataFrame, metric: str, contrasts: Contrasts) -> dict[str, Any]:
    first, second = (part.set_index("seed")[f"{metric}_rate"].dropna() for part in (lines, reference))
    common = first.index.intersection(second.index)
    pairing = contrasts.test
    if pairing == "paired":
        first, second = first[common], second[common]
    tested = {
        "p": permutation_p(first, second, pairing),
        "correlation": _correlation(first[common], second[common]),
    }
    return compare_means(first, second) | tested | learned_contrast(above_chance(lines), above_chance(reference))


def _correlation(first: pd.Series, second: pd.Series) -> float:
    """Correlation over equal training seeds; nan where a variant has no spread."""
    if len(first) < 3 or first.nunique() < 2 or second.nunique() < 2:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def stars(p: float) -> str:
    """`*` to `***` for a corrected p of at most 0.05, 0.01 and 0.001."""
    return next((text for limit, text in STARS if p <= limit), "")


def contrast_text(line: pd.Series) -> str:
    """For example "+0.67 [+0.62, +0.72] p 0.008 **"; p after Holm's correction for the primary metric."""
    if pd.isna(line["p"]):
        return NO_VALUE
    digits = digits_of(line["metric"])
    low, difference, high = (f"{line[name]:+.{digits}f}" for name in ("low", "difference", "high"))
    interval = "" if pd.isna(line["low"]) else f" [{low}, {high}]"
    p = line["p_holm"] if line["primary"] else line["p"]
    text = f"{difference}{interval} p {p_text(p)}"
    return f"{text} {stars(line['p_holm'])}".rstrip() if line["primary"] else text


def digits_of(metric: str) -> int:
    """Digits after the point of a metric's printed numbers: updates are whole."""
    return 0 if metric == METRIC else 2


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def mean_text(rates: pd.Series) -> str:
    """Mean ± standard deviation over training seeds; the mean alone for one seed."""
    rates = rates.dropna()
    if rates.empty:
        return NO_VALUE
    return f"{rates.mean():.2f}" if len(rates) == 1 else f"{rates.mean():.2f} ± {rates.std():.2f}"


def contrast_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One protocol and training length: a row per pair, a column per metric, and the seeds that learned."""
    rows = []
    for (variant, reference), lines in frame.groupby(["variant", "reference"], sort=False):
        first = lines.iloc[0]
        row = {"variant": variant, "reference": reference, "seeds": f"{first['n']} v {first['reference_n']}"}
        for _, line in lines.iterrows():
            row[CONTRAST_TITLES[line["metric"]]] = contrast_text(line)
        row["seeds that reached the level" if first["metric"] == METRIC else "seeds above chance"] = (
            f"{first['learned']} v {first['reference_learned']}, difference "
            f"[{first['learned_low']:+.2f}, {first['learned_high']:+.2f}], Fisher p {p_text(first['learned_p'])}"
        )
        correlation = lines[lines["metric"] == lines["metric"].iloc[-1]]["correlation"].iloc[0]
        row["correlation over seeds"] = NO_VALUE if pd.isna(correlation) else f"{correlation:+.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def contrast_sentences(frame: pd.DataFrame) -> list[str]:
    """A sentence per training length on the primary family, if a contrast has a test.

    The first protocol alone has a primary family.
    """
    sentences = []
    for length, lines in frame[frame["primary"]].groupby("U", sort=False, dropna=False):
        after = "" if pd.isna(length) else f" after {length:.0f} updates"
        if lines["p"].isna().all():
            continue
        first = lines.iloc[0]
        texts = [f"`{line['variant']}` − `{line['reference']}` {contrast_text(line)}" for _, line in lines.iterrows()]
        sentences.append(
            f"Contrasts in {CONTRAST_TITLES[first['metric']]}{after}, {first['n']} v {first['reference_n']} training "
            f"seeds, p after Holm's correction: {'; '.join(texts)}."
        )
    return sentences


def contrast_sections(frame: pd.DataFrame) -> list[str]:
    """Markdown of every contrast: a table per protocol and training length."""
    text = []
    for (protocol, length), lines in frame.groupby(["protocol", "U"], sort=False, dropna=False):
        after = "" if pd.isna(length) else f", after {length:.0f} updates"
        words = TIME_WORDS if lines["metric"].iloc[0] == METRIC else WORDS
        heading = f"Contrasts over training seeds, `{protocol}`{after}. {words}"
        text += [heading, "", to_markdown(contrast_table(lines)), ""]
    return text


def share_text(count: int, n: int) -> str:
    """Seeds with the Clopper-Pearson interval of their share, "5 of 5 [0.48, 1.00]"."""
    low, high = clopper_pearson(count, n)
    return f"{count} of {n} [{low:.2f}, {high:.2f}]"
