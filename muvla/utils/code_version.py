"""The version of the code that computes numbers: a hash of syntax trees, without comments, docstrings and formatting.

The code has two parts. The core is recorded beside every result under the key `code`. Members are the mechanisms,
suites, interventions and probes that a registry lists by import string; a result records the versions of the members
that its computation used. So a new member, or a changed member that a cell does not use, leaves its results
comparable. Both parts are read when the library is imported, and forked processes inherit them: the version is that of
the code that runs, not of files that changed since.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

# Packages and modules of muvla that no number depends on: they show something to a person, or spell out what a cell
# records in full. `sweeps` and `analysis` compute nothing that a row holds.
NOT_COMPUTING = (
    "muvla.cli",
    "muvla.serving",
    "muvla.checkpoints.inspect",
    "muvla.config.presets",
    "muvla.data.contact_sheet",
    "muvla.evaluation.sanity_check",
    "muvla.evaluation.video",
    "muvla.runs.sanity_check",
    "muvla.utils.code_version",
)
# Code versions that compute the same numbers as this one, bit for bit on a CPU, and the reason. Remove an entry with
# the change that moves a number.
EQUAL_CODE = {
    "62e48dfbb2f9": "the version of commit 247a420, before the modules moved. Cells of recall_quick that were trained "
    "and evaluated again have the same counts; tests/golden holds train ids, protocols and golden tensors",
}
PLACE = re.compile(r"muvla(\.\w+)+:\w+")  # an import string of a registry


@dataclass(frozen=True)
class Source:
    """A module, or a data file of the package, as the version counts it."""

    digest: str
    imports: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()  # import strings, of a registry


class Code:
    """The sources of a package, in a core and in members."""

    def __init__(self, package: Path):
        self.sources = dict(sorted(_read(package)))
        self.units = {
            _unit(name.rpartition(".")[0], place.partition(":")[0])
            for name, source in self.sources.items()
            for place in source.places
        }
        core = {name for name in self.sources if self.unit_of(name) is None}
        self.core = self._with_imports(core)
        self.version = self._hash(self.core)

    def unit_of(self, module: str) -> str | None:
        """The member that a module belongs to: a module or a folder that a registry lists."""
        return next((unit for unit in self.units if _inside(module, unit)), None)

    def member_version(self, unit: str) -> str | None:
        """The version of a member with everything that it imports; None if the core holds all of it."""
        of_unit = {name for name in self.sources if _inside(name, unit)}
        modules = self._with_imports(of_unit) - self.core
        return self._hash(modules) if modules else None

    def _with_imports(self, modules: Iterable[str]) -> set[str]:
        """These modules, and all that they import."""
        reached, waiting = set(), list(modules)
        while waiting:
            name = waiting.pop()
            if name in self.sources and name not in reached:
                reached.add(name)
                waiting += self.sources[name].imports
        return reached

    def _hash(self, modules: Iterable[str]) -> str:
        lines = [f"{name} {self.sources[name].digest}" for name in sorted(modules)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def member_versions(modules: Iterable[str]) -> dict[str, str]:
    """Member → version of the members among the given modules; a module of the core is left out.

    A member of another package is named by its top module, and its version holds the distribution, the distribution's
    version and a hash of the source.
    """
    versions = {}
    for module in modules:
        if module.split(".")[0] != "muvla":
            root = _outermost(Path(sys.modules[module].__file__))
            versions[root.stem] = _outside_version(root)
        elif (unit := CODE.unit_of(module)) and (version := CODE.member_version(unit)):
            versions[unit] = version
    return dict(sorted(versions.items()))


def comparable(code: str) -> str:
    """The same text for code versions that compute the same numbers."""
    return CODE_VERSION if code in EQUAL_CODE else code


def _read(package: Path) -> Iterable[tuple[str, Source]]:
    for path in package.rglob("*.json"):  # for example the tokenizer, which decides what a prompt is
        yield _name(package, path), Source(hashlib.sha256(path.read_bytes()).hexdigest())
    for path in package.rglob("*.py"):
        name = _name(package, path.with_suffix(""))
        if not any(_inside(name, skipped) for skipped in NOT_COMPUTING):
            yield name, _source(name, path.read_text(encoding="utf-8"))


def _source(name: str, text: str) -> Source:
    tree, imports, places = ast.parse(text), set(), set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:]
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Dict) and name.endswith(".registry"):
            places |= _drop_places(node)
    packages = {".".join(parts[:i]) for parts in (m.split(".") for m in imports) for i in range(1, len(parts))}
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return Source(digest, frozenset(imports | packages), frozenset(places))


def _drop_places(table: ast.Dict) -> set[str]:
    """Takes the lines with an import string out of a table, and returns the import strings."""
    places, kept = set(), []
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and PLACE.fullmatch(value.value):
            places.add(value.value)
        else:
            kept.append((key, value))
    table.keys, table.values = [key for key, _ in kept], [value for _, value in kept]
    return places


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _name(package: Path, path: Path) -> str:
    parts = (package.name, *path.relative_to(package).parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _unit(package: str, module: str) -> str:
    """The module or the folder of a member: `muvla.envs.recall` for `muvla.envs.recall.suite` in `muvla.envs`."""
    if not module.startswith(f"{package}."):
        return module
    return f"{package}.{module.removeprefix(f'{package}.').split('.')[0]}"


def _outermost(file: Path) -> Path:
    """The outermost package that holds a file, or the file itself if no package does."""
    place = file
    while (place.parent / "__init__.py").exists():
        place = place.parent
    return place


@lru_cache
def _outside_version(root: Path) -> str:
    """The distribution and the source of a package or module outside muvla."""
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
    sources = [_source(file.name, file.read_text(encoding="utf-8")).digest for file in files]
    digest = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:12]
    distributions = metadata.packages_distributions().get(root.stem, [])
    named = [f"{name} {metadata.version(name)}" for name in sorted(set(distributions))]
    return ", ".join([*named, f"source {digest}"])


CODE = Code(Path(__file__).parents[1])
CODE_VERSION = CODE.version
