"""Whether the images of a datastrip were refined: fitted to the reference image of all Sentinel-2 passes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

import pystac

from h2crop_data.catalog.access import read_beginning
from h2crop_data.catalog.item_facts import datastrip_asset
from h2crop_data.errors import ReadError

#: What the metadata of a datastrip say (`Image_Refining`), and our words.
FLAG = re.compile(rb"<Image_Refining\s[^>]*flag\s*=\s*[\"']([A-Z_]+)[\"']")
REFINEMENTS = {b"REFINED": "refined", b"NOT_REFINED": "not refined"}
#: Servers that failed while this process asked them.
FAILED_SERVERS: set[str] = set()
#: What follows is many times as long and says nothing of it.
END = b"</Geometric_Info>"
NOT_STATED = "unknown"


def refinement_of(items: Iterable[pystac.Item]) -> str:
    """`refined` or `not refined`, where the metadata of some items' datastrips say so and agree; else `unknown`."""
    keys = [(item, datastrip_asset(item)) for item in items]
    told = {NOT_STATED if key is None else refinement_in(item.assets[key].href) for item, key in keys}
    return told.pop() if len(told) == 1 else NOT_STATED


@lru_cache(maxsize=1024)
def refinement_in(href: str) -> str:
    """What the metadata of a datastrip (MTD_DS.xml) say; `unknown` where they cannot be read or do not say it.

    All tiles of a datatake share the file: it is read once in a process, and tried once, as nothing depends on it. A
    server that failed is not retried.
    """
    server = urlsplit(href).netloc
    if server in FAILED_SERVERS:
        return NOT_STATED
    try:
        found = FLAG.search(read_beginning(href, END))
    except ReadError:
        FAILED_SERVERS.update(filter(None, [server]))
        return NOT_STATED
    return NOT_STATED if found is None else REFINEMENTS.get(found[1], NOT_STATED)
