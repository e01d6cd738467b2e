"""h2crop: from public satellite archives and declared parcels to training cubes for crop mapping.

`h2crop_data.open(store, season)` gives a season of a store as an xarray dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

__version__ = "0.1.0"


def open(store: str | Path, season: int, *, scaled: bool = False, release: int | None = None) -> xr.Dataset:
    """The valid samples of a season of a store, lazily; see `h2crop_data.cube.reading.open_season`."""
    from h2crop_data.cube.reading import open_season

    return open_season(store, season, scaled=scaled, release=release)
