"""`muvla assets`: files of simulators that no package brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from muvla.cli import options as o
from muvla.cli.output import EXIT_MISSING, result_line, show, show_json

if TYPE_CHECKING:
    from muvla.envs.assets import AssetSet

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Such as libero.", show_default="all")]


def add(app: typer.Typer) -> None:
    group = o.group("List, check and fetch files that simulators need.")
    o.verb(group, o.DATA, "muvla assets list", name="list")(list_sets)
    o.verb(group, o.DATA, "muvla assets check libero")(check)
    o.verb(group, o.DATA, "muvla assets fetch libero")(fetch)
    app.add_typer(group, name="assets", rich_help_panel=o.DATA)


def list_sets(names: Names = None, json: o.Json = False) -> None:
    """List the sets of files, and where each is looked for."""
    rows = [
        {
            "name": item.name,
            "what": item.what,
            "present": not item.missing(),
            "folder": str(item.folder),
            "variable": item.variable,
        }
        for item in _sets(names)
    ]
    show({"assets": rows}, "\n".join(_line(row) for row in rows))


def _line(row: dict[str, Any]) -> str:
    state = "present" if row["present"] else "missing"
    return f"{row['name']}: {row['what']}; {state}: {row['folder']} ({row['variable']})"


def check(names: Names = None, json: o.Json = False) -> int:
    """Check whether the files are complete, and whether they are the original ones.

    Exit status 1 means that files are missing.
    """
    reports = [_check(item) for item in _sets(names)]
    show_json({"assets": reports})
    return EXIT_MISSING if any(report["missing"] for report in reports) else 0


def fetch(names: Names = None, json: o.Json = False) -> int:
    """Download the files, compare them with their digests, and check them."""
    from muvla.envs.assets import fetched

    reports = []
    for item in _sets(names):
        print(f"{item.name}: {item.what}, into {item.folder}")
        source = fetched(item)
        result_line(f"{item.name}: {source}")
        reports.append(_check(item) | {"fetched": source})
    show_json({"assets": reports})
    return EXIT_MISSING if any(report["missing"] for report in reports) else 0


def _sets(names: list[str] | None) -> list[AssetSet]:
    from muvla.envs.registry import asset_sets, get_asset_set

    return [get_asset_set(name) for name in names or []] or list(asset_sets().values())


def _check(item: AssetSet) -> dict[str, Any]:
    from muvla.envs.assets import content

    missing = item.missing()
    if missing is not None:
        result_line(f"{item.name}: no {missing}\n  → {item.remedy}")
        return {"name": item.name, "missing": str(missing), "remedy": item.remedy}
    files = content(item)
    result_line(f"{item.name}: {item.folder}, {files.files} files, content {files.sha256[:12]}")
    for name in files.stand_ins:
        result_line(f"  a stand-in: {name}")
    if files.unverified:
        result_line(
            f"  unverified: {files.unverified}; every row's provenance says so"
            f"\n  → run `muvla assets fetch {item.name}`"
        )
    return {
        "name": item.name,
        "missing": None,
        "folder": str(item.folder),
        "files": files.files,
        "content": files.sha256,
        "stand_ins": list(files.stand_ins),
        "unverified": files.unverified,
    }
