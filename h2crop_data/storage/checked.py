"""JSON documents with a checksum: a document that was changed after it was written is noticed when it is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from h2crop_data.storage.storage import canonical_json

CHECKSUM = "checksum"
#: The line of the checksum in a document as `checked_json` writes it, where another key follows.
CHECKSUM_LINE = re.compile(rb'^ "checksum": "[0-9a-f]{64}",\n', re.MULTILINE)


@dataclass(frozen=True)
class CheckedDocument:
    """A document without its checksum. checked: whether it had one; those of earlier versions have none."""

    content: dict[str, Any]
    checked: bool


def checked_json(document: Mapping[str, Any]) -> str:
    """A document in its canonical form, with the SHA-256 of the canonical form without this key as `checksum`."""
    return canonical_json({**document, CHECKSUM: digest_of(canonical_json(document).encode())})


def parsed_document(data: bytes) -> CheckedDocument:
    """The document in a file. Raises ValueError for anything but a JSON object, and for one that was changed."""
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, got {type(document).__name__}")
    if CHECKSUM not in document:
        return CheckedDocument(document, False)
    stated = document.pop(CHECKSUM)
    # As it was written; only a document in another form has to be written again, which takes fifty times as long.
    if stated != digest_of(CHECKSUM_LINE.sub(b"", data)):
        found = digest_of(canonical_json(document).encode())
        if stated != found:
            raise ValueError(f"it was changed after it was written: expected the checksum {stated}, got {found}")
    return CheckedDocument(document, True)


def checked_rows(rows: list[dict[str, Any]]) -> str:
    """Rows of a table as a document with a checksum."""
    return checked_json({"rows": rows})


def parsed_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows in a file; earlier versions wrote a plain list. Raises ValueError as `parsed_document`."""
    if data.lstrip()[:1] == b"[":
        plain: list[dict[str, Any]] = json.loads(data)
        return plain
    rows = parsed_document(data).content.get("rows")
    if not isinstance(rows, list):
        raise ValueError("it lacks rows")
    return rows


def digest_of(data: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()
