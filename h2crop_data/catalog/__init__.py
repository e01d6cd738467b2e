"""Catalogs: search, inventory of pinned items, and the one place that opens their files."""
