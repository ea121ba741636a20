"""Recorded episodes for the page: played again once, kept as files in `episodes/` beside the page.

episodes/<train id>-<protocol>-<intervention>-<episode>.json   `Film`
episodes/….webp, episodes/…-attention.webp                     sheets of frames
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from analysis.page.content import RecordedEpisode
from analysis.page.pictures import data_uri, sheet, side_by_side, webp
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.video import memory_change
from muvla.probes.attention_overlay import AttendedEpisode, overlaid
from muvla.runs.attended import replay_attended
from muvla.runs.evaluate import Evaluator
from muvla.utils.foreign import read_model
from muvla.utils.io import write_atomically

FOLDER = "episodes"
MOST_FRAMES = 48  # of one episode; a longer episode shows evenly spaced steps
READ = "action to vision"  # the attention that is drawn: of the rows that the action head reads, on the patches


@dataclass(frozen=True)
class Film:
    """The facts of one recorded episode; its sheets lie beside the file."""

    train: str
    protocol: str
    intervention: str
    episode: int
    frames: int
    cameras: int
    steps: tuple[int, ...]
    phases: tuple[str, ...]
    change: tuple[float, ...]
    outcome: str
    success: bool
    attention: bool


def record(evaluator: Evaluator, protocol: Protocol, intervention: str, episodes: Sequence[int], folder: Path) -> None:
    """Plays episodes again and writes their files; episodes with files are left as they are.

    Args:
        evaluator: the policy.
        protocol: the protocol.
        intervention: canonical name, or "none".
        episodes: numbers in the protocol.
        folder: folder of the page.

    Raises:
        MuvlaError: an episode has no row, or ended in another way than its row says.
    """
    places = {n: folder / FOLDER / _stem(evaluator.run.train, protocol.id, intervention, n) for n in episodes}
    missing = [n for n, place in places.items() if not place.with_name(f"{place.name}.json").exists()]
    if not missing:
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for number, attended in zip(missing, replay_attended(evaluator, protocol, intervention, missing), strict=True):
        steps = _shown_steps(len(attended.replayed.steps))
        _write_sheets(attended, steps, places[number])
        film = _film(attended, steps, evaluator.run.train, protocol.id, intervention, number)
        file = places[number].with_name(f"{places[number].name}.json")
        write_atomically(file, msgspec.json.encode(film))  # last: it marks the end


def _stem(train: str, protocol: str, intervention: str, episode: int) -> str:
    name = f"{train}-{protocol}-{intervention}-{episode}"
    return re.sub(r"[^\w.,()\[\]@=+-]", "_", name)


def _shown_steps(count: int) -> list[int]:
    """At most `MOST_FRAMES` evenly spaced steps of an episode of `count` steps."""
    return sorted(set(np.linspace(0, count - 1, min(MOST_FRAMES, count)).round().astype(int).tolist()))


def _write_sheets(attended: AttendedEpisode, steps: list[int], path: Path) -> None:
    frames = attended.replayed.frames
    plain = sheet([side_by_side(frames[step]) for step in steps])
    write_atomically(path.with_name(f"{path.name}.webp"), webp(plain, frames[0].shape[1]))
    maps = attended.kinds.get(READ)
    if maps is not None:
        drawn = [_overlay(attended, maps, step) for step in steps]
        write_atomically(path.with_name(f"{path.name}-attention.webp"), webp(sheet(drawn), drawn[0].shape[0]))


def _film(
    attended: AttendedEpisode, steps: list[int], train: str, protocol: str, intervention: str, number: int
) -> Film:
    replayed = attended.replayed
    change, info = memory_change(replayed.steps), replayed.outcome.info
    return Film(
        train=train,
        protocol=protocol,
        intervention=intervention,
        episode=number,
        frames=len(steps),
        cameras=len(replayed.frames[0]),
        steps=tuple(steps),
        phases=tuple(replayed.steps[step].phase.name.lower().replace("_", " ") for step in steps),
        change=tuple(round(float(change[step]), 6) for step in steps) if len(change) else (),
        outcome=_outcome(info),
        success=bool(info["success_once"]),
        attention=READ in attended.kinds,
    )


def _overlay(attended: AttendedEpisode, maps: np.ndarray, step: int) -> np.ndarray:
    """The model's images of a step under the attention, cameras side by side."""
    top = float(maps.max())
    tiles = [np.asarray(overlaid(p, maps[step, v], top)) for v, p in enumerate(attended.pictures(step))]
    return side_by_side(np.stack(tiles))


def _outcome(info: dict) -> str:
    """How an episode ended, for example "success", "touched object 2, the target is 0"."""
    if info["success_once"]:
        return "success"
    if info.get("target") is None:
        return "no success"
    if info["choice"] == -1:
        return f"no touch, the target is {info['target']}"
    return f"touched object {info['choice']}, the target is {info['target']}"


def load_films(
    folder: Path, labels: dict[str, tuple[str, int]], inside: int, page: Path | None = None
) -> tuple[RecordedEpisode, ...]:
    """The recorded episodes of a folder.

    Args:
        folder: folder that holds `episodes/`.
        labels: train id → (label, training seed).
        inside: bytes of pictures that the page may hold; later pictures are linked.
        page: folder of the page, which links are relative to; None for `folder`.
    """
    places = {train: i for i, train in enumerate(labels)}
    films = [(read_model(file, Film), file) for file in sorted((folder / FOLDER).glob("*.json"))]
    films = [(film, file) for film, file in films if film.train in labels]
    films.sort(key=lambda each: (places[each[0].train], each[0].episode, each[0].intervention != "none"))
    episodes = []
    for film, file in films:
        addresses = []
        names = (f"{file.stem}.webp", f"{file.stem}-attention.webp")
        for name in names if film.attention else names[:1]:
            content = file.with_name(name).read_bytes()
            inside -= 4 * len(content) // 3
            addresses.append(data_uri(content) if inside > 0 else os.path.relpath(file.with_name(name), page or folder))
        label, seed = labels[film.train]
        episodes.append(
            RecordedEpisode(
                label=label,
                seed=seed,
                protocol=film.protocol,
                episode=film.episode,
                intervention=film.intervention,
                frames=film.frames,
                cameras=film.cameras,
                sheet=addresses[0],
                overlay=addresses[1] if film.attention else "",
                steps=film.steps,
                phases=film.phases,
                change=film.change,
                outcome=film.outcome,
                success=film.success,
            )
        )
    return tuple(episodes)
