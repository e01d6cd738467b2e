"""The crop tables that labels were made with, each by its country and the SHA-256 of its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence


def merged_crop_tables(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Country -> SHA-256 of its table, of several such mappings together.

    A country of which several tables were used has all their digests, in order, separated by spaces.
    """
    digests: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        for country, named in part.items():
            digests[country].update(named.split())
    return {country: " ".join(sorted(found)) for country, found in sorted(digests.items())}


def crop_table_texts(tables: Mapping[str, str]) -> list[str]:
    """The same as the index of blocks has it, `fr <sha256>`: a text a table, in order."""
    return [f"{country} {digest}" for country, named in sorted(tables.items()) for digest in named.split()]


def crop_tables_of_texts(blocks: Iterable[Sequence[str] | None]) -> dict[str, str]:
    """Country -> SHA-256 of its table, from the texts of blocks; None for blocks whose tables are not known."""
    texts = sorted({text for of_block in blocks if of_block is not None for text in of_block})
    return merged_crop_tables(dict([text.rsplit(" ", 1)]) for text in texts)
