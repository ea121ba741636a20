"""The tables of one study for a paper, from the frames of its results folder."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.baselines import IDEAL, NAMES
from analysis.contrasts import CONTRAST_TITLES, digits_of, stars
from analysis.frames import (
    METRIC_TITLES,
    file_stems,
    interventions_in_order,
    metric_of,
    metrics_of,
    variants_in_order,
)
from analysis.learned import above_chance
from analysis.paper.layout import PAGE, Entry, PaperTable, Row
from analysis.report.summary import Results, by_length
from analysis.shams import with_shams
from analysis.tables import NO_VALUE, entry, seed_name, seeds_of
from sweeps.contrasts import LEVEL
from sweeps.time_to_learn import METRIC

SD = "± is the standard deviation over training seeds"
STARS = "Stars: p after Holm's correction of at most 0.05 (*), 0.01 (**) and 0.001 (***)"
BOLD = "Bold: the best variant, where its planned contrast with the second best holds after Holm's correction"


def main_tables(results: Results, name: str, title: str) -> Iterator[tuple[str, PaperTable]]:
    """(file stem, table): variants, contrasts and interventions of every protocol, and times to learn, in columns.

    Args:
        results: the study's frames.
        name: the study's name, for labels.
        title: the study's title, for captions.
    """
    stems = file_stems(results.rates["protocol"])
    for protocol, lines in results.rates.groupby("protocol", sort=False):
        end = stems[protocol]
        contrasts = results.contrasts
        contrasts = contrasts[contrasts["protocol"] == protocol] if len(contrasts) else contrasts
        baselines = results.baselines
        baselines = baselines[baselines["protocol"] == protocol] if len(baselines) else baselines
        yield f"variants{end}", variant_table(lines, contrasts, baselines, f"tab:{name}-variants{end}", title)
        if len(contrasts):
            yield f"contrasts{end}", contrast_table(contrasts, f"tab:{name}-contrasts{end}", title)
        if (lines["intervention"] != "none").any():
            yield f"interventions{end}", intervention_table(lines, f"tab:{name}-interventions{end}", title)
    times = results.contrasts[results.contrasts["metric"] == METRIC] if len(results.contrasts) else results.contrasts
    if len(times):
        yield "time-to-learn", contrast_table(times, f"tab:{name}-time-to-learn", title)


def appendix_tables(results: Results, name: str, title: str) -> Iterator[PaperTable]:
    """The rates by training seed of every protocol, at the width of a page."""
    stems = file_stems(results.rates["protocol"])
    for protocol, lines in results.rates.groupby("protocol", sort=False):
        for metric in metrics_of(lines):
            shown = lines if metric == metric_of(lines) else lines[lines["intervention"] == "none"]
            label = f"tab:{name}-seeds-{metric}{stems[protocol]}"
            yield seed_table(shown, metric, label, title)


def _sentence(*parts: str) -> str:
    return ". ".join(part.rstrip(".") for part in parts if part) + "."


def _titled(title: str, rest: str) -> str:
    return f"{title} {rest}" if title.endswith("?") else f"{title}. {rest}"


def _design(lines: pd.DataFrame) -> str:
    """For example "Protocol p@1, n = 200 episodes per training seed, 5 training seeds"."""
    plain = lines[lines["intervention"] == "none"] if "intervention" in lines else lines
    n, seeds = sorted(plain["measured"].unique()), len(seeds_of(plain))
    several = "training seed" if seeds == 1 else "training seeds"
    return f"Protocol {lines['protocol'].iloc[0]}, n = {'/'.join(map(str, n))} episodes per seed, {seeds} {several}"


def spread(rates: pd.Series) -> str:
    """For example "0.72±.36", mean and standard deviation over training seeds; the mean alone for one seed."""
    rates = rates.dropna()
    if rates.empty:
        return NO_VALUE
    if len(rates) == 1:
        return f"{rates.mean():.2f}"
    return f"{rates.mean():.2f}±{rates.std():.2f}".replace("±0", "±")


def variant_table(
    lines: pd.DataFrame, contrasts: pd.DataFrame, baselines: pd.DataFrame, label: str, title: str
) -> PaperTable:
    """A row per variant: seeds above chance, mean ± sd of every metric, contrasts in the primary metric.

    Args:
        lines: tidy lines of one protocol.
        contrasts: its lines of `analysis.contrasts.contrast_frame`; may be empty.
        baselines: its lines of `analysis.baselines.baseline_frame`; may be empty.
        label: of LaTeX.
        title: the study's title.
    """
    plain = lines[lines["intervention"] == "none"]
    metrics, chooses = metrics_of(lines), metric_of(lines) == "choice"
    primary = _primary(contrasts, metrics)
    compared = contrasts[contrasts["metric"] == primary] if len(contrasts) else contrasts
    several = len(compared) > 0 and compared["reference"].nunique() > 1
    rows: list[Row] = []
    for length, of_length in by_length(plain):
        shown = compared
        if len(compared) and length is not None:
            shown = compared[compared["U"] == length]
        best = _best(of_length, shown, primary)
        block = "" if length is None else f"after {length} updates"
        for variant in variants_in_order(of_length):
            of_variant = of_length[of_length["variant"] == variant]
            cells = [_learned(of_variant)] if chooses else []
            cells += [
                Entry(spread(of_variant[f"{metric}_rate"]), bold=variant == best and metric == primary)
                for metric in metrics
            ]
            cells += [_contrast_entry(shown, variant, several)] if len(compared) else []
            rows.append(Row(variant, tuple(cells), block))
            block = ""
    width = len(rows[0].entries)
    rows += _baseline_rows(plain, baselines, metrics, chooses, width)
    means = [METRIC_TITLES[metric] for metric in metrics]
    columns = (["seeds above chance"] if chooses else []) + means + (["difference"] if len(compared) else [])
    groups = ([""] if chooses else []) + ["mean ± sd over seeds"] * len(means) + ([""] if len(compared) else [])
    caption = _sentence(_design(lines), SD, *_contrast_words(compared, primary, several))
    return PaperTable(label, _titled(title, caption), "variant", tuple(columns), tuple(rows), tuple(groups))


def _primary(contrasts: pd.DataFrame, metrics: tuple[str, ...]) -> str:
    declared = contrasts[contrasts["primary"].astype(bool)]["metric"] if len(contrasts) else []
    return next(iter(declared), metrics[-1])


def _contrast_words(compared: pd.DataFrame, primary: str, several: bool) -> list[str]:
    if not len(compared):
        return []
    if several:
        letters = _letters(compared)
        named = ", ".join(f"{letter}: {reference}" for reference, letter in letters.items())
        to = f"the reference that its letter names ({named})"
    else:
        to = compared["reference"].iloc[0]
    texts = [f"Difference: the contrast in {METRIC_TITLES[primary]} with {to}, training seeds as the unit"]
    return [*texts, STARS, BOLD] if compared["primary"].astype(bool).any() else texts


def _letters(compared: pd.DataFrame) -> dict[str, str]:
    """Reference → the letter that marks it in the table."""
    references = compared["reference"].drop_duplicates()
    return {reference: "abcdefghijklmnopqrstuvwxyz"[i % 26] for i, reference in enumerate(references)}


def _learned(lines: pd.DataFrame) -> Entry:
    return Entry(f"{int(above_chance(lines).sum())}/{len(lines)}")


def _contrast_entry(contrasts: pd.DataFrame, variant: str, several: bool) -> Entry:
    lines = contrasts[contrasts["variant"] == variant]
    letters = _letters(contrasts)
    texts = [_difference(line) + (letters[line["reference"]] if several else "") for _, line in lines.iterrows()]
    return Entry(texts[0], more=tuple(texts[1:])) if texts else Entry("")


def _difference(line: pd.Series) -> str:
    """For example "+0.67*"; stars belong to the primary family."""
    if pd.isna(line["difference"]):
        return NO_VALUE
    number = f"{line['difference']:+.{digits_of(line['metric'])}f}"
    return f"{number}{stars(line['p_holm']) if line['primary'] else ''}".replace("-", "−")


def _best(lines: pd.DataFrame, contrasts: pd.DataFrame, metric: str) -> str | None:
    """The best variant, if its planned contrast with the second best holds after Holm's correction; else None."""
    means = lines.groupby("variant", sort=False)[f"{metric}_rate"].mean().dropna().sort_values(ascending=False)
    if len(means) < 2 or not len(contrasts):
        return None
    pair = set(means.index[:2])
    planned = contrasts[[{a, b} == pair for a, b in zip(contrasts["variant"], contrasts["reference"], strict=True)]]
    holds = planned["primary"].astype(bool) & (planned["p_holm"] <= LEVEL)
    return means.index[0] if holds.any() else None


def _baseline_rows(
    plain: pd.DataFrame, baselines: pd.DataFrame, metrics: tuple[str, ...], chooses: bool, width: int
) -> list[Row]:
    """The rows of the baselines that were run, and the best score without memory where it is known."""
    rows = []
    for policy in NAMES:
        lines = baselines[baselines["policy"] == policy] if len(baselines) else baselines
        if len(lines):
            rows.append((policy, [_rate(lines.iloc[0][f"{metric}_rate"]) for metric in metrics]))
    chance = plain["chance"].iloc[0]
    if pd.notna(chance):
        rows.append((IDEAL, [_rate(chance) if metric == "choice" else NO_VALUE for metric in metrics]))
    filled = [[*([NO_VALUE] if chooses else []), *texts] for _, texts in rows]
    return [
        Row(name, tuple(map(Entry, [*texts, *[""] * (width - len(texts))])), rule=i == 0)
        for i, ((name, _), texts) in enumerate(zip(rows, filled, strict=True))
    ]


def _rate(rate: float) -> str:
    return NO_VALUE if pd.isna(rate) else f"{rate:.2f}"


def contrast_table(contrasts: pd.DataFrame, label: str, title: str) -> PaperTable:
    """A row per planned pair of the primary metric: difference, 95 % interval and p (after Holm in the
    primary family).

    Args:
        contrasts: one protocol's lines of `analysis.contrasts.contrast_frame`.
        label: of LaTeX.
        title: the study's title.
    """
    primary = _primary(contrasts, tuple(contrasts["metric"].drop_duplicates()))
    shown = contrasts[contrasts["metric"] == primary]
    rows: list[Row] = []
    for length, lines in shown.groupby("U", sort=False, dropna=False):
        block = "" if pd.isna(length) else f"after {length:.0f} updates"
        for _, line in lines.iterrows():
            difference = _difference(line)
            low, high = (f"{line[name]:+.{digits_of(line['metric'])}f}".replace("-", "−") for name in ("low", "high"))
            interval = NO_VALUE if pd.isna(line["low"]) else f"[{low}, {high}]"
            p = _p(line["p_holm"] if line["primary"] else line["p"])
            texts = [f"{line['n']} v {line['reference_n']}", difference, interval, p]
            rows.append(Row(f"{line['variant']} − {line['reference']}", tuple(map(Entry, texts)), block))
            block = ""
    planned = shown["primary"].astype(bool).any()
    test = "log-rank test" if primary == METRIC else "permutation test of means"
    protocol = contrasts["protocol"].iloc[0]
    caption = _sentence(
        f"Protocol {protocol}, contrasts in {CONTRAST_TITLES[primary]}, training seeds as the unit",
        "Intervals of 95 %: Welch, or the bootstrap from ten seeds",
        f"p: {test}{', after Holm' if planned else ''}",
        STARS if planned else "",
    )
    columns = ("seeds", "difference", "interval", "p")
    return PaperTable(label, _titled(title, caption), "contrast", columns, tuple(rows))


def _p(p: float) -> str:
    return NO_VALUE if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def intervention_table(lines: pd.DataFrame, label: str, title: str) -> PaperTable:
    """A row per intervention, shams below, and a column per variant: mean ± sd over training seeds.

    Args:
        lines: tidy lines of one protocol.
        label: of LaTeX.
        title: the study's title.
    """
    metric = metric_of(lines)
    changed = set(lines[lines["intervention"] != "none"]["variant"])
    variants = [variant for variant in variants_in_order(lines) if variant in changed]
    rows: list[Row] = []
    for length, of_length in by_length(lines[lines["variant"].isin(changed)]):
        block = "" if length is None else f"after {length} updates"
        for name, is_sham in [("none", False), *with_shams(_changing(of_length))]:
            of_name = of_length[of_length["intervention"] == name]
            texts = [_intervened(of_name[of_name["variant"] == variant], metric) for variant in variants]
            rows.append(Row(f"↳ {name}" if is_sham else name, tuple(map(Entry, texts)), block))
            block = ""
    caption = _sentence(
        f"{METRIC_TITLES[metric].capitalize()} under interventions on the memory",
        _design(lines),
        SD,
        "An indented row is the sham of the row above" if any(row.name.startswith("↳") for row in rows) else "",
    )
    return PaperTable(label, _titled(title, caption), "intervention", tuple(variants), tuple(rows))


def _changing(lines: pd.DataFrame) -> list[str]:
    return [name for name in interventions_in_order(lines) if name != "none"]


def _intervened(lines: pd.DataFrame, metric: str) -> str:
    if len(lines) and lines["never_fired"].all():
        return "never fired"
    return spread(lines[f"{metric}_rate"]) if len(lines) else NO_VALUE


def seed_table(lines: pd.DataFrame, metric: str, label: str, title: str) -> PaperTable:
    """A row per intervention and variant, a column per training seed: the rate with its 95 % Wilson interval.

    Args:
        lines: tidy lines of one protocol.
        metric: key of `analysis.frames.METRICS`.
        label: of LaTeX.
        title: the study's title.
    """
    seeds, rows = seeds_of(lines), []
    for length, of_length in by_length(lines):
        for name in interventions_in_order(of_length):
            of_name = of_length[of_length["intervention"] == name]
            texts = ["without intervention" if name == "none" else name]
            texts += [] if length is None else [f"after {length} updates"]
            block = ", ".join(texts)
            for variant in variants_in_order(of_name):
                by_seed = {line["seed"]: line for _, line in of_name[of_name["variant"] == variant].iterrows()}
                texts = [entry(by_seed[seed], metric) if seed in by_seed else "not run" for seed in seeds]
                rows.append(Row(variant, tuple(map(Entry, texts)), block))
                block = ""
    caption = _sentence(
        f"{METRIC_TITLES[metric].capitalize()} by training seed", _design(lines), "Brackets: 95 % Wilson intervals"
    )
    return PaperTable(label, _titled(title, caption), "variant", tuple(map(seed_name, seeds)), tuple(rows), width=PAGE)
