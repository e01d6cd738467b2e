"""Sentinel-2: from numbers to reflectance, cloud masks, monthly composites. Pure functions of arrays."""
