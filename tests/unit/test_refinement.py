"""What the metadata of datastrips say of their geometry, and how much of them is fetched for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac
import pytest

from h2crop_data.catalog.access import PIECE_BYTES, read_beginning
from h2crop_data.errors import ReadError
from h2crop_data.sources.sentinel2.refinement import refinement_in, refinement_of

#: As real files have it: the list of ancillary data follows and takes some 20 MB.
DOCUMENT = (
    '<?xml version="1.0"?>\n<n1:Level-2A_DataStrip_ID xmlns:n1="https://example.org/n1"><n1:General_Info/>'
    "<n1:Image_Data_Info>{filling}<Geometric_Info>"
    '<Image_Refining flag="{flag}" metadataLevel="Standard"/></Geometric_Info></n1:Image_Data_Info>{rest}'
)


def item(name: str, **hrefs: str) -> pystac.Item:
    """An item with assets."""
    found = pystac.Item(name, None, None, None, {"start_datetime": "2022-01-01", "end_datetime": "2022-01-01"})
    found.assets = {key: pystac.Asset(href) for key, href in hrefs.items()}
    return found


def document(folder: Path, flag: str, filling: str = "", rest: str = "") -> str:
    """A file of metadata."""
    path = folder / f"{flag}-{len(filling)}.xml"
    path.write_text(DOCUMENT.format(flag=flag, filling=filling, rest=rest), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("flag", "told"), [("REFINED", "refined"), ("NOT_REFINED", "not refined"), ("PERHAPS", "unknown")]
)
def test_the_flag_is_told_in_words(tmp_path: Path, flag: str, told: str) -> None:
    assert refinement_in(document(tmp_path, flag)) == told


def test_it_is_found_wherever_pieces_end(tmp_path: Path) -> None:
    for length in range(PIECE_BYTES - 330, PIECE_BYTES - 100, 7):
        assert refinement_in(document(tmp_path, "NOT_REFINED", "x" * length)) == "not refined"


def test_datastrips_that_disagree_or_are_silent_are_unknown(tmp_path: Path) -> None:
    good, bad = document(tmp_path, "REFINED"), document(tmp_path, "NOT_REFINED")
    assert refinement_of([item("a", datastrip_metadata=good), item("b", datastrip_metadata=good)]) == "refined"
    assert refinement_of([item("a", datastrip_metadata=good), item("b", datastrip_metadata=bad)]) == "unknown"
    assert refinement_of([item("a", datastrip_metadata=good), item("b", granule_metadata=good)]) == "unknown"
    of_planetary_computer = item("c")
    of_planetary_computer.assets["datastrip-metadata"] = pystac.Asset(bad)
    assert refinement_of([of_planetary_computer]) == "not refined"
    assert refinement_of([item("d", datastrip_metadata=str(tmp_path / "none.xml"))]) == "unknown"


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, int]]]:
    """A server of one large file that counts the bytes it could send."""
    sent = {"bytes": 0, "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent["asked"] += 1
            if self.path != "/MTD_DS.xml":
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            text = DOCUMENT.format(flag="REFINED", filling="", rest="").encode()
            try:
                for piece in [text, *[b" " * 2**20] * 64]:
                    self.wfile.write(piece)
                    sent["bytes"] += len(piece)
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", sent
    http.shutdown()
    thread.join()
    http.server_close()


def test_the_rest_of_a_large_file_is_not_fetched(server: tuple[str, dict[str, int]]) -> None:
    url, sent = server
    assert refinement_in(f"{url}/MTD_DS.xml") == "refined"
    # What lies in buffers between the two may be on its way.
    assert sent["bytes"] < 32 * 2**20
    refinement_in(f"{url}/MTD_DS.xml")
    assert sent["asked"] == 1


def test_a_file_that_is_refused_is_unknown_and_asked_for_once(server: tuple[str, dict[str, int]]) -> None:
    url, sent = server
    assert refinement_in(f"{url}/gone.xml") == "unknown"
    assert sent["asked"] == 1
    with pytest.raises(ReadError, match=r"gone\.xml"):
        read_beginning(f"{url}/gone.xml", b"x")
