"""Episodes of trained policies, played again: with and without intervention side by side, memory trace, attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from markupsafe import Markup

from analysis.page.content import Content, RecordedEpisode
from analysis.page.pictures import COLUMNS
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.svg import line_path, tag
from muvla.evaluation.video import LEAST

TRACE = 46  # height of the memory trace


class EpisodesSection(Section):
    """A player per variant, seed and episode."""

    title = "Episodes"
    navigation = "episodes"

    def applies(self, content: Content) -> bool:
        return bool(content.episodes)

    def html(self, content: Content) -> str:
        players = list(_players(content.episodes))
        return render(content, "episodes.html", players=players, columns=COLUMNS, least=LEAST)


def _players(episodes: tuple[RecordedEpisode, ...]) -> Iterator[dict[str, Any]]:
    """The conditions of one episode, side by side."""
    for (label, seed, protocol, number), group in groupby(episodes, _identity):
        panes = [
            {"episode": each, "trace": _trace(each), "spans": _spans(each), "rows": -(-each.frames // COLUMNS)}
            for each in group
        ]
        player = {"label": label, "seed": seed, "protocol": protocol, "number": number}
        yield player | {"panes": panes, "longest": max(pane["episode"].frames for pane in panes)}


def _identity(episode: RecordedEpisode) -> tuple[str, int, str, int]:
    return episode.label, episode.seed, episode.protocol, episode.episode


def _spans(episode: RecordedEpisode) -> list[tuple[str, int]]:
    """(phase, number of frames) in order."""
    return [(phase, len(list(group))) for phase, group in groupby(episode.phases)]


def _trace(episode: RecordedEpisode) -> Markup:
    """The change of the memory read, on a logarithmic axis from `LEAST` to 2; empty without memory."""
    if not episode.change:
        return Markup("")
    heights = [math.log(max(value, LEAST) / LEAST) / math.log(2 / LEAST) for value in episode.change]
    last = max(1, len(heights) - 1)
    points = [(100 * i / last, TRACE - 2 - (TRACE - 4) * height) for i, height in enumerate(heights)]
    path = tag("path", d=line_path(points), class_="curve", vector_effect="non-scaling-stroke")
    largest = max(episode.change)
    label = f"change of the memory over {len(heights)} steps, at most {largest:.3f}"
    return tag("svg", path, viewBox=f"0 0 100 {TRACE}", preserveAspectRatio="none", role="img", aria_label=label)
