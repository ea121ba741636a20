"""Figures of interventions and probes. Each returns a matplotlib Figure; every training seed is a mark or line of its
own, and what has not run says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.causal import with_shams
from analysis.figures import COLOURS
from analysis.paired import MARGIN
from muvla.evaluation.records import GridRows, TakenReading

MARKS = "osD^vP*X<>"  # one per training seed
QUANTITY_TITLES = {
    "choice": "choice accuracy given a touch",
    "own": "own target, of all episodes",
    "success": "success",
}
NOT_RUN = "not run"
BAND = "0.9"  # grey of the margin inside which a difference is none


def _seed_marks(seeds: list[int]) -> list[Line2D]:
    return [
        Line2D(
            [], [], marker=MARKS[i % len(MARKS)], linestyle="", color="0.3", markersize=5, label=f"training seed {seed}"
        )
        for i, seed in enumerate(seeds)
    ]


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _say_not_run(axes: Axes) -> None:
    axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", va="center", fontsize=9, color="0.4")


def _arms(frame: pd.DataFrame) -> list[str]:
    return list(frame.sort_values("order")["arm"].drop_duplicates())


def _legend(figure: Figure, handles: list, columns: int = 6) -> None:
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), columns), frameon=False, fontsize=8
    )


def paired_figure(frame: pd.DataFrame, quantity: str, title: str) -> Figure:
    """Of one protocol: the paired difference with its 90 % interval, a panel per arm, a row per intervention with its
    shams under it, a mark per training seed; a cross where no pair says anything."""
    arms, seeds = _arms(frame), sorted(frame["seed"].unique())
    names = with_shams(frame.sort_values("order")["intervention"].drop_duplicates())
    height = 1.6 + max(2.0, (0.12 + 0.09 * len(seeds)) * len(names))
    figure = Figure(figsize=(max(8.0, 2.6 + 2.3 * len(arms)), height), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, sharex=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        lines = frame[frame["arm"] == arm].set_index(["intervention", "seed"])
        axes.axvspan(-MARGIN, MARGIN, color=BAND, zorder=0)
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        for y, (name, is_sham) in enumerate(names):
            if name not in lines.index.get_level_values(0):
                axes.text(0, y, NOT_RUN, ha="center", va="center", fontsize=7, color="0.4")
                continue
            for i, seed in enumerate(seeds):
                if (name, seed) in lines.index:
                    line, at = lines.loc[(name, seed)], y + (i - (len(seeds) - 1) / 2) * 0.8 / max(1, len(seeds))
                    _difference(
                        axes, line.iloc[0] if isinstance(line, pd.DataFrame) else line, at, quantity, i, is_sham
                    )
        axes.set_title(arm, fontsize=9)
        axes.set_xlim(-1.08, 1.08)
        axes.set_xticks((-1, -0.5, 0, 0.5, 1), ("−1", "−0.5", "0", "0.5", "1"), fontsize=8)
        axes.grid(axis="x", alpha=0.25)
        _bare(axes)
    panels[0].set_yticks(range(len(names)), [f"sham: {n}" if sham else n for n, sham in names], fontsize=8)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(
        f"{title}\npaired difference of {QUANTITY_TITLES[quantity]}, with less without; bars: 90 %", fontsize=9
    )
    handles = [
        *_seed_marks(seeds),
        Line2D([], [], color=COLOURS[0], label="intervention"),
        Line2D([], [], color=COLOURS[4], label="its sham"),
        Patch(color=BAND, label=f"null: inside ±{MARGIN:.2f}"),
    ]
    if frame[f"{quantity}_difference"].isna().any():
        handles.append(Line2D([], [], marker="x", linestyle="", color="0.2", label="no pair of episodes to compare"))
    _legend(figure, handles)
    return figure


def _difference(axes: Axes, line: pd.Series, y: float, quantity: str, number: int, is_sham: bool) -> None:
    colour = COLOURS[4] if is_sham else COLOURS[0]
    if pd.isna(line[f"{quantity}_difference"]):
        axes.plot(0, y, marker="x", color=colour, markersize=4)
        return
    axes.hlines(y, line[f"{quantity}_low"], line[f"{quantity}_high"], color=colour, linewidth=1)
    axes.plot(line[f"{quantity}_difference"], y, marker=MARKS[number % len(MARKS)], color=colour, markersize=3.5)


def follow_figure(frame: pd.DataFrame, title: str) -> Figure | None:
    """Of one protocol, its interventions with donors: how often the donor's target is chosen, a column per
    intervention; filled marks under it with the 90 % interval, hollow ones in the same episodes without it."""
    donors = frame[frame["follow_n"] > 0]
    if donors.empty:
        return None
    arms, seeds = _arms(donors), sorted(donors["seed"].unique())
    names = with_shams(donors.sort_values("order")["intervention"].drop_duplicates())
    figure = Figure(figsize=(max(8.0, 1.4 + 2.1 * len(arms)), 4.4), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        lines = donors[donors["arm"] == arm]
        for _, line in lines.iterrows():
            x, i = [n for n, _ in names].index(line["intervention"]), seeds.index(line["seed"])
            colour, at = COLOURS[4] if names[x][1] else COLOURS[0], x + (i - (len(seeds) - 1) / 2) * 0.13
            mark = {"marker": MARKS[i % len(MARKS)], "color": colour, "markersize": 4, "clip_on": False}
            axes.vlines(at, line["follow_rate_low"], line["follow_rate_high"], color=colour, linewidth=1)
            axes.plot(at, line["follow_with"], **mark)
            axes.plot(at, line["follow_without"], **mark | {"markerfacecolor": "white", "alpha": 0.6})
        if pd.notna(chance := lines["chance"].iloc[0]):
            axes.axhline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
        labels = [n.replace("@", "\n@") for n, _ in names]
        axes.set_xticks(range(len(names)), labels, fontsize=7, rotation=40, ha="right")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylim(0, 1.02)
        axes.set_title(arm, fontsize=9)
        axes.grid(axis="y", alpha=0.25)
        _bare(axes)
    panels[0].set_ylabel("donor's target chosen, of all episodes", fontsize=9)
    figure.suptitle(f"{title}\nbars: 90 % Wilson intervals", fontsize=9)
    handles = [
        *_seed_marks(seeds),
        Line2D([], [], marker="o", linestyle="", color=COLOURS[0], label="intervention"),
        Line2D([], [], marker="o", linestyle="", color=COLOURS[4], label="sham"),
        Line2D(
            [], [], marker="o", linestyle="", color="0.3", markerfacecolor="white", label="same episodes without it"
        ),
        Line2D([], [], color="0.4", linestyle="--", label="chance"),
    ]
    _legend(figure, handles, 5)
    return figure


def curves_figure(frame: pd.DataFrame, grid: GridRows, arms: list[str], title: str) -> Figure:
    """A grid without second axis: a row per quantity, a panel per arm, a colour per value of `curve`, a line per
    training seed with 90 % Wilson intervals. The horizontal axis is one of names: its values stand evenly."""
    quantities = ("choice", "success") if frame["choice_n"].any() else ("success",)
    positions = {value: i for i, value in enumerate(_values(grid, grid.x))}
    curves = _values(grid, grid.curve) if grid.curve else [None]
    figure = Figure(figsize=(max(8.0, 1.2 + 2.3 * len(arms)), 1.9 + 2.2 * len(quantities)), layout="constrained")
    panels = figure.subplots(len(quantities), len(arms), sharex=True, sharey=True, squeeze=False)
    for quantity, row in zip(quantities, panels, strict=True):
        for arm, axes in zip(arms, row, strict=True):
            lines = frame[frame["arm"] == arm]
            if lines.empty:
                _say_not_run(axes)
            for i, curve in enumerate(curves):
                shown = lines if curve is None else lines[lines[grid.curve] == curve]
                for _, of_seed in shown.groupby("seed"):
                    _curve(axes, of_seed, positions, grid.x, quantity, COLOURS[i % len(COLOURS)])
            if quantity == "choice":
                bound = lines.groupby(grid.x)["chance"].first()
                at = [positions[x] for x in bound.index]
                for x, chance in zip(at, bound, strict=True):
                    axes.hlines(chance, x - 0.4, x + 0.4, color="0.4", linestyle="--", linewidth=1, zorder=0)
            axes.set_xticks(range(len(positions)), [str(x) for x in positions], fontsize=8,
                            rotation=40 if max(len(str(x)) for x in positions) > 4 else 0)  # fmt: skip
            axes.set_ylim(0, 1.02)
            axes.set_xlim(-0.5, len(positions) - 0.5)
            axes.grid(axis="y", alpha=0.25)
            _bare(axes)
        row[0].set_ylabel(QUANTITY_TITLES[quantity], fontsize=8)
    for arm, axes, last in zip(arms, panels[0], panels[-1], strict=True):
        axes.set_title(arm, fontsize=9)
        last.set_xlabel(grid.x.replace("_", " "), fontsize=8)
    figure.suptitle(f"{title}\na line per training seed; bars: 90 % Wilson intervals", fontsize=9)
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", markersize=4,
               label="all" if curve is None else f"{grid.curve.replace('_', ' ')}: {curve}")
        for i, curve in enumerate(curves)
    ]  # fmt: skip
    _legend(figure, [*handles, Line2D([], [], color="0.4", linestyle="--", label="chance without memory")], 4)
    return figure


def _curve(axes: Axes, lines: pd.DataFrame, positions: dict, x: str, quantity: str, colour: str) -> None:
    lines = lines[lines[f"{quantity}_n"] > 0].assign(at=lambda f: f[x].map(positions)).sort_values("at")
    if lines.empty:  # nothing touched anywhere; an empty line has no extent, and would upset the layout
        return
    axes.vlines(lines["at"], lines[f"{quantity}_low"], lines[f"{quantity}_high"], color=colour, linewidth=1, alpha=0.45)
    axes.plot(lines["at"], lines[f"{quantity}_rate"], color=colour, marker="o", markersize=3, linewidth=1, alpha=0.75,
              clip_on=False)  # fmt: skip


def _values(grid: GridRows, axis: str) -> list:
    """In order of size where all are numbers, else of appearance."""
    values = list(dict.fromkeys(point.coordinates[axis] for point in grid.points))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def heatmap_figure(frame: pd.DataFrame, grid: GridRows, seeds: list[int], title: str) -> Figure:
    """Of one arm, a grid with two axes: a row per value of `curve`, the mean over training seeds first and then every
    seed; a field holds the rate, a dash where nothing was touched, and nothing where it has not run."""
    quantity = "choice" if frame["choice_n"].any() else "success"
    xs, ys = _values(grid, grid.x), _values(grid, grid.y)
    curves = _values(grid, grid.curve) if grid.curve else [None]
    columns = [("mean over seeds", seeds), *((f"seed {seed}", [seed]) for seed in seeds)]
    width, height = 1.9 + (0.36 * len(xs) + 0.5) * len(columns), 1.7 + (0.3 * len(ys) + 0.45) * len(curves)
    figure = Figure(figsize=(max(7.0, width), max(3.0, height)), layout="constrained")
    panels = figure.subplots(len(curves), len(columns), sharex=True, sharey=True, squeeze=False)
    for number, (curve, row) in enumerate(zip(curves, panels, strict=True)):
        of_curve = frame if curve is None else frame[frame[grid.curve] == curve]
        for (name, wanted), axes in zip(columns, row, strict=True):
            shown = of_curve[of_curve["seed"].isin(wanted)]
            image = _field(axes, shown, grid, xs, ys, quantity)
            if number == 0:
                axes.set_title(name, fontsize=8)
            if number == len(curves) - 1:
                axes.set_xlabel(grid.x.replace("_", " "), fontsize=8)
        row[0].set_ylabel(("" if curve is None else f"{curve}\n") + grid.y.replace("_", " "), fontsize=8)
    figure.colorbar(image, ax=panels, fraction=0.02, label=QUANTITY_TITLES[quantity]).ax.tick_params(labelsize=7)
    chance = frame["chance"].iloc[0]
    bound = "" if pd.isna(chance) else f"; chance without memory {chance:.2f}"
    figure.suptitle(f"{title}\n{QUANTITY_TITLES[quantity]}{bound}", fontsize=9)
    return figure


def _field(axes: Axes, shown: pd.DataFrame, grid: GridRows, xs: list, ys: list, quantity: str):
    means = shown.groupby([grid.y, grid.x])[f"{quantity}_rate"].mean().unstack().reindex(index=ys, columns=xs)
    image = axes.imshow(means.to_numpy(float), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    run = set(zip(shown[grid.y], shown[grid.x], strict=True))
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            value = means.iloc[i, j]
            if (y, x) in run:
                text, colour = (
                    ("–", "0.2") if pd.isna(value) else (f"{value:.2f}".lstrip("0"), "w" if value < 0.6 else "k")
                )
                axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    if not run:
        _say_not_run(axes)
    axes.set_xticks(range(len(xs)), [str(x) for x in xs], fontsize=7)
    axes.set_yticks(range(len(ys)), [str(y) for y in ys], fontsize=7)
    return image


def reading_figure(frame: pd.DataFrame, one: TakenReading, arms: list[str], title: str) -> Figure:
    """A reading's frame as its columns declare: a row per curve, which have scales of their own, a panel per arm, a
    line per training seed with its interval as a band."""
    frame = frame.dropna(subset=[c for c in (one.x, one.y, one.curve) if c is not None])
    curves = list(frame[one.curve].drop_duplicates()) if one.curve else [None]
    seeds = sorted(frame["seed"].unique())
    figure = Figure(
        figsize=(max(8.0, 1.4 + 2.2 * len(arms)), 1.6 + (1.5 if len(curves) < 8 else 1.0) * max(1, len(curves))),
        layout="constrained",
    )
    panels = figure.subplots(len(curves) or 1, len(arms), sharex=True, sharey="row", squeeze=False)
    for curve, row in zip(curves, panels, strict=False):
        of_curve = frame if curve is None else frame[frame[one.curve] == curve]
        for arm, axes in zip(arms, row, strict=True):
            lines = of_curve[of_curve["arm"] == arm]
            if lines.empty:
                _say_not_run(axes)
            for seed, of_seed in lines.groupby("seed"):
                _band(axes, of_seed.sort_values(one.x), one, COLOURS[seeds.index(seed) % len(COLOURS)])
            if one.chance and not lines.empty:
                bound = lines.groupby(one.x)[one.chance].mean()
                axes.plot(bound.index, bound, color="0.4", linestyle="--", linewidth=1)
            axes.grid(alpha=0.25)
            axes.tick_params(labelsize=7)
            _bare(axes)
        row[0].set_ylabel(_wrapped(one.y if curve is None else str(curve)), fontsize=8)
    for arm, axes, last in zip(arms, panels[0], panels[-1], strict=True):
        axes.set_title(arm, fontsize=9)
        last.set_xlabel(one.x.replace("_", " "), fontsize=8)
    figure.suptitle(f"{title}\na line per training seed; bands: the reading's intervals", fontsize=9)
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=f"seed {s}") for i, s in enumerate(seeds)]
    _legend(figure, handles + [Line2D([], [], color="0.4", linestyle="--", label="chance")] * bool(one.chance))
    return figure


def chunks_figure(frame: pd.DataFrame, title: str) -> Figure:
    """Of one protocol: how far each intervention moves the predicted chunk, by step since the cue's end; a row per
    intervention with its shams under it, a panel per arm, a line per training seed."""
    names = with_shams(frame.sort_values("order")["intervention"].drop_duplicates())
    shown = frame.assign(what=frame["intervention"].map({n: f"{'sham: ' * sham}{n}" for n, sham in names}))
    ordered = pd.concat([shown[shown["intervention"] == name] for name, _ in names])
    one = TakenReading("", "", "since_cue", "value", "what", "low", "high", None, 0, Path(), "")
    of = "mean absolute difference of the predicted chunk, normalised actions, with against without"
    return reading_figure(ordered, one, _arms(frame), f"{title}\n{of}")


def _band(axes: Axes, lines: pd.DataFrame, one: TakenReading, colour: str) -> None:
    axes.plot(lines[one.x], lines[one.y], color=colour, linewidth=1.1, marker="o", markersize=2)
    if one.low and one.high:
        axes.fill_between(
            lines[one.x].astype(float), lines[one.low], lines[one.high], color=colour, alpha=0.15, linewidth=0
        )


def _wrapped(text: str, width: int = 20) -> str:
    words, lines = text.split(), [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < width else [*lines, word]
    return "\n".join(lines)


def arms_of(frames: Iterable[pd.DataFrame]) -> list[str]:
    """Of several frames, in the study's order."""
    together = pd.concat([frame[["arm", "order"]] for frame in frames])
    return _arms(together)
