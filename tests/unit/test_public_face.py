"""What users call: there, documented where `help` looks, and loaded only when it is asked for."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
import re
import subprocess
import sys
from typing import Any

import pytest

import h2crop_data
from h2crop_data.maintenance.compare import SeasonComparison, StoreComparison
from h2crop_data.maintenance.differences import ArrayDifference, Change, TableDifference
from h2crop_data.maintenance.migrate import MigrationReport
from h2crop_data.maintenance.relabel import RelabelReport
from h2crop_data.maintenance.retract import PruneReport, Retraction
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.estimate import Estimate
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.published.exporting import ExportReport
from h2crop_data.published.importing import ImportReport
from h2crop_data.recipe import model
from h2crop_data.recipe.model import Section
from h2crop_data.simulate.region import RegionReport
from h2crop_data.validation.findings import Finding
from h2crop_data.validation.validate import Validation

#: What the public functions give, and the reports of the other verbs.
RESULTS = [
    *(ArrayDifference, BuildReport, Change, Estimate, Finding, SeasonComparison, SeasonPlan, StoreComparison),
    *(TableDifference, Validation),
    *(ExportReport, ImportReport, MigrationReport, PruneReport, RegionReport, RelabelReport, Retraction),
]
SECTIONS = [
    section
    for section in vars(model).values()
    if inspect.isclass(section) and issubclass(section, Section) and section is not Section
]


class Haze(Section):
    """How haze is taken away."""

    strength: float = 1.0
    """From 0, nothing, to 1, all of it."""
    months: tuple[int, ...] = ()
    """Months it is done in; all where the
    list is empty."""


class Unspoken(Section):
    seed: int = 0


@pytest.mark.parametrize("name", h2crop_data.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(h2crop_data, name)
    assert callable(found)
    assert inspect.getdoc(found)
    assert name in dir(h2crop_data)
    assert f"`{name}`" in (h2crop_data.__doc__ or "")


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.__name__)
def test_every_field_of_a_result_is_in_the_text_that_help_shows(result: type[Any]) -> None:
    shown = pydoc.render_doc(result, renderer=pydoc.plaintext)
    for field in dataclasses.fields(result):
        assert re.search(rf"\b{field.name}\b[^\n]*:", inspect.getdoc(result) or ""), field.name
        assert field.name in shown


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_help_shows_every_field_of_a_recipe_with_its_text(section: type[Section]) -> None:
    shown = " ".join(pydoc.render_doc(section, renderer=pydoc.plaintext).replace("|", " ").split())
    assert section.model_fields
    for name, info in section.model_fields.items():
        assert info.description, name
        assert f" {name}: {' '.join(info.description.replace('|', ' ').split())} " in shown


def test_a_section_of_a_source_is_documented_by_its_class() -> None:
    expected = """How haze is taken away.

strength: From 0, nothing, to 1, all of it.
months: Months it is done in; all where the list is empty."""
    assert inspect.getdoc(Haze) == expected
    schema = Haze.model_json_schema()
    assert schema["description"] == "How haze is taken away."
    assert schema["properties"]["strength"]["description"] == "From 0, nothing, to 1, all of it."
    assert inspect.getdoc(Unspoken) == "seed:"
    assert "description" not in Unspoken.model_json_schema()


def test_the_schema_of_recipes_describes_a_section_without_its_fields() -> None:
    schema = model.Recipe.model_json_schema()
    assert schema["description"].splitlines() == [
        "What to build: area, seasons, sources, taxonomy, split and the layout of the store."
    ]
    assert schema["$defs"]["Area"]["description"] == "Where to build: exactly one of bbox, geojson, file."


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, h2crop_data; print(*[name for name in sys.modules if name.startswith('h2crop_data.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.slow
def test_help_works_where_pytorch_is_not_installed() -> None:
    code = """
import sys
sys.modules["torch"] = None
import h2crop_data, pydoc
assert not hasattr(h2crop_data, "CropSamples")
assert "load_recipe" in pydoc.render_doc(h2crop_data)
try:
    h2crop_data.CropSamples
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == "h2crop_data.CropSamples needs the package torch: pip install '.[train]' in a checkout of h2crop"
    )


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):  # codespell:ignore
        _ = h2crop_data.opne  # codespell:ignore


@pytest.mark.slow
def test_a_command_that_needs_an_extra_names_it() -> None:
    code = "import sys; sys.modules['pystac'] = None; sys.argv = ['h2crop', 'providers', 'check']\n"
    code += "from h2crop_data.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install '.[build]' in a checkout" in done.stderr
