"""The catalogs of a recipe: one, or several in order, where each supplies scenes that the ones before it lack."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from h2crop_data.errors import RecipeError
from h2crop_data.recipe.section import Neutral, Section
from h2crop_data.redaction import has_secrets


def without_account(value: Any, info: ValidationInfo) -> Any:
    """Refuse an address with an account or a key: recipes are kept in plans and stores, and are published with them."""
    kept = isinstance(info.context, dict) and info.context.get("stored")
    if not kept and isinstance(value, str) and has_secrets(value):
        raise ValueError(
            "a recipe must not contain an address with an account or a key; write the account into ~/.netrc "
            "(machine HOST login NAME password SECRET), and give the address without it"
        )
    return value


Address = Annotated[str, Field(min_length=1), BeforeValidator(without_account)]


class CatalogChoice(Section):
    """One of several catalogs, with its own collection."""

    catalog: Address
    """Name of a provider, URL or path."""
    collection: Annotated[str | None, Neutral(None)] = None
    """Collection to search there (default: that of the section)."""


def form_of_entry(value: Any) -> str:
    """How one of several catalogs is written."""
    return "choice" if isinstance(value, dict | CatalogChoice) else "address"


def form_of_catalog(value: Any) -> str:
    """Whether one catalog is given, or several."""
    return "several" if isinstance(value, list) else "one"


CatalogEntry = Annotated[
    Annotated[Address, Tag("address")] | Annotated[CatalogChoice, Tag("choice")], Discriminator(form_of_entry)
]
Catalog = Annotated[
    Annotated[Address, Tag("one")] | Annotated[list[CatalogEntry], Field(min_length=1), Tag("several")],
    Discriminator(form_of_catalog),
]


@dataclass(frozen=True)
class CatalogPlace:
    """A catalog to search."""

    #: As the recipe calls it.
    name: str
    #: URL, or absolute path.
    place: str
    collection: str


class SearchedSection(Protocol):
    """What of a section of a recipe says where its scenes come from."""

    @property
    def catalog(self) -> Any:
        """As in the recipe."""

    @property
    def collection(self) -> str:
        """To be searched where a catalog names none."""


def choices_of(section: SearchedSection) -> list[tuple[str, str]]:
    """The catalogs of a section in order, as the recipe calls them, and the collection that is searched in each."""
    entries = section.catalog if isinstance(section.catalog, list) else [section.catalog]
    return [
        (one.catalog, one.collection or section.collection)
        if isinstance(one, CatalogChoice)
        else (one, section.collection)
        for one in entries
    ]


def catalogs_in_order(section: SearchedSection, locate: Callable[[str], str]) -> list[CatalogPlace]:
    """The catalogs of a section in order. locate: gives the URL or the absolute path of one. Raises RecipeError."""
    return [CatalogPlace(name, locate(name), collection) for name, collection in choices_of(section)]


def none_found(section: SearchedSection) -> str:
    """That no catalog of a section has a scene, for errors."""
    return ", ".join(f"{name} has no scenes of collection {collection!r}" for name, collection in choices_of(section))


def is_moved(before: Any, now: Any, locate: Callable[[str], str]) -> bool:
    """Whether two values of a setting `catalog` differ only in where catalogs on this machine lie.

    before, now: as plain data, None where it is not set. Only if nothing is left where a catalog was, and there is one
    where it is now: another catalog beside the first is another recipe. locate: of the recipe of today.
    """
    if before is None or now is None or len(addresses_of(before)) != len(addresses_of(now)):
        return False
    pairs = zip(addresses_of(before), addresses_of(now), strict=True)
    return all(
        old == new or (old[1:] == new[1:] and is_there(new[0], locate) and is_there(old[0], locate) is False)
        for old, new in pairs
    )


def addresses_of(value: Any) -> list[tuple[str, Any]]:
    """Address and collection of each catalog of a setting."""
    entries = value if isinstance(value, list) else [value]
    return [(one["catalog"], one.get("collection")) if isinstance(one, dict) else (str(one), None) for one in entries]


def is_there(catalog: str, locate: Callable[[str], str]) -> bool | None:
    """Whether the file or folder of a catalog on this machine is there; None for one on the web."""
    try:
        place = locate(catalog)
    except RecipeError:
        # A variable that is not set any more.
        return False
    return None if re.match(r"https?://", place) else Path(place).exists()
