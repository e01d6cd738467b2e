"""What a build can take in: each source a folder, all with one protocol (source.py)."""
