"""The sources of a build: each is a folder, all with one protocol (source.py)."""
