"""The report of a tuning: chosen recipes, every trial, the importance of the tuned fields, and slice plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from analysis.figures import style
from analysis.report.folder import save
from analysis.tables import to_markdown
from muvla.utils.io import write_atomically
from sweeps.tune.samplers import frozen_trial, quiet_optuna
from sweeps.tune.trials import COMPLETE, FAILED, PRUNED, RULE, TrialRow
from sweeps.tune.tuning import Tuning, describe_base

LEAST = 4  # complete trials for an importance
IMPORTANCE_NOTE = (
    "Share of the variance of mean success that a field explains among the complete trials of a variant (functional "
    f"ANOVA). A variant with fewer than {LEAST} complete trials, or with equal objectives, has none. Pruned and failed "
    "trials have no objective and are left out, so the shares describe the better part of the space."
)


def write_tuning_report(
    folder: Path, tuning: Tuning, rows: Sequence[TrialRow], chosen: Mapping[str, TrialRow], command: str
) -> None:
    """Writes report.md, trials.csv, and the plots as PNG and PDF.

    Args:
        folder: folder of the tuning.
        tuning: the tuning.
        rows: the trials with an outcome.
        chosen: variant → its chosen trial.
        command: the command that repeats the tuning.
    """
    shares = {v: importances(tuning, [row for row in rows if row.variant == v]) for v in tuning.variants}
    pictures = []
    if any(row.outcome == COMPLETE for row in rows):
        save(draw_slices(tuning, rows, chosen), folder, "slices")
        pictures.append("![Mean success of every trial by each tuned field](slices.png)")
    if any(shares.values()):
        save(draw_importance(tuning, shares), folder, "importance")
        pictures.append("![Importance of the tuned fields by variant](importance.png)")
    write_atomically(folder / "trials.csv", trial_frame(tuning, rows).to_csv(index=False).encode())
    text = [f"# Tuning of {tuning.study.name}", "", *_head(tuning, rows, command), "## Chosen recipes", "", RULE, ""]
    text += [_table(_chosen_frame(tuning, rows, chosen)), ""]
    text += ["## Importance", "", IMPORTANCE_NOTE, "", _table(_importance_frame(tuning, shares)), ""]
    text += [*pictures, "", "## Trials", "", _table(trial_frame(tuning, rows)), ""]
    text += [f"- {row.variant}, trial {row.number}, failed: {row.error}" for row in rows if row.outcome == FAILED]
    write_atomically(folder / "report.md", ("\n".join(text).rstrip() + "\n").encode())


def importances(tuning: Tuning, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Tuned field → its share, of one variant; empty where the trials show none."""
    complete = [row for row in rows if row.outcome == COMPLETE]
    if len(complete) < LEAST or len({row.mean for row in complete}) == 1:
        return {}
    with quiet_optuna():
        study = optuna.create_study(direction="maximize")
        study.add_trials([frozen_trial(tuning.space, row) for row in complete])
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {dimension.name: shares.get(dimension.name, 0.0) for dimension in tuning.space}


def trial_frame(tuning: Tuning, rows: Sequence[TrialRow]) -> pd.DataFrame:
    """A line per trial and variant."""
    lines = [
        {
            "variant": row.variant,
            "trial": row.number,
            **row.recipe,
            "outcome": row.outcome,
            **{f"loss at {share:g}": loss for share, loss in zip(tuning.rungs, _losses(row, tuning), strict=True)},
            **{f"success, seed {seed}": row.success.get(seed) for seed in tuning.seeds},
            "mean success": None if row.mean is None else round(row.mean, 4),
            "frames": row.frames,
        }
        for row in rows
    ]
    return pd.DataFrame(lines)


def _losses(row: TrialRow, tuning: Tuning) -> list[float | None]:
    losses = [round(loss, 5) for loss in row.losses.values()]
    return [*losses, *[None] * (len(tuning.rungs) - len(losses))]


def _head(tuning: Tuning, rows: Sequence[TrialRow], command: str) -> list[str]:
    count = {outcome: sum(row.outcome == outcome for row in rows) for outcome in (COMPLETE, PRUNED, FAILED)}
    same = "each variant asks its trials by itself" if tuning.sampler == "tpe" else "every variant has the same trials"
    last = tuning.protocol.seed + tuning.protocol.episodes - 1
    lines = [
        f"- Command: `{command}`",
        f"- Sampler: {tuning.sampler}, seed {tuning.seed}; {same}.",
        f"- Objective: mean success under {tuning.protocol.id} (hash {tuning.protocol.hash}), episode seeds "
        f"{tuning.protocol.seed} to {last}, which no evaluation uses.",
        f"- Training seeds: {', '.join(map(str, tuning.seeds))}. The study's seeds are "
        f"{', '.join(map(str, tuning.study.seeds))}.",
        f"- Trials: {count[COMPLETE]} complete, {count[PRUNED]} pruned, {count[FAILED]} failed.",
    ]
    if tuning.rungs:
        shares = ", ".join(f"{rung:g}" for rung in tuning.rungs)
        lines.append(
            f"- Rungs: after {shares} of a training the share {tuning.keep:g} of a variant's trials with the lowest "
            "training loss continues. A pruned trial is no result."
        )
    return [*lines, ""]


def _chosen_frame(tuning: Tuning, rows: Sequence[TrialRow], chosen: Mapping[str, TrialRow]) -> pd.DataFrame:
    lines = []
    for variant in tuning.variants:
        row = chosen.get(variant)
        complete = [r.mean for r in rows if r.variant == variant and r.outcome == COMPLETE]
        lines.append(
            {"variant": variant, "trial": row and row.number}
            | {dimension.name: row and row.recipe[dimension.name] for dimension in tuning.space}
            | {
                "mean success": row and round(row.mean, 4),
                "complete trials": len(complete),
                "ties": complete.count(row.mean) - 1 if row else None,
            }
        )
    base = describe_base(tuning.study, tuning.space)
    return pd.DataFrame([*lines, {"variant": "the base's values", **base}], dtype=object)


def _importance_frame(tuning: Tuning, shares: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    names = [dimension.name for dimension in tuning.space]
    return pd.DataFrame(
        [{"variant": v, **{name: round(s[name], 2) if s else None for name in names}} for v, s in shares.items()],
        dtype=object,
    )


def _table(frame: pd.DataFrame) -> str:
    return to_markdown(frame.astype(object).where(frame.notna(), "–"))


def draw_slices(tuning: Tuning, rows: Sequence[TrialRow], chosen: Mapping[str, TrialRow]) -> Drawing:
    """A panel per tuned field: mean success of every complete trial, and crosses for pruned and failed trials."""
    colours = style.assign_colours(tuning.variants)
    count = len(tuning.space)
    figure, panels = style.new_figure(3.2 * count, 4.2, 1, count, sharey=True)
    for dimension, axes in zip(tuning.space, panels[0], strict=True):
        places = {choice: i for i, choice in enumerate(dimension.choices or ())}
        for row in rows:
            value = row.recipe[dimension.name]
            x = places.get(value, value) if places else value
            _draw_trial(axes, x, row, colours[row.variant], chosen.get(row.variant) is row)
        if places:
            axes.set_xticks(list(places.values()), [str(choice) for choice in places])
        elif dimension.is_logarithmic:
            axes.set_xscale("log")
        axes.set_xlabel(dimension.name, fontsize=style.LABEL)
        axes.set_ylim(-0.12, 1.05)
        style.finish_panel(axes)
    panels[0][0].set_ylabel("mean success", fontsize=style.LABEL)
    style.set_title(figure, f"Trials of {tuning.study.name}", "A ring marks the chosen trial of each variant.")
    marks = [
        style.handle("chosen", marker="o", color="0.3", markerfacecolor="none", markersize=9),
        style.handle("pruned or failed: no objective", marker="x", color="0.3"),
    ]
    style.legend(figure, [*style.variant_handles(colours, tuning.variants), *marks])
    return figure


def _draw_trial(axes: Axes, x: float, row: TrialRow, colour: str, is_chosen: bool) -> None:
    if row.outcome != COMPLETE:
        axes.plot([x], [-0.07], "x", color=colour, markersize=style.MARK, alpha=0.6)
        return
    axes.plot([x], [row.mean], "o", color=colour, markersize=style.MARK, alpha=0.8)
    if is_chosen:
        axes.plot([x], [row.mean], "o", color=colour, markersize=9, markerfacecolor="none")


def draw_importance(tuning: Tuning, shares: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Bars: the share of every tuned field, by variant."""
    colours = style.assign_colours(tuning.variants)
    drawn = [variant for variant in tuning.variants if shares[variant]]
    figure, panels = style.new_figure(style.NARROWEST, 1.5 + 0.25 * len(drawn) * len(tuning.space), 1, 1)
    axes, height = panels[0][0], 0.8 / len(drawn)
    for i, variant in enumerate(drawn):
        positions = [j + (i - (len(drawn) - 1) / 2) * height for j in range(len(tuning.space))]
        values = [shares[variant][dimension.name] for dimension in tuning.space]
        axes.barh(positions, values, height=0.9 * height, color=colours[variant])
    axes.set_yticks(range(len(tuning.space)), [dimension.name for dimension in tuning.space])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the variance of mean success", fontsize=style.LABEL)
    style.finish_panel(axes, "x")
    style.set_title(figure, f"Importance of the tuned fields of {tuning.study.name}")
    style.legend(figure, style.variant_handles(colours, drawn))
    return figure
