"""Requests to an S3 server: timeouts, conditional writes, and error messages.

Settings come from the AWS_* variables of the environment: those of its client are given to obstore, which does not look
at them where it is given timeouts; credentials, region and more it reads by itself, once empty ones are gone.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from h2crop_data.errors import MissingFileError, StoreError, StoreOutageError
from h2crop_data.settings import Buckets, forget_empty_keys, text_of
from h2crop_data.waits import report_retry

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

log = logging.getLogger(__name__)
Result = TypeVar("Result")
#: What a request may raise; ValueError for names that are none.
RequestError = (BaseError, FileNotFoundError, ValueError)
#: Answers that may be another one a moment later, beside those from 500 on.
PASSING_STATUS = {408, 409, 429}
#: Seconds of the first pause before a request is made again, which doubles each time, and of the longest. A pause is so
#: much shorter or longer by chance, that workers who were refused together do not come back together.
FIRST_PAUSE, LONGEST_PAUSE, RETRY_JITTER = 0.1, 5.0, 0.5
#: In the URL where virtual machines of Amazon get credentials; asked when the environment has none.
CREDENTIALS_OF_MACHINE = "/latest/api/token"


class ConflictError(Exception):
    """An object was not as the condition of a write wanted it."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for an object store, in seconds."""

    #: For a connection.
    connect: float = 10.0
    #: For one request, with all bytes of a shard.
    request: float = 600.0
    #: After this long a request that failed is not tried again.
    retry: float = 120.0
    #: So long a builder that died keeps others out.
    lease: float = 60.0


def server_of_environment() -> str | None:
    """The address of the server this process uses; None for Amazon's."""
    return Buckets.read().server


def client_settings() -> ClientConfig:
    """What the environment says of connections."""
    settings = Buckets.read()
    found: ClientConfig = {}
    if settings.allow_http is not None:
        found["allow_http"] = settings.allow_http
    if settings.allow_invalid_certificates is not None:
        found["allow_invalid_certificates"] = settings.allow_invalid_certificates
    if settings.proxy is not None:
        found["proxy_url"] = text_of(settings.proxy)
    return found


def connect(bucket: str, server: str | None, patience: Patience, *, prefix: str | None = None) -> S3Store:
    """A bucket of a server, or what is below a prefix of it. Raises StoreError for settings that make no sense.

    A request is made once: obstore would make it again for minutes without a word. `patiently` makes it again.
    """
    # A single DELETE instead of one for many objects: every server has it.
    config: S3Config = {"checksum_algorithm": "SHA256", "conditional_put": "etag", "disable_bulk_delete": True}
    if server is not None:
        config["endpoint"] = server
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=patience.connect),
        "timeout": timedelta(seconds=patience.request),
        **client_settings(),
    }
    forget_empty_keys()
    try:
        return S3Store(
            bucket,
            prefix=prefix,
            config=config,
            client_options=client,
            retry_config={"max_retries": 0},
        )
    except RequestError as error:
        raise StoreError(f"cannot use s3://{bucket}: {cause_of(error)}; check the AWS_ variables") from error


@functools.cache
def requesting_process() -> int:
    """The process whose threads serve the requests: the first that asks. A forked child inherits the answer."""
    return os.getpid()


def refuse_after_fork(location: str) -> None:
    """Raise StoreError in a forked child: the threads that serve requests stayed behind, it would wait without end."""
    if requesting_process() != os.getpid():
        raise StoreError(
            f"{location} cannot be used in a forked process; start workers with `spawn` or `forkserver` "
            "(PyTorch: DataLoader(multiprocessing_context='forkserver'))"
        )


def moment() -> float:
    """Seconds of a monotonic clock that continues while the machine sleeps, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Tries:
    """The tries of one request to an object store, each reported that is followed by another."""

    def __init__(self, what: str, seconds: float) -> None:
        """what: is done, in words. seconds: after so long the request is not made again."""
        self._what, self._deadline, self._pause, self._number = what, moment() + seconds, FIRST_PAUSE, 0

    def pause_after(self, error: Exception) -> float | None:
        """Seconds to wait before another try, which is reported; None where there is none."""
        self._number += 1
        pause = self._pause * random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)
        if moment() + pause > self._deadline or not may_pass(error):
            return None
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        report_retry(log, self._what, cause_of(error), pause, self._number)
        return pause


def patiently(attempt: Callable[[], Result], seconds: float, what: str) -> Result:
    """Try until it works, or so long; then, or for an error that will not pass, the last error is raised.

    what: is done, in words, to report each try that fails.
    """
    tries = Tries(what, seconds)
    while True:
        try:
            return attempt()
        except (ConflictError, GenericError) as error:
            pause = tries.pause_after(error)
            if pause is None:
                raise
        time.sleep(pause)


def may_pass(error: Exception) -> bool:
    """Whether the same request may work a moment later."""
    status = re.search(r"status code: (\d+)", str(error))
    if status:
        return int(status[1]) in PASSING_STATUS or (int(status[1]) >= 500 and int(status[1]) != 501)
    return isinstance(error, ConflictError) or ("HTTP error" in str(error) and "builder error" not in str(error))


def put_if(store: S3Store, key: str, data: bytes, etag: str | None) -> str:
    """Write an object where it has this ETag, or where there is none (None); gives the new ETag.

    One PUT: give it a store that does not retry, or an answer that was lost looks like a conflict with somebody else.
    Raises ConflictError, or a RequestError after which the object may be written or not.
    """
    try:
        done = obstore.put(store, key, data, mode={"e_tag": etag} if etag else "create", use_multipart=False)
    except (AlreadyExistsError, PreconditionError) as error:
        raise ConflictError(cause_of(error)) from error
    if done["e_tag"] is None:
        raise StoreError(
            f"the server of s3://{store.config.get('bucket')} sends no ETags, which a store requires; use another "
            "server"
        )
    return done["e_tag"]


def cause_of(error: Exception) -> str:
    """The cause of an error, as the server or the network states it."""
    text, _, details = str(error).partition("\n\nDebug source")
    parts = [re.search(pattern, text) for pattern in (r"status code: ([^:<]*)", r"<Code>(.*?)<", r"<Message>(.*?)<")]
    if found := [part[1].strip() for part in parts if part]:
        return ", ".join(found)
    # Of errors of the network the last words are the nearest: "Connection refused".
    deepest = re.findall(r'message: "([^"]+)"', details)
    return " ".join([text.rpartition(" - ")[2].strip(), *[f"({words})" for words in deepest[-1:]]])


def request_error(
    verb: str, where: str, error: Exception, remedy: str = "finished blocks are kept; fix it and rerun"
) -> StoreError:
    """The error to raise for one of a request: what could not be done where, why, and what to do.

    remedy: of errors that are not of settings, keys or a missing object.
    """
    if isinstance(error, ConflictError):
        return StoreError(f"cannot {verb} {where}: another process keeps changing it; end that process and rerun")
    text = str(error)
    cause = f"cannot {verb} {where}: {cause_of(error)}"
    if "NoSuchBucket" in text or (verb == "write" and isinstance(error, FileNotFoundError)):
        return StoreError(f"{cause}; create the bucket, or check AWS_ENDPOINT_URL and AWS_REGION")
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"cannot {verb} {where}: the object does not exist")
    if CREDENTIALS_OF_MACHINE in text:
        return StoreError(
            f"cannot {verb} {where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    # Of a listing that is refused, obstore gives the status alone.
    is_refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if is_refused or re.match(r"40[13]\b", cause_of(error)):
        return StoreError(f"{cause}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their permissions there")
    if "builder error" in text:
        return StoreError(f"{cause}; for a server without TLS set AWS_ALLOW_HTTP=true")
    if isinstance(error, ValueError):
        return StoreError(cause)
    kind = StoreOutageError if may_pass(error) else StoreError
    return kind(f"{cause}; {remedy}")
