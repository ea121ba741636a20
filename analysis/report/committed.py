"""Summaries and figures of committed results, without run folders: `python -m analysis.report.committed --help`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.by_seed import NAME as BY_SEED
from analysis.by_seed import by_seed_file
from analysis.contrasts import contrast_frame
from analysis.costs import cost_frame
from analysis.figures.base import FrameName, Subject
from analysis.figures.style import assign_colours
from analysis.frames import file_names, file_stems, labels_of, read_cells
from analysis.paper.folder import write_paper
from analysis.published import beside
from analysis.report.folder import ReportFolder
from analysis.report.interventions import WORDS
from analysis.report.markers import write_between_markers
from analysis.report.summary import INTRODUCTION, Results, not_run_block, simulated_sentences, summary_block
from analysis.time_to_learn import drawn_lines
from muvla.evaluation.records import GridPoint, GridRows, TakenMeasurement
from muvla.interventions.grammar import canonical_name
from muvla.probes.base import Grid, ScheduledMeasurement
from sweeps.applicability import not_applicable
from sweeps.loader import load_study
from sweeps.study import Study


def main(arguments: list[str] | None = None) -> None:
    """Writes the blocks of RESULTS.md and the tables for a paper; with `--draw` also figures and tables by seed."""
    parser = argparse.ArgumentParser(description="Summarise committed results.")
    parser.add_argument("study", nargs="+", type=Path, help="study file or folder; FILE:FOLDER names its results")
    parser.add_argument("--results", type=Path, default=Path("RESULTS.md"), help="file of the summaries (%(default)s)")
    parser.add_argument("--draw", action="store_true", help="also write the figures and the tables by seed again")
    options = parser.parse_args(arguments)
    write_between_markers(options.results, "introduction", INTRODUCTION)
    for text in options.study:
        path, _, name = str(text).partition(":")
        study, place = load_study(Path(path)), Path(path)
        home = place if place.is_dir() else place.parent
        folder = home / (name or "results")
        if not (folder / "cells.csv").exists():
            simulated = simulated_sentences(folder)
            block = not_run_block(study.title, home / "README.md", options.results.parent, simulated)
        else:
            write_contrasts(study, folder)
            write_published(study, folder)
            write_paper(folder, study.name, study.title)
            if options.draw:
                draw(study, folder)
            block = summary_block(Results.read(folder), study.name, study.title, options.results.parent)
        write_between_markers(options.results, study.name, block)


def write_contrasts(study: Study, path: Path) -> None:
    """Writes contrasts.csv from cells.csv and, where it exists, updates.csv."""
    results = Results.read(path)
    frame = contrast_frame(results.rates, study.contrasts, study.contrast_pairs, results.updates)
    if len(frame):
        ReportFolder(path, study.title, {}, print).write_csv("contrasts.csv", frame)


def write_published(study: Study, path: Path) -> None:
    """Writes published.csv from cells.csv, where a task of the study has published numbers."""
    frame = beside(read_cells(path / "cells.csv"), study.protocols)
    if len(frame):
        ReportFolder(path, study.title, {}, print).write_csv("published.csv", frame)


def draw(study: Study, path: Path) -> None:
    """Writes by-seed.md and every figure whose frame is a CSV file of the folder."""
    results = Results.read(path)
    folder = ReportFolder(path, study.title, _colours(results), print, _undefined(study, results))
    folder.write(BY_SEED, by_seed_file(results.rates, results.pairs, study.title, WORDS))
    for name, subject in subjects(study, path):
        folder.pictures(name, subject)


def subjects(study: Study, path: Path) -> Iterator[tuple[FrameName, Subject]]:
    """(frame, subject) of every figure that the CSV files of a results folder hold the lines of.

    Args:
        study: the study, which declares the probes.
        path: its results folder.
    """
    results = Results.read(path)
    colours = _colours(results)
    frames: dict[FrameName, pd.DataFrame] = {"rates": results.rates, "paired": results.pairs}
    frames["updates"] = drawn_lines(results.updates) if len(results.updates) else results.updates
    frames |= {name: _with_order(path / f"{name}.csv", colours) for name in ("delays", "chunks")}
    costs = path / "costs.csv"
    if costs.exists():
        frames["costs"] = cost_frame(results.rates, pd.read_csv(costs, dtype=str, keep_default_na=False))
    given = [(name, subject) for name, frame in frames.items() for subject in _by_protocol(frame)]
    for name, subject in [*given, *_probe_subjects(study, path, colours)]:
        yield name, replace(subject, study=study.title, colours=colours, undefined=_undefined(study, results))


def _colours(results: Results) -> dict[str, str]:
    """Variant → colour; a label that adds the training length has its variant's colour."""
    rates = results.rates.sort_values("order", kind="stable")
    colours = assign_colours(rates["variant"])
    labels = labels_of(zip(rates["variant"], rates["U"], strict=True))
    return colours | {label: colours[variant] for (variant, _), label in labels.items()}


def _undefined(study: Study, results: Results) -> frozenset[tuple[str, str]]:
    """(variant, intervention) of the pairs that are not applicable, by the labels of the paired differences."""
    labels = set(results.pairs["variant"]) if len(results.pairs) else set()
    reasons = not_applicable(study.of_one_seed, study.every_intervention)
    return frozenset(
        (label, name)
        for name, by_variant in reasons.items()
        for label in labels
        if label.partition(", U=")[0] in by_variant
    )


def _by_protocol(frame: pd.DataFrame) -> Iterator[Subject]:
    if len(frame):
        suffixes = file_stems(frame["protocol"])
        for protocol, lines in frame.groupby("protocol", sort=False):
            yield Subject(lines, suffix=suffixes[protocol])


def _with_order(file: Path, colours: dict[str, str]) -> pd.DataFrame:
    """A frame of the folder with column `order`; empty if the file does not exist."""
    if not file.exists():
        return pd.DataFrame()
    frame = pd.read_csv(file, keep_default_na=False, na_values=["", "nan"])
    return frame.assign(order=frame["variant"].map(list(colours).index))


def _probe_subjects(study: Study, path: Path, colours: dict[str, str]) -> Iterator[tuple[FrameName, Subject]]:
    grids = [probe for probe in study.probes if isinstance(probe, Grid)]
    names = file_names(grid.id for grid in grids)
    for grid in grids:
        frame = _with_order(path / f"probe-{names[grid.id]}.csv", colours)
        if len(frame):
            rows = _grid_rows(grid)
            yield "grid", Subject(_typed(frame, rows), suffix=f"-{names[grid.id]}", probe=rows)
    scheduled = [probe for probe in study.probes if isinstance(probe, ScheduledMeasurement)]
    names, protocols = file_names(s.id for s in scheduled), file_names(s.protocol.id for s in scheduled)
    for each in scheduled:
        suffix = f"-{names[each.id]}-{protocols[each.protocol.id]}"
        frame = _with_order(path / f"probe{suffix}.csv", colours)
        if len(frame):
            yield "measurement", Subject(frame, suffix=suffix, probe=_taken(each))


def _grid_rows(grid: Grid) -> GridRows:
    points = tuple(
        GridPoint(dict(point.coordinates), point.protocol.id, canonical_name(point.intervention), None, [])
        for point in grid.points
    )
    return GridRows(grid.id, grid.x, grid.y, grid.curve, grid.notes, points)


def _typed(frame: pd.DataFrame, grid: GridRows) -> pd.DataFrame:
    """The frame with coordinates of the grid's own types: a CSV file holds texts where numbers and words mix."""
    for axis in grid.points[0].coordinates:
        values = {str(point.coordinates[axis]): point.coordinates[axis] for point in grid.points}
        frame[axis] = frame[axis].map(lambda value, values=values: values.get(str(value), value))
    return frame


def _taken(scheduled: ScheduledMeasurement) -> TakenMeasurement:
    measurement = scheduled.measurement
    return TakenMeasurement(
        id=scheduled.id,
        protocol=scheduled.protocol.id,
        x=measurement.x,
        y=measurement.y,
        curve=measurement.curve,
        low=measurement.low,
        high=measurement.high,
        chance=measurement.chance,
        episodes=scheduled.episodes or scheduled.protocol.episodes,
        csv="",
        provenance="",
        share=measurement.share,
    )


if __name__ == "__main__":
    main()
