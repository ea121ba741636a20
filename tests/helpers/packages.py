"""Packages outside the repository, made in a test: modules, and entry points as an installer writes them."""

from __future__ import annotations

from pathlib import Path


def write_package(root: Path, name: str, modules: dict[str, str], entry_points: dict[str, dict[str, str]]) -> Path:
    """Writes an installed distribution to `root` and returns `root`, which a test puts on `sys.path`.

    Args:
        root: a folder.
        name: of the distribution, version 1.0.
        modules: file under `root` → source text.
        entry_points: group → name → import string.
    """
    for file, text in modules.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    info = root / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in modules))
    (info / "top_level.txt").write_text("".join(f"{top}\n" for top in sorted({_top(file) for file in modules})))
    lines = []
    for group, members in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in members.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return root


def _top(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")
