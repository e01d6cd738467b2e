"""Simulated Sentinel-2 products: granules of MGRS tiles, their files, and items as each archive writes them."""
