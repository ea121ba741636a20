"""Our rates beside the published numbers on the same tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.published.frame import published_frame
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol

OUR_REGIME = {"receding": "a query at every step", "open_loop": "{h} actions without a query"}


def published_for(protocol: str, protocols: Iterable[Protocol] = ()) -> pd.DataFrame:
    """The published numbers on a protocol's task, as lines of `published_frame`; empty without any.

    Args:
        protocol: a protocol's id.
        protocols: a study's protocols, which are searched before those of the suites.
    """
    task = _tasks(protocols).get(protocol)
    lines = published_frame()
    return lines[[task is not None and _covers(line, task.task.name) for line in lines["our_task"]]]


def beside(rates: pd.DataFrame, protocols: Iterable[Protocol] = ()) -> pd.DataFrame:
    """Our success rates without intervention, joined by task with the published numbers.

    A published number on a suite of tasks (LIBERO) stands beside the mean over those of its tasks that we have.

    Args:
        rates: `analysis.frames.tidy`.
        protocols: the study's protocols, for ids that no suite declares.

    Returns:
        A line per published number, our variant, training length and regime: the columns of `published_frame`, and
        our_variant, U, our_regime, protocols (ids, separated by spaces), our_mean, our_sd (over training seeds, nan for
        one), seeds, our_n (episodes per seed), same_variant (our variant is the published variant's counterpart) and
        our_differences (facts known from the two sides). Empty without a common task.
    """
    by_id = _tasks(protocols)
    plain = rates[(rates["intervention"] == "none") & rates["protocol"].isin(by_id)]
    plain = plain.assign(
        task_name=[by_id[id].task.name for id in plain["protocol"]],
        our_regime=[_regime(by_id[id]) for id in plain["protocol"]],
    )
    if plain.empty:
        return pd.DataFrame()
    lines = []
    for _, number in published_frame().dropna(subset=["our_task"]).iterrows():
        ours = plain[[_covers(number["our_task"], name) for name in plain["task_name"]]]
        for (variant, length, regime), group in ours.groupby(["variant", "U", "our_regime"], sort=False):
            lines.append(dict(number) | _ours(number, variant, length, regime, group))
    return pd.DataFrame(lines)


def _tasks(protocols: Iterable[Protocol]) -> dict[str, Protocol]:
    return declared_protocols() | {protocol.id: protocol for protocol in protocols}


def _covers(ours: Any, name: str) -> bool:
    """True if a published number on tasks that begin with `ours` is a number on the task `name`."""
    return isinstance(ours, str) and (name == ours or (ours.endswith("-") and name.startswith(ours)))


def _regime(protocol: Protocol) -> str:
    return OUR_REGIME[protocol.regime].format(h=protocol.h)


def _ours(number: pd.Series, variant: str, length: int, regime: str, group: pd.DataFrame) -> dict[str, Any]:
    by_seed = group.groupby("seed")["success_rate"].mean()
    return {
        "our_variant": variant,
        "U": length,
        "our_regime": regime,
        "protocols": " ".join(group["protocol"].drop_duplicates()),
        "our_mean": by_seed.mean(),
        "our_sd": by_seed.std(),
        "seeds": len(by_seed),
        "our_n": int(group.groupby("seed")["measured"].sum().max()),
        "same_variant": variant == number["variant"],
        "our_differences": "; ".join(_differences(number, variant, regime, group.iloc[0])),
    }


def _differences(number: pd.Series, variant: str, regime: str, ours: pd.Series) -> list[str]:
    texts = [f"ours: chunks of {ours['H']}, {ours['labels']} labels"]
    if not number["regime"]:
        texts.append(f"ours: {regime}; the published regime is not stated")
    elif number["regime"] != regime:
        texts.append(f"ours: {regime}; published: {number['regime']}")
    return texts
