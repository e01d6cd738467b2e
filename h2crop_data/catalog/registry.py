"""The providers by name: those of the folder `providers`, and those of other packages.

A package adds one by an entry point of the group `h2crop.providers`, which names its `Provider`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from urllib.parse import urlsplit

from h2crop_data.catalog import providers
from h2crop_data.catalog.provider import FilePlace, Provider
from h2crop_data.errors import PluginError
from h2crop_data.plugins import PROVIDERS, entry_points_of


@cache
def known_providers() -> Mapping[str, Provider]:
    """The providers by name, in order of rank. Raises PluginError for one of another package that cannot be used."""
    modules = sorted(module.name for module in pkgutil.iter_modules(providers.__path__))
    own = [import_module(f"{providers.__name__}.{name}").PROVIDER for name in modules]
    found: dict[str, Provider] = {provider.name: provider for provider in own}
    for point in entry_points_of(PROVIDERS):
        try:
            provider = point.load()
        except Exception as error:
            raise PluginError(
                f"the provider {point.name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(provider, Provider) or provider.name != point.name:
            raise PluginError(
                f"{point.value} is not a Provider named {point.name!r}, as its entry point states; correct one of "
                "the two"
            )
        if point.name in found:
            raise PluginError(f"{point.value} adds a provider {point.name!r}, but that name is in use: rename it")
        found[point.name] = provider
    return {one.name: one for one in sorted(found.values(), key=lambda one: (one.rank, one.name))}


def api_of(catalog: str) -> str:
    """The URL of a catalog that is named; any other as it is."""
    provider = known_providers().get(catalog)
    return catalog if provider is None else provider.api


def provider_of(catalog: str) -> Provider | None:
    """The provider of a catalog, by its name or by its URL; None for any other STAC API and for files."""
    named = known_providers().get(catalog)
    if named is not None:
        return named
    return next((one for one in known_providers().values() if is_below(catalog, one.api)), None)


def is_below(url: str, api: str) -> bool:
    """Whether a URL is that of an API, or of something in it."""
    one, other = urlsplit(url), urlsplit(api)
    path, root = f"{one.path.rstrip('/')}/", f"{other.path.rstrip('/')}/"
    return (
        one.hostname is not None
        and (one.hostname, one.port) == (other.hostname, other.port)
        and path[: len(root)] == root
    )


def files_at(address: str) -> tuple[Provider, FilePlace] | None:
    """The provider whose file lies at an address, and what it says of such files; None where none claims it."""
    found = ((provider, place) for provider in known_providers().values() for place in provider.files)
    return next(((provider, place) for provider, place in found if place.has(address)), None)


@cache
def assets_of_bands() -> Mapping[str, tuple[str, ...]]:
    """Sentinel-2 band -> the keys that some provider has for its asset."""
    keys: dict[str, dict[str, None]] = {}
    for provider in known_providers().values():
        for band, names in provider.band_assets.items():
            keys.setdefault(band, {}).update(dict.fromkeys(names))
    return {band: tuple(names) for band, names in keys.items()}


@cache
def datastrip_assets() -> tuple[str, ...]:
    """The keys that some provider has for the metadata of a datastrip."""
    named = (provider.datastrip_asset for provider in known_providers().values())
    return tuple(dict.fromkeys(key for key in named if key))
