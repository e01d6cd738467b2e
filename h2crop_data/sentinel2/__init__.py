"""Sentinel-2: from numbers to reflectance, clear pixels, monthly composites. Pure functions of arrays."""
