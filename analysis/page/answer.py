"""The answer of a study in sentences, made from its frames."""

from __future__ import annotations

import pandas as pd

from analysis.contrasts import CONTRAST_TITLES, digits_of, p_text
from analysis.page.content import DONE, Content
from analysis.report.summary import answers, verdict_sentence
from analysis.time_to_learn import time_sentences
from sweeps.contrasts import LEVEL

NOTHING = "No cell has finished yet, so there is no answer."


def answer(content: Content) -> list[str]:
    """Sentences in Markdown: counts of seeds, contrasts, times to learn, the first donor, verdicts, the rest."""
    if content.rates.empty:
        return [NOTHING]
    counted, *more = _of_first_protocol(content)
    learning = time_sentences(content.updates)
    sentences = [
        counted,
        *contrast_sentences(content),
        *learning,
        *[each for each in more if each.startswith("After `")][:1],
    ]
    if len(content.verdicts):
        sentences.append(verdict_sentence(content.verdicts))
    if missing := len(content.states) - content.counts[DONE]:
        sentences.append(
            f"{missing} of {len(content.states)} cells have not finished, so these sentences may still change."
        )
    return sentences


def intervention_sentences(content: Content) -> list[str]:
    """Sentences on what the seeds above chance do under interventions."""
    return _of_first_protocol(content)[1:] if len(content.rates) else []


def _of_first_protocol(content: Content) -> list[str]:
    protocol = content.protocols[0]
    lines = content.rates[content.rates["protocol"] == protocol]
    pairs = content.pairs[content.pairs["protocol"] == protocol] if len(content.pairs) else content.pairs
    return answers(lines, pairs) or [mean_sentence(lines)]


def mean_sentence(lines: pd.DataFrame) -> str:
    """The mean success of every variant, for a task without a choice."""
    plain = lines[lines["intervention"] == "none"]
    means = plain.groupby("variant", sort=False)["success_rate"].mean().dropna()
    if means.empty:
        return NOTHING
    return f"Mean success over training seeds: {', '.join(f'`{name}` {mean:.2f}' for name, mean in means.items())}."


def contrast_sentences(content: Content) -> list[str]:
    """The primary contrasts, grouped by their result: higher, lower, not told apart, not testable yet."""
    if content.contrasts.empty:
        return []
    sentences = []
    for length, lines in content.contrasts[content.contrasts["primary"]].groupby("U", sort=False, dropna=False):
        after = "" if pd.isna(length) else f" after {length:.0f} updates"
        groups: dict[str, list[str]] = {"higher": [], "lower": [], "open": [], "untested": []}
        for _, line in lines.iterrows():
            groups[_result(line)].append(_pair(line))
        metric = CONTRAST_TITLES[lines.iloc[0]["metric"]]
        texts = [f"higher for {_listed(groups['higher'])}"] if groups["higher"] else []
        texts += [f"lower for {_listed(groups['lower'])}"] if groups["lower"] else []
        texts += [f"not told apart for {_listed(groups['open'])}"] if groups["open"] else []
        subject = f"{metric[:1].upper()}{metric[1:]}{after}"
        sentences += [f"{subject} is {'; '.join(texts)}."] if texts else []
        if groups["untested"]:
            sentences.append(f"{subject} has too few seeds to compare {_listed(groups['untested'])}.")
    return sentences


def _result(line: pd.Series) -> str:
    if pd.isna(line["p_holm"]) or min(line["n"], line["reference_n"]) < 2:
        return "untested"
    if line["p_holm"] > LEVEL:
        return "open"
    return "higher" if line["difference"] > 0 else "lower"


def _pair(line: pd.Series) -> str:
    names = f"`{line['variant']}` than `{line['reference']}`"
    if _result(line) in ("open", "untested"):
        names = names.replace(" than ", " and ")
    p = "" if pd.isna(line["p_holm"]) else f", p {p_text(line['p_holm'])} after Holm"
    digits = digits_of(line["metric"])
    return f"{names} ({line['mean']:.{digits}f} v {line['reference_mean']:.{digits}f}{p})"


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
