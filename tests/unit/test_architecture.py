"""What each part may know (docs/architecture.md): imports run one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import h2crop_data

PACKAGE = Path(h2crop_data.__file__).parent
BASE = {"bounded_map", "constants", "errors", "grid", "plugins", "progress", "recipe", ""}
MAY_IMPORT = {
    "bounded_map": set(),
    "constants": set(),
    "errors": set(),
    "grid": {"constants", "errors"},
    "plugins": {"errors"},
    "recipe": {"constants", "errors", "grid", "plugins"},
    "progress": set(),
    "splits": {"constants", "errors", "grid"},
    "sentinel2": BASE,
    "enmap": BASE,
    "parcels": BASE,
    "catalog": BASE | {"sentinel2"},
    "storage": {"errors"},
    "cube": BASE | {"splits", "storage"},
    "simulate": BASE | {"sentinel2", "parcels"},
    "report": BASE | {"cube", "storage"},
    "training": BASE | {"cube", "storage"},
    "datasheet": BASE | {"cube"},
    "published": BASE | {"cube", "storage", "parcels", "sources"},
    "sources": BASE | {"sentinel2", "enmap", "parcels", "catalog", "cube", "datasheet", "splits"},
    "validation": BASE | {"cube", "storage", "splits", "sources"},
    "pipeline": BASE | {"parcels", "cube", "datasheet", "sources", "storage", "splits"},
    "maintenance": BASE | {"cube", "parcels", "pipeline", "sources", "storage"},
    "cli": BASE
    | {"catalog", "cube", "maintenance", "parcels", "pipeline", "published", "report", "simulate", "storage"}
    | {"training", "validation"},
    "__main__": {"cli"},
    # The package itself offers `open`, imported when called.
    "": {"cube"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """The part a module `h2crop_data.cube.shard` belongs to."""
    return module.split(".")[1] if "." in module else ""


def module_name(path: Path) -> str:
    names = ("h2crop_data", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(names).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names = {module_name(module) for module in MODULES}
            found |= (inside & names) or {node.module}
    return {name for name in found if name.split(".")[0] == "h2crop_data"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_part_imports_only_what_it_may_know(path: Path) -> None:
    part = part_of(module_name(path))
    known = {part_of(name) for name in imports_of(path)} - {part}
    assert known <= MAY_IMPORT[part], f"{path.name} imports {known - MAY_IMPORT[part]}"


def test_there_is_no_import_circle() -> None:
    edges = {module_name(path): imports_of(path) - {module_name(path)} for path in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for other in edges.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    # The package's own `open` is imported when called, after everything else.
    edges["h2crop_data"] = set()
    for module in edges:
        visit(module, ())


def test_reading_a_store_needs_none_of_what_building_needs() -> None:
    heavy = {"rasterio", "odc", "pystac", "pystac_client", "stac_geoparquet", "pyogrio", "torch", "prefect", "requests"}
    for part in ("storage", "cube", "report"):
        for path in (PACKAGE / part).glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not {name.split(".")[0] for name in names} & heavy, path


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_stay_readable(path: Path) -> None:
    """A module ends where its subject ends; one that is longer has more than one."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600
