"""Errors, and what caused them, say no credentials."""

from __future__ import annotations

import pytest

from h2crop_data.redaction import redacted_errors

ADDRESS = "https://me:planted@host.example/b.tif?sig=planted"


def raise_with(text: str, cause: str) -> None:
    try:
        raise ValueError(cause)
    except ValueError as error:
        raise OSError(text) from error


@pytest.mark.parametrize(
    ("text", "cause"), [(f"cannot read {ADDRESS}", "no answer"), ("cannot read it", f"404 of {ADDRESS}")]
)
def test_neither_an_error_nor_its_cause_has_a_secret(text: str, cause: str) -> None:
    with pytest.raises(OSError, match="cannot read") as raised, redacted_errors(OSError):
        raise_with(text, cause)
    shown = f"{raised.value} {raised.value.__cause__}"
    assert "planted" not in shown
    assert "host.example/b.tif" in shown
    assert "no answer" in shown or "404" in shown


def test_an_error_without_secrets_is_raised_as_it_was() -> None:
    error = OSError("disk full")
    with pytest.raises(OSError, match="disk full") as raised, redacted_errors(OSError):
        raise error
    assert raised.value is error


def test_other_kinds_pass() -> None:
    with pytest.raises(KeyError, match="planted"), redacted_errors(OSError):
        raise KeyError(ADDRESS)
