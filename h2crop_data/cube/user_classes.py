"""Labels in a user's own classes, made of the four tiers while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from h2crop_data.constants import UNKNOWN
from h2crop_data.crops.mapping import ClassMapping, mapped_labels, tables_for
from h2crop_data.cube.meanings import NOT_DECLARED_NAME, UNKNOWN_NAME

TIER_AXIS = "tier"


def with_user_classes(opened: xr.Dataset, mapping: ClassMapping, attributes: Mapping[str, Any]) -> xr.Dataset:
    """A dataset whose arrays of classes have a user's classes, without the dimension `tier`.

    The names are in the attributes `flag_values` and `flag_meanings` (CF). attributes: of the root of the store.
    """
    tables = tables_for(mapping, attributes)
    for name in [name for name, array in opened.data_vars.items() if TIER_AXIS in array.dims]:
        array = opened[name]
        mapped = xr.apply_ufunc(
            partial(mapped_labels, tables=tables, axis=-1),
            array,
            input_core_dims=[[TIER_AXIS]],
            dask="parallelized",
            output_dtypes=[np.uint8],
        )
        attrs = {
            key: value for key, value in array.attrs.items() if not key.startswith("classes_tier") and key != "note"
        }
        opened = opened.assign({name: mapped.assign_attrs(attrs | mapping_flags(mapping))})
    return opened.drop_dims(TIER_AXIS, errors="ignore")


def mapping_flags(mapping: ClassMapping) -> dict[str, Any]:
    """The attributes by which CF names the classes of a mapping, and its name."""
    names = names_of_mapping(mapping)
    return {
        "class_mapping": mapping.name,
        "flag_values": np.array(list(names), np.uint8),
        "flag_meanings": " ".join("_".join(name.split()) for name in names.values()),
    }


def names_of_mapping(mapping: ClassMapping) -> dict[int, str]:
    """Every number of a mapping, in order -> its name, also those that are no class."""
    return dict(sorted({**mapping.classes, 0: NOT_DECLARED_NAME, UNKNOWN: UNKNOWN_NAME}.items()))
