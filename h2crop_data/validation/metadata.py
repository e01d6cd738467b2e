"""The metadata documents: what the root consolidates, and the files they come from."""

from __future__ import annotations

import json
from typing import Any

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.storage.storage import canonical_json
from h2crop_data.validation.checksums import other_bytes
from h2crop_data.validation.documents import difference, expected_documents
from h2crop_data.validation.findings import SMALL_READS, Findings, error, first, warning
from h2crop_data.validation.release import Release


def check_consolidated(release: Release) -> Findings:
    """Every consolidated entry follows from the layout and the number of blocks: shape, dtype, fill, codecs, all."""
    by_difference: dict[str, list[str]] = {}
    for path, what in release.strange_entries.items():
        by_difference.setdefault(what, []).append(path)
    for what, paths in by_difference.items():
        problem = f"its entry of {first(paths)} does not fit the layout: {what}"
        yield error("metadata", ROOT, problem, release.remedies.sealed())
    for season in sorted(release.named_seasons - set(release.seasons)):
        release.cannot_check(f"season {season}: the root contradicts itself about its size")


def check_documents(release: Release, progress: Progress) -> Findings:
    """The `zarr.json` of every group and array equals what it must be."""
    for season, blocks in release.seasons.items():
        documents = expected_documents(release.layout, season, blocks)
        names = {f"{path}/zarr.json": document for path, document in documents.items()}
        here = [name for name in names if release.is_here(name)]
        documents_here = in_order(lambda name: (name, read_metadata(release, name)), here, SMALL_READS)
        for done, (name, document) in enumerate(documents_here):
            progress(done, len(here), f"metadata of {season}")
            yield from document_problems(release, name, names[name], document)


def read_metadata(release: Release, name: str) -> Any:
    """A JSON document of the store; a StoreError or ValueError where it is none."""
    try:
        return json.loads(release.files.read(name))
    except (StoreError, ValueError, RecursionError) as failure:
        return failure


def document_problems(release: Release, name: str, expected: dict[str, Any], found: Any) -> Findings:
    """What is wrong with a metadata document."""
    release.counts["documents"] += 1
    if name in release.changed:
        # A store that grows has longer arrays on disk than its root says.
        if is_longer(expected, found, release.layout.capacity) and is_canonical(release, name, found):
            what = "tells of a longer season than the release has"
            yield warning("unfinished", name, what, release.remedies.unfinished())
        else:
            yield other_bytes(release, name)
    elif isinstance(found, Exception):
        yield error("metadata", name, f"is no metadata document ({found})", release.remedies.sealed())
    elif what := difference(expected, found):
        yield error("metadata", name, f"does not fit the layout: {what}", release.remedies.sealed())


def is_longer(expected: dict[str, Any], found: Any, capacity: int) -> bool:
    """Whether a document is the expected one with more slots."""
    if not isinstance(found, dict) or found.get("node_type") != expected["node_type"]:
        return False
    if expected["node_type"] == "group":
        return found == expected
    shape, wanted = found.get("shape"), expected["shape"]
    if not isinstance(shape, list) or not shape or not isinstance(shape[0], int):
        return False
    if shape[0] < wanted[0] or (shape[0] - wanted[0]) % capacity:
        return False
    return found == {**expected, "shape": [shape[0], *wanted[1:]]}


def is_canonical(release: Release, name: str, document: Any) -> bool:
    """Whether a file is the canonical form of its document, as sealing writes it."""
    return release.files.read(name) == canonical_json(document).encode()
