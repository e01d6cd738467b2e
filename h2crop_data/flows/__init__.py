"""Builds as Prefect flows: what `flows/build.py` and `flows/refresh.py` share. Needs the extra `flows`."""
