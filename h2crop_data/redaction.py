"""Credentials in addresses, taken out of what is written and shown: signatures, tokens, accounts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

#: In the name of a parameter, its words apart: that its value lets whoever has it in. Signed addresses of Azure, S3 and
#: Google Cloud, and what services call their keys; but neither `keyword` nor `author` nor `design`.
SECRET_NAME = re.compile(
    r"token|secret|passw|signature|credential|ticket|jwt|hmac|authori[sz]|key(id)?$|auth$"
    r"|(?<![a-z])(key|sig|sas|auth|pwd)(?![a-z])",
    re.IGNORECASE,
)
WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: The account of an address in a text; a password that holds a slash is told from a port by what follows the colon.
ACCOUNT = re.compile(
    r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)"
    r"(?:[^\s/\"'<>?#]*@|[^\s/\"'<>?#:@\[]*:(?!\d*(?:[/?#\s]|$))[^\s\"'<>@]*@)"
)
#: A query in a text, of an address or of a path (errors of connections show these alone), and what ends a sentence.
QUERY = re.compile(r"(?:\?|%3F)[^\s\"<>]*", re.IGNORECASE)
SENTENCE_END = re.compile(r"['):;,.\]}]*$")
#: The name of a parameter, in a query that is not encoded.
PARAMETER = re.compile(r"(?:^|[?&;#])(?:amp;)?([^=&;?#\s]+)=")
#: A parameter anywhere else: of a path, of a fragment, behind a quote.
LONE_PARAMETER = re.compile(r"(?:[&;#]|%26|%3B|%23)([\w.$-]+)(?:=|%3D)[^\s\"'<>&;#)]*", re.IGNORECASE)
#: A parameter of a header that says who asks, and its value.
OF_HEADER = r"[^\s'\",;<>=]+(?:=(?:\"[^\"]*\"|[^\s'\",;<>]*))*"
#: Such a header in a text, `Authorization: Bearer abc`, of which the name stays; a token is also known by its length.
AUTHORIZATION = re.compile(
    r"((?:authorization|auth-token|api-key|subscription-key)['\"]?\s*[:=]\s*b?['\"]?)"
    r"(?:(?:bearer|basic|digest|token|api-?key|negotiate|sharedkey(?:lite)?|aws4-hmac-sha256)\s+"
    rf"{OF_HEADER}(?:,\s*[\w-]+=(?:\"[^\"]*\"|[^\s'\",<>]+))*|[\w.~+/=-]{{16,}})",
    re.IGNORECASE,
)
#: The same without the name of the header.
BEARER = re.compile(r"\b(Bearer) [\w.~+/-]{16,}=*")


def without_secrets(text: str) -> str:
    """A text without accounts and signatures: `user:password@`, signed queries and tokens are removed."""
    if "@" in text:
        text = ACCOUNT.sub(r"\1", text)
    text = BEARER.sub(r"\1", AUTHORIZATION.sub(r"\1", text))
    text = QUERY.sub(lambda found: without_secret_query(found[0]), text)
    return LONE_PARAMETER.sub(lambda found: "" if is_secret_name(found[1]) else found[0], text)


def without_secret_query(query: str) -> str:
    """A query with what follows it up to a space; of one that has a key only what ends a sentence is left."""
    if not any(is_secret_name(name) for name in PARAMETER.findall(unquote(query))):
        return query
    end = SENTENCE_END.search(query)
    return end[0] if end else ""


def is_secret_name(name: str) -> bool:
    """Whether a parameter of such a name is a key."""
    return bool(SECRET_NAME.search(WORD_BEGINS.sub("-", name)))


def has_secrets(address: str) -> bool:
    """Whether an address contains an account, or has a parameter that is a key."""
    return without_secrets(address) != address


def redacted(value: Any) -> Any:
    """A JSON value with all its texts `without_secrets`."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: redacted(member) for key, member in value.items()}
    if isinstance(value, list):
        return [redacted(member) for member in value]
    return value


class RedactingFilter(logging.Filter):
    """Takes credentials out of what a library logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its secrets."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


@contextmanager
def redacted_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Raise errors of some kinds without the secrets in their texts, and in those of what caused them."""
    try:
        yield
    except kinds as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        texts = [str(one) for one in causes]
        shown = [without_secrets(text) for text in texts]
        if shown == texts:
            raise
        raise type(error)(shown[0]) from (Exception(": ".join(shown[1:])) if shown[1:] else None)
