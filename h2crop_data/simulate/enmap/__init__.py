"""Simulated EnMAP products: tiles of datatakes, their files, metadata and items."""
