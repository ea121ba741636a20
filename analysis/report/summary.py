"""A study's summary for RESULTS.md: the question, the answer in counts of training seeds, one table and one figure.

The files of a results folder are enough: `cells.csv` and, where they exist, `paired.csv`, `verdicts.csv`,
`baselines.csv` and `updates.csv`. So committed results can be summarised without their episode rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.baselines import IDEAL, NAMES
from analysis.contrasts import contrast_sentences
from analysis.figures.base import Subject
from analysis.figures.registry import get_figure
from analysis.frames import (
    METRIC_TITLES,
    NOT_APPLICABLE,
    has_several_lengths,
    interventions_in_order,
    metric_of,
    read_cells,
)
from analysis.intervention_frames import with_donors
from analysis.learned import RULE, above_chance, above_chance_counts
from analysis.shams import with_shams
from analysis.tables import NO_VALUE, identified, to_markdown
from analysis.time_to_learn import NAME as UPDATES
from analysis.time_to_learn import time_sentences
from muvla.interventions import sham_of
from muvla.utils.files import read_text
from sweeps.registration import NOT_REGISTERED
from sweeps.time_to_learn import METRIC

NUMBERS = "In tables, a rate is the median over training seeds and, in brackets, the smallest and the largest."
SIMULATED = "simulated.md"
FILES = (
    ("report.md", "report"),
    ("by-seed.md", "tables by seed"),
    ("cells.csv", "data"),
    ("published.csv", "published numbers"),
)


@dataclass(frozen=True)
class Results:
    """The frames of a results folder; a frame whose file does not exist is empty."""

    folder: Path
    rates: pd.DataFrame
    pairs: pd.DataFrame
    verdicts: pd.DataFrame
    baselines: pd.DataFrame
    contrasts: pd.DataFrame
    updates: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Results:
        rates = read_cells(folder / "cells.csv")
        return cls(
            folder,
            rates,
            _ordered(_read(folder / "paired.csv"), "variant"),
            _read(folder / "verdicts.csv"),
            _read(folder / "baselines.csv"),
            _read(folder / "contrasts.csv"),
            _ordered(_read(folder / UPDATES), "label"),
        )


def _ordered(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with column `order`: the place of its variant, or label, in the file."""
    if frame.empty:
        return frame
    order = {name: i for i, name in enumerate(frame[column].drop_duplicates())}
    return frame.assign(order=frame[column].map(order))


def _read(file: Path) -> pd.DataFrame:
    """A CSV file in which a variant may have the name "none"; an empty frame if the file does not exist."""
    return pd.read_csv(file, keep_default_na=False, na_values=["", "nan"]) if file.exists() else pd.DataFrame()


def summary_block(results: Results, name: str, title: str, links_from: Path) -> str:
    """Markdown of one study.

    Args:
        results: the study's frames.
        name: the study's name.
        title: its title or question.
        links_from: folder of the file that will hold the block.
    """
    folder = Path(os.path.relpath(results.folder, links_from))
    text = [f"## {title}", _size(results, name), ""]
    if simulated := simulated_sentences(results.folder):
        text += [simulated, ""]
    else:
        text += _answer(results, folder)
    links = [f"[{label}]({(folder / file).as_posix()})" for file, label in FILES if (results.folder / file).exists()]
    return "\n".join([*text, f"More: {', '.join(links)}.", ""])


def _answer(results: Results, folder: Path) -> list[str]:
    """The answer in sentences; where there are several training seeds, also a table for every protocol and a figure."""
    text, several = [], results.rates["seed"].nunique() > 1
    for protocol, lines in results.rates.groupby("protocol", sort=False):
        if results.rates["protocol"].nunique() > 1:
            text += [f"`{protocol}`:", ""]
        pairs = results.pairs[results.pairs["protocol"] == protocol] if len(results.pairs) else results.pairs
        of_protocol = results.contrasts[results.contrasts["protocol"] == protocol] if len(results.contrasts) else None
        sentences = [] if of_protocol is None else contrast_sentences(of_protocol)
        text += [f"- {sentence}" for sentence in [*sentences, *answers(lines, pairs)]]
        text += ["", *([to_markdown(variant_table(lines, pairs, results.baselines)), ""] if several else [])]
    text += _learning(results)
    if len(results.verdicts):
        text += [verdict_sentence(results.verdicts), ""]
    return text + _picture(results, folder) if several else text


def _learning(results: Results) -> list[str]:
    """The sentences on the time to learn, with its contrasts where they are the primary family."""
    if results.updates.empty:
        return []
    times = results.contrasts[results.contrasts["metric"] == METRIC] if len(results.contrasts) else results.contrasts
    sentences = [*time_sentences(results.updates), *(contrast_sentences(times) if len(times) else [])]
    return [*(f"- {sentence}" for sentence in sentences), ""]


def not_run_block(title: str, study: Path, links_from: Path, simulated: str = "") -> str:
    """Markdown of a study without results of a sweep.

    Args:
        title: the study's title.
        study: its README.
        links_from: folder of the file that will hold the block.
        simulated: sentences on results that need no sweep; may be empty.
    """
    link = Path(os.path.relpath(study, links_from)).as_posix()
    return " ".join([f"**Not run:** {title} [Study]({link}).", *([simulated] if simulated else [])]) + "\n"


def simulated_sentences(folder: Path) -> str:
    """Sentences on results that need no sweep, which a command of the study wrote; empty without the file."""
    file = folder / SIMULATED
    return read_text(file).strip() if file.exists() else ""


def _size(results: Results, name: str) -> str:
    seeds = sorted(results.rates["seed"].unique())
    episodes = sorted(results.rates[results.rates["intervention"] == "none"]["measured"].unique())
    count = f"{len(seeds)} training seeds" if len(seeds) > 1 else "one training seed"
    text = f"Study `{name}`: {count}, {'/'.join(map(str, episodes))} episodes per cell and condition."
    if len(seeds) == 1:
        text += (
            " One training seed is no evidence about memory: the study tests the path from demonstrations to tables."
        )
    return text


def answers(lines: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """Sentences that answer the study's question for one protocol, in counts of training seeds.

    Args:
        lines: tidy lines of one protocol.
        pairs: paired differences of the same protocol; may be empty.
    """
    if metric_of(lines) != "choice":
        return []
    sentences = []
    for length, of_length in by_length(lines):
        prefix = f"After {length} updates, " if length is not None else ""
        sentences.append(_capitalised(f"{prefix}{_counts(of_length)}"))
        sentences += _under_interventions(of_length, prefix)
    learned = lines[(lines["intervention"] == "none") & above_chance(lines)]
    return sentences + _donor_sentences(pairs, learned)


def by_length(lines: pd.DataFrame) -> list[tuple[int | None, pd.DataFrame]]:
    """(training length, lines) per length where a variant has several; else (None, all lines)."""
    return list(lines.groupby("U")) if has_several_lengths(lines) else [(None, lines)]


def _counts(lines: pd.DataFrame) -> str:
    """For example "5 of 5 training seeds are above chance for `K=8`; 0 of 5 for `none` and `K=1`."."""
    by_count: dict[tuple[int, int], list[str]] = {}
    for _, row in above_chance_counts(lines[lines["intervention"] == "none"]).iterrows():
        by_count.setdefault((row["above"], row["seeds"]), []).append(row["variant"])
    parts = []
    for (count, seeds), variants in sorted(by_count.items(), reverse=True):
        noun = "" if parts else " training seeds are above chance" if seeds > 1 else " training seed is above chance"
        parts.append(f"{count} of {seeds}{noun} for {_listed(variants)}")
    return f"{'; '.join(parts)}."


def _under_interventions(lines: pd.DataFrame, prefix: str) -> list[str]:
    """How many of the seeds above chance stay above chance under every intervention."""
    lines = lines.assign(above=above_chance(lines))
    plain = lines["intervention"] == "none"
    changed = _of_seeds(lines[~plain & ~lines["never_fired"]], lines[plain & lines["above"]])
    if changed.empty:
        return []
    by_share: dict[str, list[str]] = {}
    for name in interventions_in_order(changed):
        stays = changed[changed["intervention"] == name]["above"]
        share = "all" if stays.all() else "none" if not stays.any() else f"{int(stays.sum())} of {len(stays)}"
        by_share.setdefault(share, []).append(name)
    seeds = changed[["variant", "seed"]].drop_duplicates().shape[0]
    texts = [f"{share} under {_listed(by_share[share])}" for share in sorted(by_share, key=_share_key)]
    noun = "seed" if seeds == 1 else "seeds"
    verb = "is" if seeds == 1 else "are"
    return [
        _capitalised(f"{prefix}{seeds} {noun} with interventions {verb} above chance without them.")
        + f" Seeds that stay above chance: {'; '.join(texts)}."
    ]


def _share_key(share: str) -> float:
    """Sorts shares from all to none."""
    if share in ("all", "none"):
        return 0.0 if share == "all" else 2.0
    count, _, seeds = share.partition(" of ")
    return 1 - int(count) / int(seeds) + 0.5


def _donor_sentences(pairs: pd.DataFrame, learned: pd.DataFrame) -> list[str]:
    """The donor-following rate in the seeds above chance, and the largest effect of the shams there."""
    if pairs.empty or learned.empty:
        return []
    pairs = _of_seeds(pairs, learned)
    donors = with_donors(pairs)
    sentences = []
    for name, is_sham in with_shams(interventions_in_order(donors)):
        lines = donors[(donors["intervention"] == name) & (donors["follow_n"] > 0)]
        if is_sham or lines.empty:
            continue
        sentence = (
            f"After `{name}`, the donor's target is touched first in {spread(lines['follow_with'])} of the episodes of "
            f"these {len(lines)} seeds, against {spread(lines['follow_without'])} without it."
        )
        shams = sham_of(name, pairs["intervention"].unique())
        effects = pairs[pairs["intervention"].isin(shams)]["choice_difference"].abs()
        if effects.notna().any():
            verb = "changes" if len(shams) == 1 else "change"
            sentence += (
                f" Its {'sham' if len(shams) == 1 else 'shams'} {_listed(shams)} {verb} the "
                f"{METRIC_TITLES['choice']} by at most {effects.max():.2f}."
            )
        sentences.append(sentence)
    return sentences


def _of_seeds(lines: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """The lines of the variants and training seeds that `seeds` holds."""
    wanted = set(zip(seeds["variant"], seeds["seed"], strict=True))
    return lines[[pair in wanted for pair in zip(lines["variant"], lines["seed"], strict=True)]]


def verdict_sentence(verdicts: pd.DataFrame) -> str:
    """The verdicts over seeds, counted over predictions and variants."""
    together = verdicts.drop_duplicates(["prediction", "variant"])["together"]
    counts = together.str.split(" ").str[0].value_counts()
    texts = [f"{counts.get(word, 0)} {word}" for word in ("supported", "refuted", "undecided")]
    if undefined := int((together == NOT_APPLICABLE).sum()):
        texts.append(f"{undefined} {NOT_APPLICABLE}")
    predictions = verdicts["prediction"].nunique()
    status = verdicts.get("registration", pd.Series(NOT_REGISTERED, verdicts.index)).str.split(" 2").str[0]
    of_prediction = status[~verdicts["prediction"].duplicated()].value_counts(sort=False)
    registered = ", ".join(f"{count} {word}" for word, count in of_prediction.items())
    former = "" if "evidence" in verdicts else ", by the former rule, unanimity of training seeds"
    return (
        f"The {predictions} predictions ({registered}) give {len(together)} verdicts by "
        f"variant{former}: {', '.join(texts)}."
    )


def variant_table(lines: pd.DataFrame, pairs: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """A row per variant without intervention, and the baseline rows that are known.

    Args:
        lines: tidy lines of one protocol.
        pairs: paired differences of the same protocol; may be empty.
        baselines: the frame of baselines.csv; may be empty.

    Returns:
        Columns per training length where a variant has several. Rates are medians over training seeds.
    """
    columns = _columns(lines)
    table = None
    for length, of_length in by_length(lines):
        part = _rows(of_length, columns, f"U = {length}: " if length is not None else "")
        table = part if table is None else table.merge(part, on="variant", how="left")
    donors = with_donors(pairs) if len(pairs) else pairs
    if len(donors):
        name = interventions_in_order(donors)[0]
        rates = donors[donors["intervention"] == name].groupby("variant")["follow_with"].agg(spread)
        table[f"donor-following rate under `{name}`"] = table["variant"].map(rates)
    return pd.concat([table, _baseline_rows(lines, columns, baselines, table)], ignore_index=True).fillna(NO_VALUE)


Column = Callable[[pd.DataFrame], str]


def _columns(lines: pd.DataFrame) -> dict[str, tuple[Column, str | None]]:
    """Heading → (text of a variant's lines, metric for the baselines)."""
    success = {"success": (lambda seeds: spread(seeds["success_rate"]), "success")}
    if metric_of(lines) != "choice":
        return success
    return {
        "seeds above chance": (lambda seeds: f"{int(above_chance(seeds).sum())} of {len(seeds)}", None),
        METRIC_TITLES["choice"]: (lambda seeds: spread(seeds["choice_rate"]), "choice"),
    } | success


def _rows(lines: pd.DataFrame, columns: dict[str, tuple[Column, str | None]], prefix: str) -> pd.DataFrame:
    plain, identity = identified(lines[lines["intervention"] == "none"])
    rows = []
    for key, seeds in plain.groupby(identity, sort=False, dropna=False):
        names = dict(zip(identity, key, strict=True))
        row = {column: value if column == "variant" else str(value) for column, value in names.items()}
        rows.append(row | {prefix + heading: text(seeds) for heading, (text, _) in columns.items()})
    return pd.DataFrame(rows)


def _baseline_rows(
    lines: pd.DataFrame, columns: dict[str, tuple[Column, str | None]], baselines: pd.DataFrame, table: pd.DataFrame
) -> pd.DataFrame:
    protocol, chance = lines["protocol"].iloc[0], lines["chance"].iloc[0]
    rows = []
    for name in NAMES if len(baselines) else ():
        line = baselines[(baselines["policy"] == name) & (baselines["protocol"] == protocol)]
        if len(line):
            rates = {heading: spread(line[f"{m}_rate"]) for heading, (_, m) in columns.items() if m}
            rows.append({"variant": name} | _headed(rates, table))
    if pd.notna(chance):
        rows.append({"variant": IDEAL} | _headed({METRIC_TITLES["choice"]: f"{chance:.2f} (expected)"}, table))
    return pd.DataFrame(rows, columns=table.columns)


def _headed(entries: dict[str, str], table: pd.DataFrame) -> dict[str, str]:
    """The entries under every column that ends with their heading: one per training length."""
    return {column: text for heading, text in entries.items() for column in table.columns if column.endswith(heading)}


def spread(rates: pd.Series) -> str:
    """Median, smallest and largest of rates, "0.98 [0.90, 1.00]"; one number where all are alike to two digits."""
    rates = rates.dropna()
    if rates.empty:
        return NO_VALUE
    low, middle, high = (f"{value:.2f}" for value in (rates.min(), rates.median(), rates.max()))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _picture(results: Results, folder: Path) -> list[str]:
    """Markdown of one image: donor-following rates where donors were used, else the metric by variant."""
    for name, frame in (("follow", results.pairs), ("rates", results.rates)):
        figure, subject = get_figure(name), Subject(frame)
        if len(frame) and figure.applies(subject):
            file = f"{figure.stem(subject)}.png"
            if (results.folder / file).exists():
                return [f"![{figure.caption(subject)}]({(folder / file).as_posix()})", ""]
    return []


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


INTRODUCTION = f"""\
All text between markers is generated from the files in each study's `results` folder (`make results`).
{RULE}
{NUMBERS} Episodes are never pooled over training seeds. The last rows of a table are baselines: a random policy, the \
scripted expert and the best memoryless policy, as far as they were run or are known.
[Concepts](docs/concepts.md) defines m, K, W, H and U; [Interventions](docs/interventions.md) names the interventions.
"""
