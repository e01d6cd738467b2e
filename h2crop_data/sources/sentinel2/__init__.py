"""Sentinel-2 scenes: which are used, and how they become monthly composites of a block."""
