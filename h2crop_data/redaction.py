"""Credentials in addresses, taken out of what is written and shown: signatures, tokens, accounts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: Parameters of addresses that let whoever has them in, in lower case: signed addresses of Azure, S3 and Google Cloud,
#: and what services call their keys.
SECRET_PARAMETERS = frozenset(
    {
        *("sig", "signature", "x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature"),
        *("awsaccesskeyid", "token", "access_token", "id_token", "auth", "authorization", "key", "apikey", "api_key"),
        *("subscription-key", "password", "passwd", "secret", "client_secret"),
    }
)
#: In a text: the account of an address; a query, of an address or of a path (errors of connections show these alone).
ACCOUNT = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/\"'<>?#]*@")
QUERY = re.compile(r"\?[^\s\"'<>#)]*[^\s\"'<>#):;,.]")


def without_secrets(text: str) -> str:
    """A text whose addresses say neither account nor signature: `user:password@` and signed queries are left out."""
    if "@" in text:
        text = ACCOUNT.sub(r"\1", text)
    if "?" in text:
        text = QUERY.sub(lambda found: "" if is_secret_query(found[0]) else found[0], text)
    return text


def is_secret_query(query: str) -> bool:
    """Whether a query has a parameter that is a key."""
    return any(name.lower() in SECRET_PARAMETERS for name, _ in parse_qsl(query.lstrip("?"), keep_blank_values=True))


def has_secrets(address: str) -> bool:
    """Whether an address says an account, or has a query that is a key."""
    parts = urlsplit(address)
    return "@" in parts.netloc or is_secret_query(parts.query)


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
