"""Access to a file, as its provider requires: signed immediately before each read, with the keys of its bucket, and
options.

It is not kept: an address in a plan or a store has no signature, and signatures expire.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import rasterio
import requests
from rasterio.errors import RasterioError
from rasterio.session import Session
from urllib3.exceptions import HTTPError

from h2crop_data.catalog.accounts import Account, S3Keys, check_account, keys_for
from h2crop_data.catalog.answers import begun_by, pieces_by
from h2crop_data.catalog.provider import FilePlace, Provider, S3Access
from h2crop_data.catalog.registry import files_at
from h2crop_data.errors import H2cropError
from h2crop_data.redaction import RedactingFilter, redacted_errors
from h2crop_data.settings import ArchiveAccount, forget_empty_keys
from h2crop_data.shared_connections import SharedConnections
from h2crop_data.waits import report_retry

if TYPE_CHECKING:
    from obstore.store import S3Store

log = logging.getLogger(__name__)
Answered = TypeVar("Answered")
#: What is raised when a file is read, and may name its address.
READING_ERRORS = (RasterioError, H2cropError, OSError)
#: GDAL's option by which a file is opened as if it never was: GDAL remembers what it read of an address, so that a file
#: that was replaced is read old, and that an address failed, so that another try never asks the server.
ASK_AGAIN = {"CPL_VSIL_CURL_NON_CACHED": "/vsi"}
#: How many times the time for the next bytes a whole file may take, without what its bytes add at the least speed, in
#: bytes a second.
WHOLE_ANSWER, LEAST_SPEED = 5.0, 20_000.0
#: Buckets whose connections are kept, by keys: those that end are replaced.
BUCKETS_KEPT = 16
#: Pauses in seconds before another request to a bucket that does not answer.
BUCKET_PAUSES = (0.1, 0.2)
#: Loggers of libraries that name addresses of files.
for name in ("odc.loader._rio", "rasterio._env", "rasterio._err", "rasterio._base", "urllib3.connectionpool"):
    logging.getLogger(name).addFilter(RedactingFilter())


class BucketSession(Session):  # type: ignore[misc]
    """GDAL's options for a bucket: rasterio takes keys only from a session, and its own needs another package."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """options: of GDAL, with the keys."""
        self._options = dict(options)

    @classmethod
    def hascreds(cls, config: Mapping[str, Any]) -> bool:
        """Whether options have keys already."""
        return "AWS_ACCESS_KEY_ID" in config

    def get_credential_options(self) -> dict[str, str]:
        """GDAL's options."""
        return self._options


@dataclass(frozen=True)
class FileAccess:
    """What a file is read with."""

    #: Its address, signed where its provider wants that; for GDAL too, but for buckets.
    address: str = field(repr=False)
    #: What GDAL opens.
    opened: str = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    session: BucketSession | None = field(default=None, repr=False)
    #: Of a file in a bucket that a provider describes.
    s3: S3Access | None = None
    keys: S3Keys | None = field(default=None, repr=False)
    #: User and password, and headers, of an account in the environment.
    auth: tuple[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    #: Where its archive allows few connections: those, of which each read takes one.
    connections: SharedConnections | None = None

    def connection(self) -> AbstractContextManager[None]:
        """A connection to its archive, for one read; waits for it where all that are allowed are taken."""
        return nullcontext() if self.connections is None else self.connections.one()

    @contextmanager
    def environment(self, options: Mapping[str, Any]) -> Iterator[None]:
        """GDAL with some options and those of this file, and a `connection`."""
        with self.connection(), rasterio.Env(session=self.session, **{**options, **self.options}):
            yield


def access_to(href: str) -> FileAccess:
    """How a file is read now.

    Raises AccountError where an account, keys or a library are missing, and what its signer does.
    """
    found = files_at(href)
    if found is None:
        return FileAccess(href, href)
    provider, place = found
    access = access_at(provider, place, href)
    if place.connections is None:
        return access
    number = provider.files.index(place)
    return replace(access, connections=SharedConnections(f"{provider.name}-{number}", place.connections))


def access_at(provider: Provider, place: FilePlace, href: str) -> FileAccess:
    """How a file of a provider's place is read now. Raises as `access_to`."""
    check_account(provider, place)
    if place.s3 is not None:
        keys = keys_for(provider, place)
        opened = f"/vsis3/{href.removeprefix('s3://')}"
        return FileAccess(href, opened, place.options, BucketSession(bucket_options(place.s3, keys)), place.s3, keys)
    with redacted_errors(*READING_ERRORS):
        address = href if place.sign is None else place.sign(href)
    if place.netrc is None:
        return FileAccess(address, address, place.options)
    account = Account.from_environment()
    auth, headers = account.auth(href), account.headers(href)
    # GDAL sends neither to another host, where a server leads to one; requests looks for the file by itself.
    own = {"GDAL_HTTP_USERPWD": ":".join(auth)} if auth else {}
    own |= {"GDAL_HTTP_HEADERS": f"Cookie: {headers['Cookie']}"} if headers else {}
    netrc = ArchiveAccount.read().netrc
    own |= {"GDAL_HTTP_NETRC_FILE": str(netrc)} if netrc else {}
    return FileAccess(address, address, {**own, **place.options}, auth=auth, headers=headers)


def bucket_options(s3: S3Access, keys: S3Keys) -> dict[str, str]:
    """GDAL's options for a bucket."""
    options = {
        "AWS_ACCESS_KEY_ID": keys.key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_SESSION_TOKEN": keys.token,
        "AWS_S3_ENDPOINT": s3.endpoint,
        "AWS_REGION": s3.region,
        "AWS_REQUEST_PAYER": "requester" if s3.requester_pays else "",
    }
    given = {name: value for name, value in options.items() if value}
    # The bucket stands in the path: endpoints of others than Amazon have no host for each.
    own = {"AWS_VIRTUAL_HOSTING": "FALSE", "AWS_HTTPS": "YES" if s3.https else "NO"} if s3.endpoint else {}
    return {**given, **own}


@contextmanager
def opened_raster(href: str, options: Mapping[str, Any]) -> Iterator[rasterio.DatasetReader]:
    """A raster, opened with options of GDAL and those of its provider; errors do not show how it is signed."""
    access = access_to(href)
    with redacted_errors(*READING_ERRORS), access.environment(options), rasterio.open(access.opened) as dataset:
        yield dataset


def remote_pieces(href: str, size: int, timeout: float) -> Iterator[bytes]:
    """The bytes of a remote file, some `size` at a time, as they come. Raises OSError; AccountError as `access_to`.

    timeout: seconds to wait for the next bytes; the whole file may take `WHOLE_ANSWER` times as many, and more where it
    comes faster than `LEAST_SPEED`.
    """
    access = access_to(href)
    with redacted_errors(*READING_ERRORS), access.connection():
        if access.s3 is not None and access.keys is not None:
            yield from object_pieces(href, access.s3, access.keys, size, timeout)
            return
        settings: Any = {"auth": access.auth, "headers": dict(access.headers), "timeout": timeout, "stream": True}
        until = time.monotonic() + WHOLE_ANSWER * timeout
        try:
            with begun_by(until, lambda: requests.get(access.address, **settings)) as answer:
                answer.raise_for_status()
                yield from gathered(pieces_by(until, answer, 1 / LEAST_SPEED), size)
        except HTTPError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def gathered(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Bytes in pieces of at least `size`, but for the last."""
    parts: list[bytes] = []
    for piece in pieces:
        parts.append(piece)
        if sum(map(len, parts)) >= size:
            yield b"".join(parts)
            parts = []
    if parts:
        yield b"".join(parts)


def object_pieces(href: str, s3: S3Access, keys: S3Keys, size: int, timeout: float) -> Iterator[bytes]:
    """The bytes of a file in a bucket. Raises OSError."""
    # Imported where it is needed: it takes a while, and most files lie elsewhere.
    import obstore
    from obstore.exceptions import BaseError

    try:
        store, key = object_store(href, s3, keys, timeout)
        found = asked_of_bucket(href, lambda: obstore.get(store, key))
        for piece in found.stream(min_chunk_size=size):
            yield bytes(piece)
    except (BaseError, FileNotFoundError) as error:
        raise OSError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from None


def object_store(href: str, s3: S3Access, keys: S3Keys, timeout: float) -> tuple[S3Store, str]:
    """The bucket of a file, and the file's key in it. timeout: seconds for an answer. Raises obstore's BaseError."""
    bucket, _, key = href.removeprefix("s3://").partition("/")
    return bucket_store(bucket, s3, keys, timeout), key


@lru_cache(maxsize=BUCKETS_KEPT)
def bucket_store(bucket: str, s3: S3Access, keys: S3Keys, timeout: float) -> S3Store:
    """A bucket, whose connections are kept for the next file. timeout: seconds for an answer."""
    from obstore.store import S3Store

    config: Any = {"access_key_id": keys.key_id, "secret_access_key": keys.secret}
    config |= {"session_token": keys.token} if keys.token else {}
    config |= {"endpoint": f"http{'s' if s3.https else ''}://{s3.endpoint}"} if s3.endpoint else {}
    config |= {"region": s3.region or "us-east-1", "request_payer": s3.requester_pays}
    client: Any = {"timeout": f"{timeout:g}s", "allow_http": not s3.https}
    forget_empty_keys()
    # obstore's own tries are seen by nobody.
    return S3Store(bucket, config=config, client_options=client, retry_config={"max_retries": 0})


def asked_of_bucket(href: str, ask: Callable[[], Answered]) -> Answered:
    """The answer of a bucket, asked again where that may help. Raises as `ask`."""
    from obstore.exceptions import GenericError

    for number, pause in enumerate(BUCKET_PAUSES, 1):
        try:
            return ask()
        except GenericError as error:
            reason = str(error).partition("\n")[0]
            report_retry(log, f"asking for {href}", reason, pause, number, len(BUCKET_PAUSES) + 1)
            time.sleep(pause)
    return ask()


def connections_of(href: str, wanted: int) -> int:
    """Connections to the archive of a file, of all workers together: as many as wanted, at most what it allows."""
    found: tuple[Any, FilePlace] | None = files_at(href)
    limit = None if found is None else found[1].connections
    return wanted if limit is None else min(wanted, limit)
