"""Tables of rates with their intervals, one entry per training seed, as text, Markdown and LaTeX."""

from __future__ import annotations

import pandas as pd

from analysis.frames import (
    NEVER_FIRED,
    NOT_RUN,
    READING_TITLES,
    READINGS,
    has_several_lengths,
    reading_of,
    readings_of,
    variants_in_order,
)

NO_VALUE = "–"
ONLY_ERRORS = "only errors"  # a result whose every episode ended in one
BUDGET = ("B", "W", "U", "frames")  # what a table names of it where variants differ


def entry(line: pd.Series, reading: str, counts: bool = False, interval: bool = True) -> str:
    """ "0.97 [0.94, 0.99]", with `counts` "0.97 [0.94, 0.99] 194/200", without `interval` "0.97"; a dash where nothing
    was measured. Episodes that ended in an error are in no rate, and said."""
    if line.get("never_fired"):
        return NEVER_FIRED
    errors = f" (+{line['errors']} errors)" if line["errors"] else ""
    rate = line[f"{reading}_rate"]
    if pd.isna(rate):
        return NO_VALUE + errors
    text = f"{rate:.2f}" + f" [{line[f'{reading}_low']:.2f}, {line[f'{reading}_high']:.2f}]" * interval
    if counts:
        text += " {}/{}".format(*(line[name] for name in READINGS[reading]))
    return text + errors


def _by_variant(frame: pd.DataFrame) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """(identifying columns, lines) per variant, in the study's order: per training length, which is named, where a
    variant has several; else with what differs between the variants' budgets."""
    apart = has_several_lengths(frame)
    told = [column for column in BUDGET if not apart and frame[column].nunique() > 1]
    groups = []
    for u, of_length in frame.groupby("U") if apart else [(None, frame)]:
        for variant in variants_in_order(of_length):
            lines = of_length[of_length["variant"] == variant]
            budget = {column: lines[column].iloc[0] for column in told}
            groups.append((({"U": u} if apart else {}) | {"variant": variant} | budget, lines))
    return groups


def above_constant(plain: pd.DataFrame) -> str:
    """A sentence: in how many training seeds of each variant the interval of choice accuracy lies above what a constant
    choice would reach."""
    counts = []
    for name, lines in _by_variant(plain):
        above = int((lines["choice_low"] > lines["best_constant"]).sum())
        length = f"U = {name['U']}, " if has_several_lengths(plain) else ""
        counts.append(f"{length}{name['variant']}: {above} of {len(lines)}")
    return (
        "Training seeds whose whole interval of choice accuracy lies above the share of the most frequent target, "
        f"by variant: {'; '.join(counts)}."
    )


def main_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Of one protocol, without intervention: a row per variant and training seed, a column per reading."""
    plain = frame[frame["intervention"] == "none"]
    rows = []
    for name, lines in _by_variant(plain):
        for _, line in lines.sort_values("seed").iterrows():
            rows.append(
                name
                | {"seed": line["seed"], "n": line["measured"]}
                | {READING_TITLES[reading]: entry(line, reading) for reading in readings_of(frame)}
            )
    return pd.DataFrame(rows)


def by_seed(frame: pd.DataFrame, reading: str, intervention: str, counts: bool = False) -> pd.DataFrame:
    """Of one protocol: a row per variant, a column per training seed."""
    chosen = frame[frame["intervention"] == intervention]
    rows = [
        name
        | {f"seed {line['seed']}": entry(line, reading, counts) for _, line in lines.sort_values("seed").iterrows()}
        for name, lines in _by_variant(chosen)
    ]
    return pd.DataFrame(rows).fillna(NOT_RUN)


def intervention_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Of one protocol, its reading: a row per variant and training seed, a column per intervention."""
    reading = reading_of(frame)
    kinds = list(frame.sort_values("order")["intervention"].drop_duplicates())
    rows = []
    for name, of_variant in _by_variant(_touched(frame)):
        for seed, lines in of_variant.groupby("seed"):
            by_kind = {line["intervention"]: line for _, line in lines.iterrows()}
            rows.append(
                name
                | {"seed": seed}
                | {kind: entry(by_kind[kind], reading) if kind in by_kind else NOT_RUN for kind in kinds}
            )
    return pd.DataFrame(rows)


def _touched(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of variants that something intervenes on."""
    return frame[frame["variant"].isin(frame[frame["intervention"] != "none"]["variant"])]


def short_intervention_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Of one protocol, its reading: a row per intervention, a column per variant, the rates by training seed and
    nothing else. Empty without interventions."""
    reading, groups = reading_of(frame), _by_variant(_touched(frame))
    seeds = sorted(frame["seed"].unique())
    rows = []
    for kind in frame.sort_values("order", kind="stable")["intervention"].drop_duplicates() if groups else ():
        row = {"intervention": kind if kind == "none" else f"`{kind}`"}
        for name, lines in groups:
            known = lines[lines["intervention"] == kind].set_index("seed")
            label = ", ".join([name["variant"], *(f"{k} = {v}" for k, v in name.items() if k != "variant")])
            row[label] = by_seeds(
                {seed: entry(known.loc[seed], reading, interval=False) for seed in known.index}, seeds
            )
        rows.append(row)
    return pd.DataFrame(rows)


def by_seeds(entries: dict[int, str], seeds: list[int]) -> str:
    """ "0.97 / 0.94 / not run"; once what is said of every seed and is no number."""
    said = [entries.get(seed, NOT_RUN) for seed in seeds]
    return said[0] if set(said) in ({NOT_RUN}, {NEVER_FIRED}) else " / ".join(said)


def set_table(frame: pd.DataFrame, sets: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """The unweighted mean of the success rates under the protocols of each set: a row per set, variant and training
    seed, a column per intervention. One that has not every result of the set has no mean."""
    kinds = list(frame.sort_values("order")["intervention"].drop_duplicates())
    rows = []
    for one, protocols in sets.items():
        for name, of_variant in _by_variant(frame[frame["protocol"].isin(protocols)]):
            for seed, lines in of_variant.groupby("seed"):
                means = {kind: _mean_entry(lines[lines["intervention"] == kind], protocols) for kind in kinds}
                rows.append({"set": one} | name | {"seed": seed} | means)
    return pd.DataFrame(rows)


def _mean_entry(lines: pd.DataFrame, protocols: tuple[str, ...]) -> str:
    """ "0.62 over 5 (+3 errors)"; what is missing by its protocols' names, each with why: it has not run, never
    fired, or gave nothing but errors. What is so of all of them is said once."""
    measured = lines[lines["success_rate"].notna()]
    errors = f" (+{lines['errors'].sum()} errors)" if lines["errors"].any() else ""
    silent = dict(zip(lines["protocol"], lines["never_fired"], strict=True))
    missing = {
        protocol: NOT_RUN if protocol not in silent else NEVER_FIRED if silent[protocol] else ONLY_ERRORS
        for protocol in protocols
        if protocol not in set(measured["protocol"])
    }
    if len(missing) == len(protocols) and len(why := set(missing.values())) == 1:
        return f"{NO_VALUE}{errors}" if why == {ONLY_ERRORS} else why.pop()
    if missing:
        return f"{NO_VALUE} without {', '.join(f'{one} ({why})' for one, why in missing.items())}{errors}"
    return f"{measured['success_rate'].mean():.2f} over {len(protocols)}{errors}"


def to_markdown(table: pd.DataFrame) -> str:
    header = "| " + " | ".join(map(str, table.columns)) + " |"
    rule = "|" + "---|" * len(table.columns)
    rows = ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join([header, rule, *rows])


def to_text(table: pd.DataFrame) -> str:
    """For a terminal."""
    widths = [max(len(str(v)) for v in [name, *table[name]]) for name in table.columns]
    lines = [table.columns, *table.itertuples(index=False)]
    return "\n".join("  ".join(str(v).ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A booktabs table; special characters are escaped."""
    escaped = table.map(_escape).rename(columns=_escape)
    return escaped.style.hide(axis="index").to_latex(hrules=True, caption=_escape(caption), label=label)


def _escape(value: object) -> str:
    text = str(value).replace("\\", r"\textbackslash{}")
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text.replace(NO_VALUE, "--").replace("α", r"$\alpha$").replace("…", r"\dots{}")
