"""Recipes of a simulated region with other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from h2crop_data.recipe.model import Recipe, load_recipe


def recipe_document(region: Path) -> dict[str, Any]:
    """The recipe that the simulator wrote."""
    document: dict[str, Any] = yaml.safe_load((region / "recipe.yaml").read_text(encoding="utf-8"))
    return document


def kept_recipe(folder: Path, document: dict[str, Any]) -> Recipe:
    """A recipe as a file of its own in a folder."""
    path = folder / f"recipe-{len(list(folder.glob('recipe-*')))}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_recipe(path)
