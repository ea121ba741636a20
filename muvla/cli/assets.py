"""The verb of the command line about assets: what simulators need and no package brings."""

from __future__ import annotations

import argparse
from collections.abc import Callable

ACTIONS = ("list", "check", "fetch")


def add_asset_verbs(verb: Callable[[str, Callable, str], argparse.ArgumentParser]) -> None:
    """`verb` makes the parser of a verb of a name, function and help."""
    assets = verb("assets", _assets, "simulators' files that no package brings: list, check, fetch")
    assets.add_argument("action", choices=ACTIONS)
    assets.add_argument("name", nargs="*", help="for instance libero (default: all)")


def _assets(arguments) -> int:
    from muvla.envs.registry import asset_sets, get_asset_set

    sets = [get_asset_set(name) for name in arguments.name] or list(asset_sets().values())
    return max({"list": _list, "check": _check, "fetch": _fetch}[arguments.action](one) for one in sets)


def _list(assets) -> int:
    missing = assets.missing()
    print(f"{assets.name}: {assets.what}; {'not there' if missing else 'there'}: {assets.folder} ({assets.variable})")
    return 0


def _check(assets) -> int:
    """1 where it is missing."""
    from muvla.envs.assets import content

    if (missing := assets.missing()) is not None:
        print(f"{assets.name}: no {missing}\n  → {assets.remedy}")
        return 1
    found = content(assets)
    print(f"{assets.name}: {assets.folder}, {found.files} files, content {found.sha256[:12]}")
    for name in found.stand_ins:
        print(f"  a stand-in: {name}")
    if found.unverified:
        print(
            f"  unverified: {found.unverified}; every row's provenance says so"
            f"\n  → run `muvla assets fetch {assets.name}`"
        )
    return 0


def _fetch(assets) -> int:
    from muvla.envs.assets import fetched

    print(f"{assets.name}: {assets.what}, into {assets.folder}")
    print(f"{assets.name}: {fetched(assets)}")
    return _check(assets)
