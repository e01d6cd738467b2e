"""What each part may know (docs/architecture.md): imports run one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from source_trees import nodes_of, tree_of

import h2crop_data
from h2crop_data.sources.formats import known_formats

PACKAGE = Path(h2crop_data.__file__).parent
PURE = {"array_archive", "bounded_map", "constants", "errors", "grid", "matching", "mgrs", "progress", "published_ids"}
PURE |= {"cast_shadows", "disks", "logs", "redaction", "shift", "waits", ""}
BASE = PURE | {"plugins", "recipe"}
MAY_IMPORT = {
    "array_archive": set(),
    "bounded_map": set(),
    "cast_shadows": {"disks"},
    "constants": set(),
    "disks": set(),
    "errors": set(),
    "grid": {"constants", "errors"},
    "logs": {"redaction"},
    "matching": set(),
    "mgrs": {"grid"},
    "published_ids": {"mgrs"},
    "plugins": {"errors"},
    # Of the catalogs the names of their providers, which are data.
    "recipe": {"catalog", "constants", "errors", "grid", "plugins", "redaction", "settings"},
    "progress": set(),
    "redaction": set(),
    # What the environment says, for those who act on it; the science takes values.
    "settings": {"constants", "errors", "redaction"},
    # Who reads takes connections, who runs workers counts them; the science knows none.
    "shared_connections": {"errors", "waits"},
    "shift": set(),
    "splits": {"constants", "errors", "grid", "published_ids"},
    # The science knows arrays and values; no recipe, no store, no catalog.
    "sentinel2": PURE,
    "enmap": PURE,
    "crops": PURE,
    "parcels": PURE | {"crops"},
    "catalog": PURE | {"plugins", "sentinel2", "settings", "shared_connections"},
    "storage": {"errors", "settings", "waits"},
    # A store knows no recipe and no sensor.
    "cube": PURE | {"crops", "splits", "storage"},
    "simulate": BASE | {"crops", "sentinel2", "parcels"},
    "report": PURE | {"cube", "enmap", "storage"},
    "one_sample": PURE | {"crops", "cube", "report", "storage"},
    "training": PURE | {"crops", "cube", "storage"},
    "datasheet": PURE | {"cube"},
    "published": BASE | {"crops", "cube", "storage", "sources"},
    "sources": BASE | {"sentinel2", "enmap", "crops", "parcels", "catalog", "cube", "datasheet", "splits"},
    "validation": {"bounded_map", "constants", "cube", "errors", "progress", "sources", "storage"},
    "waits": {"redaction"},
    "pipeline": BASE
    | {"crops", "parcels", "cube", "datasheet", "settings", "shared_connections", "sources", "storage", "splits"},
    "maintenance": BASE | {"crops", "cube", "pipeline", "published", "sources", "storage"},
    "cli": BASE
    | {"catalog", "crops", "cube", "maintenance", "one_sample", "parcels", "pipeline", "published", "report"}
    | {"settings", "simulate", "sources", "storage", "training", "validation"},
    # Steps of Prefect flows; which flows there are stands in flows/.
    "flows": BASE | {"cube", "pipeline", "report", "settings", "storage", "validation"},
    "__main__": {"cli"},
    # The public face, each name loaded when it is asked for.
    "": {"cube", "errors", "maintenance", "one_sample", "pipeline", "recipe", "training", "validation"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
#: What only building, training and flows need.
HEAVY = {
    "rasterio",
    "cv2",
    "odc",
    "pystac",
    "pystac_client",
    "stac_geoparquet",
    "pyogrio",
    "torch",
    "safetensors",
    "prefect",
    "distributed",
    "requests",
}


def part_of(module: str) -> str:
    """The part a module `h2crop_data.cube.shard` belongs to."""
    return module.split(".")[1] if "." in module else ""


def module_name(path: Path) -> str:
    names = ("h2crop_data", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(names).removesuffix(".__init__")


NAMES = {module_name(module) for module in MODULES}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """The modules of this package that a file imports, anywhere in it."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= ({f"{node.module}.{alias.name}" for alias in node.names} & NAMES) or {node.module}
    return frozenset(name for name in found if name.split(".")[0] == "h2crop_data")


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
    for part in ("storage", "cube", "report"):
        for path in (PACKAGE / part).glob("*.py"):
            assert not outside_imports_of(path) & HEAVY, path


@pytest.mark.slow
def test_checking_and_describing_a_store_need_none_of_it_either() -> None:
    names = "h2crop_data.validation.validate, h2crop_data.sources.describe, h2crop_data.maintenance.compare"
    code = f"import sys, {names}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & HEAVY


#: By what a branch on a sensor would ask for it.
SENSORS = {"enmap", "sentinel2", "s2", "labels", "parcels", "prior"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "pipeline").glob("*.py")), ids=module_name)
def test_the_pipeline_knows_sources_by_their_protocol_only(path: Path) -> None:
    constants = {node.value for node in nodes_of(path) if isinstance(node, ast.Constant)}
    settings = {
        node.attr
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "recipe"
    }
    assert not {name for name in constants if isinstance(name, str)} & SENSORS
    assert not settings & SENSORS
    own = {"source", "registry", "changes", "scenes", "units", "readings", "scratch", "timing", "formats", "describe"}
    own |= {"work"}
    assert {name.split(".")[2] for name in imports_of(path) if name.startswith("h2crop_data.sources.")} <= own


VALIDATION = PACKAGE / "validation"
#: What knows the arrays of single sources; `validate` puts the sources together.
OF_SOURCES = {"sources", "labels", "ground", "agreement"}
SHARED_CHECKS = [path for path in sorted(VALIDATION.glob("*.py")) if path.stem not in OF_SOURCES]


@pytest.mark.parametrize("path", SHARED_CHECKS, ids=module_name)
def test_validation_knows_arrays_of_sources_by_their_checks_only(path: Path) -> None:
    sources = known_formats(960, s2_bands=["B02"], enmap_bands=3)
    assert len(sources) == 3
    names = {source.name for source in sources}
    for source in sources:
        names |= {part.name for part in (*source.arrays, *source.coordinates, *source.columns, *source.block_columns)}
    # The table of parcels is part of the index of every store.
    names -= {"parcels"}
    texts = [node.value for node in nodes_of(path) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    words = {word for text in texts if " " not in text for word in re.findall(r"\w+", text)}
    assert not words & names
    of_sources = {f"h2crop_data.validation.{name}" for name in OF_SOURCES - {"sources"}}
    assert path.stem == "validate" or not imports_of(path) & of_sources


#: What validation shares with the builder: declarations, the decoding of chunks, the numbers of releases.
SHARED_WITH_THE_BUILDER = {
    "h2crop_data.bounded_map",
    "h2crop_data.constants",
    "h2crop_data.cube.columns",
    "h2crop_data.cube.release_numbers",
    "h2crop_data.cube.root",
    "h2crop_data.cube.schema",
    "h2crop_data.cube.shard",
    "h2crop_data.errors",
    "h2crop_data.progress",
    "h2crop_data.sources.formats",
    "h2crop_data.sources.sentinel2.format",
}
DECODING = {"MISSING", "decode_chunk", "index_size", "parse_index"}


@pytest.mark.parametrize("path", sorted(VALIDATION.rglob("*.py")), ids=module_name)
def test_validation_judges_with_its_own_formulas(path: Path) -> None:
    shared = {name for name in imports_of(path) if part_of(name) not in ("validation", "storage")}
    assert shared <= SHARED_WITH_THE_BUILDER
    imports = [node for node in nodes_of(path) if isinstance(node, ast.ImportFrom)]
    of_shards = {alias.name for node in imports if node.module == "h2crop_data.cube.shard" for alias in node.names}
    assert of_shards <= DECODING
    modules = [node.module or "" for node in imports]
    names = [
        alias.name for node in nodes_of(path) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    ]
    assert not [name for name in (*modules, *names) if "statistics" in name.lower()]


def test_validation_is_cut_by_subject() -> None:
    assert len(list(VALIDATION.rglob("*.py"))) <= 15


#: What makes pools: the bounded map, a loop of its own for units that need others, threads that are kept.
MAKE_POOLS = {"h2crop_data.bounded_map", "h2crop_data.catalog.granule_reader", "h2crop_data.pipeline.units"}


def test_pools_are_made_in_one_place() -> None:
    makers = {
        module_name(path)
        for path in MODULES
        for node in nodes_of(path)
        if (isinstance(node, ast.Name) and node.id.endswith("PoolExecutor"))
        or (isinstance(node, ast.Attribute) and (node.attr.endswith("PoolExecutor") or node.attr == "Pool"))
    }
    assert "h2crop_data.bounded_map" in makers
    assert makers <= MAKE_POOLS


def test_one_module_knows_dask_and_one_opens_it() -> None:
    importing = {module_name(path) for path in MODULES if "distributed" in outside_imports_of(path)}
    opening = {module_name(path) for path in MODULES if "h2crop_data.pipeline.cluster" in imports_of(path)}
    assert importing == {"h2crop_data.pipeline.cluster"}
    assert opening == {"h2crop_data.pipeline.engine"}


def outside_imports_of(path: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    names = {alias.name for node in nodes_of(path) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes_of(path) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


#: Names that several modules define, and why that is no second meaning.
SHARED_NAMES = {
    "NAME": "each source's `format.py` states its own; nothing imports it",
    "COLUMNS": "each source's `format.py` states its own; nothing imports it",
    "NAMED": "how many names one message lists, the number each message's own",
    "PROVIDER": "each module of `catalog/providers` states its own; the registry finds it there",
    "log": "each module's logger, called as the module",
    "app": "where typer finds the commands of a group",
    "main": "where Python enters: the command line, and a training step",
    "Bands": "reflectance by band of the simulated sky, and of one reading; to be renamed in the next change of either",
    "Part": "a part of a simulation's settings, and of a cell; to be renamed in the next change of either",
}


def defined_names(path: Path) -> set[str]:
    """The public names that a module defines, but for type variables, which mean nothing outside."""
    names: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            value = node.value
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypeVar":
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_a_public_name_is_defined_once() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for name in defined_names(path):
            places.setdefault(name, []).append(module_name(path))
    assert len(places) > 2000
    assert places["StoreLayout"] == ["h2crop_data.cube.schema"]
    several = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert {name: several[name] for name in several.keys() - SHARED_NAMES} == {}
    assert SHARED_NAMES.keys() <= several.keys(), "not shared any more: take them off the list"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_stay_readable(path: Path) -> None:
    """A module ends where its subject ends; one that is longer has more than one."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600
