"""Answers of STAC APIs: each is complete, or requested again, or an error, within a time limit."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import Request, Response
from requests.exceptions import ChunkedEncodingError, RequestException, Timeout
from requests.exceptions import ConnectionError as LostConnectionError
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from h2crop_data.catalog.answers import LateAnswerError, begun_by, pieces_by
from h2crop_data.settings import Archives
from h2crop_data.waits import report_retry

log = logging.getLogger(__name__)
#: A whole answer may take so many times as long as its next bytes (`H2CROP_READ_TIMEOUT`).
WHOLE_ANSWER_TIMES = 5
#: What is tried again, how often, with pauses that grow, and seconds that a server may ask to wait (`Retry-After`).
RETRIES = Retry(
    total=5,
    backoff_factor=1,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    respect_retry_after_header=True,
    retry_after_max=300,
)
#: A pause is so much shorter or longer by chance, that workers who were refused together do not come back together.
PAUSE_JITTER = 0.5
#: Methods whose parameters are a body.
WITH_BODY = ("POST", "PUT", "PATCH")
#: Characters of a refusal that an error quotes.
QUOTED = 500


class LostAnswerError(Exception):
    """An incomplete answer."""


class NoAnswerError(APIError):
    """A server did not answer in any try, or reported that it is down or busy."""


@dataclass(frozen=True)
class ApiAnswer:
    """What a server sent."""

    status: int
    text: str
    #: `Retry-After`, as it is written.
    retry_after: str | None


class ApiReader(StacApiIO):
    """Reads a STAC API; `Client` of pystac-client reads through it."""

    def __init__(self, retries: Retry = RETRIES, sleep: Callable[[float], None] = time.sleep) -> None:
        """sleep: waits so many seconds between two tries."""
        timeout = Archives.read().timeout
        super().__init__(timeout=timeout, max_retries=None)
        self.retries, self.answer_time, self._sleep = retries, WHOLE_ANSWER_TIMES * timeout, sleep

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text of an answer. Raises APIError, with the status of a refusal; NoAnswerError after the last try.

        (pystac-client tries again only until the head of an answer is there, and waits for its body without end.)
        """
        verb = (method or "GET").upper()
        sent = {"json": parameters} if verb in WITH_BODY else {"params": parameters or {}}
        request = Request(verb, href, headers=headers, **sent)
        tries = int(self.retries.total or 0) + 1
        for attempt in range(tries):
            asked = None
            try:
                answer = self.answer_to(request)
            except LostAnswerError as error:
                reason = str(error)
            else:
                if 200 <= answer.status < 300:
                    return answer.text
                reason, asked = f"HTTP {answer.status}", seconds_asked(answer.retry_after)
                if answer.status not in self.retries.status_forcelist:
                    refusal = APIError(answer.text[:QUOTED])
                    refusal.status_code = answer.status
                    raise refusal
                if asked is not None and asked > self.retries.retry_after_max:
                    raise NoAnswerError(f"{reason}, try again in {asked:.0f} seconds")
            if attempt + 1 < tries:
                pause = self.pause_after(attempt) if asked is None else asked
                asking = "" if asked is None else ", which asks to wait (Retry-After)"
                report_retry(log, f"{verb} {href}", reason + asking, pause, attempt + 1, tries)
                self._sleep(pause)
        raise NoAnswerError(f"{reason} (tried {tries} times)")

    def answer_to(self, request: Request) -> ApiAnswer:
        """The answer to a request. Raises LostAnswerError for one that is not whole, APIError where nothing is sent."""
        until = time.monotonic() + self.answer_time
        try:
            prepared = self.session.prepare_request(request)
            ways = self.session.merge_environment_settings(str(prepared.url), {}, True, None, None)
            begun = begun_by(until, lambda: self.session.send(prepared, timeout=self.timeout, **ways))
            with closing(begun) as response:
                text = whole_text(response, until)
                return ApiAnswer(response.status_code, text, response.headers.get("Retry-After"))
        except LateAnswerError as error:
            raise LostAnswerError(f"{error} ({self.answer_time:g} s)") from error
        except (LostConnectionError, Timeout, ChunkedEncodingError, HTTPError) as error:
            raise LostAnswerError(f"{type(error).__name__}: {error}") from error
        except RequestException as error:
            raise APIError(str(error)) from error

    def pause_after(self, attempt: int) -> float:
        """Seconds to wait after a try (from 0)."""
        grown = self.retries.backoff_factor * 2.0**attempt
        return float(min(grown, self.retries.backoff_max) * random.uniform(1 - PAUSE_JITTER, 1 + PAUSE_JITTER))


def whole_text(response: Response, until: float) -> str:
    """The body of an answer. until: on the clock of `time.monotonic`.

    Raises LostAnswerError where it is cut off, and like `pieces_by`.
    """
    text = b"".join(pieces_by(until, response)).decode("utf-8", errors="replace")
    if response.ok and text.lstrip().startswith("{"):
        try:
            json.loads(text)
        except ValueError as error:
            raise LostAnswerError(f"its answer was cut off: {error}") from error
    return text


def seconds_asked(retry_after: str | None) -> float | None:
    """How long a server asks to wait: seconds, or until a date; None where it does not, or cannot be understood."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


class ReportedRetry(Retry):
    """Tries of urllib3, each reported: by itself it logs those after a busy server's answer as details alone."""

    def increment(self, method: str | None = None, url: str | None = None, *arguments: Any, **options: Any) -> Self:
        """The tries that are left. Raises as of urllib3."""
        left = super().increment(method, url, *arguments, **options)
        last = left.history[-1]
        reason = f"HTTP {last.status}" if last.status else f"{type(last.error).__name__}: {last.error}"
        response: Any = options.get("response")
        asked = None if response is None else self.get_retry_after(response)
        report_retry(log, f"{method} {url}", reason, asked or left.get_backoff_time(), len(left.history))
        return left
