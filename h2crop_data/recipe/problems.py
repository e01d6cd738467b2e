"""What is wrong with a recipe, reported with the place in the YAML, the value and what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from h2crop_data.errors import RecipeError


class UniqueKeys(yaml.SafeLoader):
    """YAML that refuses duplicate keys, of which the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping. Raises a YAML error for a key given twice, with its line."""
        mapping: dict[Any, Any] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in mapping:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            mapping[key] = None
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file of keys; what: `recipe`, `settings`. Raises RecipeError where it cannot be read or is not a
    mapping."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the {what} {path}: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{path}: expected the {what} to be a mapping of keys, got {type(document).__name__}")
    return document


def explain(
    error: ValidationError, name: str, document: Any, root: type[BaseModel], what: str = "the recipe is"
) -> str:
    """What to tell of a document called `name` that does not fit the model `root`: one line for each problem."""
    found = [(yaml_steps(problem, document), problem) for problem in error.errors()]
    # Where a value may have several forms, one that fits but for something inside it says what is wrong.
    places = {steps for steps, _ in found}
    outer = {steps[:i] for steps in places for i in range(len(steps))}
    lines = [f"\n  {describe(steps, problem, root)}" for steps, problem in found if steps not in outer]
    return f"{name}: {what} wrong in {len(lines)} place(s){''.join(lines)}"


def yaml_steps(problem: Any, document: Any) -> tuple[str | int, ...]:
    """The keys and list places that lead to an error, without the names pydantic adds for the forms of a value."""
    steps: list[str | int] = []
    for step in (*problem["loc"], *problem.get("ctx", {}).get("steps", ())):
        if (isinstance(document, dict) and step in document) or (
            isinstance(document, list) and step in range(len(document))
        ):
            document = document[step]
            steps.append(step)
    if problem["type"] == "missing":
        steps.append(problem["loc"][-1])
    return tuple(steps)


def describe(steps: tuple[str | int, ...], problem: Any, root: type[BaseModel]) -> str:
    """One validation error as `path: value: what is allowed`."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".") or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = keys_beside(steps, root)
        near = difflib.get_close_matches(str(steps[-1]), allowed, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{path}: unknown key{hint} Allowed: {', '.join(allowed)}"
    if problem["type"] in ("missing", "value_error"):
        return f"{path}: {message}"
    return f"{path}: {shorten(problem['input'])}: {message}"


def keys_beside(steps: tuple[str | int, ...], root: type[BaseModel]) -> list[str]:
    """The keys allowed where an unknown one was found."""
    section = root
    for step in steps[:-1]:
        if isinstance(step, str) and step in section.model_fields:
            section = next(iter(sections_in(section.model_fields[step].annotation)), section)
    return list(section.model_fields)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The recipe sections an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in sections_in(argument)]


def shorten(value: Any) -> str:
    """A value as it would stand in YAML, cut to a readable length."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


class DeclaredFile(Protocol):
    """What of a source of parcels says which file it reads."""

    @property
    def path(self) -> str:
        """Its path, with `{year}` or without."""

    @property
    def layer(self) -> str | None:
        """Its layer, where the recipe names one."""

    @property
    def code_field(self) -> str:
        """The field of the crop code."""

    @property
    def years(self) -> list[int] | None:
        """The years it has; None: all."""


def check_years(
    season: Sequence[DeclaredFile], prior: str | Sequence[DeclaredFile] | None, seasons: Collection[int]
) -> None:
    """Refuse a file of parcels that would be the declarations of several years.

    season, prior: as in the recipe. Raises an error that pydantic reports at the source's path.
    """
    served: dict[tuple[str, str | None, str], tuple[tuple[str | int, ...], set[int]]] = {}
    for place, source, years in uses_of_sources(season, prior, seasons):
        if "{year}" not in source.path:
            key = (source.path, source.layer, source.code_field.casefold())
            _, found = served.setdefault(key, (place, set()))
            found |= years if source.years is None else years & set(source.years)
    for (path, _, _), (place, found) in served.items():
        if len(found) > 1:
            labels = found & set(seasons)
            is_prior = place[0] == "season" and found != labels
            what = "every prior would equal its label" if is_prior else "it cannot be correct for all of them"
            remedy = ", or choose `prior: none`" if is_prior and len(labels) == 1 else ""
            message = (
                f"{shorten(path)} would be read for {' and '.join(map(str, sorted(found)))}: {what}; write "
                f"`{{year}}` into the path, give the one year it has (`years: [{max(found)}]`){remedy}"
            )
            steps = ("parcels", *place, "path")
            raise PydanticCustomError("value_error", "{message}", {"message": message, "steps": steps})


def uses_of_sources(
    season: Sequence[DeclaredFile], prior: str | Sequence[DeclaredFile] | None, seasons: Collection[int]
) -> Iterator[tuple[tuple[str | int, ...], DeclaredFile, set[int]]]:
    """Every source of a recipe with its place below `parcels`, and the years it is asked for."""
    before = {year - 1 for year in seasons}
    for i, source in enumerate(season):
        yield ("season", i), source, {*seasons} | (before if prior == "same" else set())
    for i, source in enumerate([] if prior is None or isinstance(prior, str) else prior):
        yield ("prior", i), source, before
