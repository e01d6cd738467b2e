"""The configuration of a model for the samples of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from h2crop_data.constants import FINE, NONE, SENTINEL2_BANDS
from h2crop_data.crops.taxonomy import PUBLISHED_VERSION, Taxonomy, taxonomy_versions
from h2crop_data.cube.reading import load_root, read_index, read_index_json
from h2crop_data.cube.root import stored_data
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.training.model.config import HyperspectralConfig, ModelConfig
from h2crop_data.training.normalisation import Normalisation

Sizes = Literal["small", "published"]


def config_for_store(
    store: str | Path,
    sizes: Sizes = "small",
    *,
    months: int = 12,
    enmap: bool | None = None,
    enmap_optional: bool = False,
    prior: bool | None = None,
    tiers: Sequence[int] | None = None,
    normalisation: Normalisation | None = None,
    release: int | None = None,
) -> ModelConfig:
    """A configuration that takes the samples of a store.

    store: folder or URL. sizes: `small` trains on a CPU, `published` has the published sizes. months: the first so
    many of a season. enmap, prior: whether the model sees them, by default where the store has them. enmap_optional:
    whether a learned token stands for EnMAP in samples without. tiers: that it predicts, all by default. normalisation:
    kept with the model, by default the store's own.
    Raises StoreError where the store lacks what is asked for, UsageError for sizes that do not fit together.
    """
    attributes = load_root(store, release)["attributes"]
    layout, stored = attributes["layout"], stored_data(attributes["layout"])
    if tuple(stored.s2_bands) != SENTINEL2_BANDS:
        raise StoreError(
            f"{store} has the Sentinel-2 bands {' '.join(stored.s2_bands) or 'none'}; the model needs "
            f"{' '.join(SENTINEL2_BANDS)}"
        )
    if not stored.labels:
        raise StoreError(f"{store} has no labels to train with")
    bands = stored.enmap_bands
    if enmap and not bands:
        raise StoreError(f"{store} has no EnMAP; choose enmap=False")
    names = read_index_json(store, "classes", release)
    classes = {tier: max(map(int, of_tier)) for tier, of_tier in enumerate(names, 1)}
    unknown = [tier for tier in tiers or () if tier not in classes]
    if unknown:
        raise UsageError(f"tiers: unknown tier {unknown[0]!r}; {store} has {', '.join(map(str, classes))}")
    sees_enmap = bands > 0 and enmap is not False
    patch = int(layout["cell_size"]) // FINE
    if sizes == "small":
        base = ModelConfig.small(months, patch=patch, enmap=sees_enmap)
    else:
        base = ModelConfig.build(months=months, patch=patch, enmap=HyperspectralConfig() if sees_enmap else None)
    return replace(
        base,
        classes={tier: number for tier, number in classes.items() if tiers is None or tier in tiers},
        enmap=replace(base.enmap, bands=bands, optional=enmap_optional) if base.enmap else None,
        prior=prior is not False,
        normalisation=normalisation or Normalisation.of_store(store, release),
        taxonomy=taxonomy_of(store, release),
    )


def common_taxonomy(config: ModelConfig, store: str | Path, release: int | None = None) -> Taxonomy:
    """The classes of both predictions and labels.

    A model or an imported store that does not state its classes has those of the other, or the published ones. Raises
    UsageError where model, store and this h2crop differ.
    """
    of_store = taxonomy_of(store, release)
    stated = (of_store or config.taxonomy or PUBLISHED_VERSION).split()[0]
    taxonomy = Taxonomy.load(stated if stated in taxonomy_versions() else PUBLISHED_VERSION)
    installed = f"{taxonomy.version} {taxonomy.hash}"
    if of_store not in (None, installed):
        raise UsageError(
            f"{store} has the classes {of_store}, this h2crop has {installed}: relabel the store "
            "(`h2crop relabel`), or use the h2crop that made it"
        )
    if config.taxonomy not in (None, installed):
        raise UsageError(
            f"the model was made for the classes {config.taxonomy}, {store} has {installed}: relabel the store "
            "(`h2crop relabel --taxonomy`), or train again"
        )
    return taxonomy


def taxonomy_of(store: str | Path, release: int | None = None) -> str | None:
    """Version and SHA-256 of the classes of a store; None where it does not state them (an imported one).

    Raises StoreError where its blocks have several.
    """
    known = sorted(set(read_index(store, "blocks", release)["taxonomy"]))
    if len(known) != 1:
        raise StoreError(f"the blocks of {store} have {len(known)} taxonomies: {', '.join(known)}; relabel the store")
    return None if known[0] == NONE else str(known[0])
