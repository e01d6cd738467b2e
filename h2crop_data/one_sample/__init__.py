"""One sample on its ground: as an xarray dataset, and as GeoTIFFs."""
