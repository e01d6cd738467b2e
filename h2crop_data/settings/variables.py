"""How a variable of the environment is declared, read and checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from h2crop_data.errors import UsageError
from h2crop_data.redaction import without_secrets

OURS = "h2crop"
#: What a value of a type looks like, in errors.
NUMBER_OF_GIGABYTES = "a number of gigabytes from 0, such as 20 or 0.5"
TRUE_OR_FALSE = "true or false"


def variable(
    name: str,
    text: str,
    default: Any = None,
    *,
    expected: str = "",
    read_by: str = OURS,
    unset: str = "",
    also: str = "",
    **limits: Any,
) -> Any:
    """A field of a group of settings.

    text: what it means. expected: what a value must be, in words. read_by: who reads it; names of libraries where they
    do so by themselves. unset: the default in words, where the value does not tell. also: another name of it, which
    goes before this one, of what h2crop itself does not read. limits: of pydantic.
    """
    extra: dict[str, Any] = {"expected": expected, "read_by": read_by, "unset": unset, "also": also}
    return Field(default, validation_alias=name, description=text, json_schema_extra=extra, **limits)


def text_of(secret: SecretStr | None) -> str:
    """A secret as it is sent; empty if it is not set."""
    return "" if secret is None else secret.get_secret_value()


class Settings(BaseSettings):
    """A group of variables that are read together. An empty variable counts as one that is not set."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )
    #: What the group is about, in the table.
    title: ClassVar[str] = ""
    #: Variables of which one is nothing without the other.
    pairs: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Reads the environment only, no files."""
        return (env_settings,)

    @classmethod
    def read(cls) -> Self:
        """What the environment says now.

        Raises UsageError that names each wrong variable and what is expected; the value is shown unless it is secret.
        """
        found, problems = cls.examined()
        if found is None:
            raise UsageError("; ".join(problems.values()))
        return found

    @classmethod
    def examined(cls) -> tuple[Self | None, dict[str, str]]:
        """What the environment says now, None where something is wrong; and by variable what that is."""
        try:
            return cls(), {}
        except ValidationError as error:
            wrong = {str(one["loc"][0]) for one in error.errors(include_input=False, include_context=False)}
        # Told outside of the `except` block: an error that was raised there would carry the values along.
        return None, {one.name: one.problem() for one in cls.variables() if one.name in wrong}

    @classmethod
    def variables(cls) -> Iterator[Variable]:
        """The declarations of the group."""
        for field in cls.model_fields.values():
            extra = field.json_schema_extra
            assert isinstance(extra, dict)
            assert isinstance(field.validation_alias, str)
            default = extra["unset"] or ("" if field.default is None else shown_default(field.default))
            yield Variable(
                name=field.validation_alias,
                group=cls.title,
                text=field.description or "",
                default=str(default),
                secret="SecretStr" in str(field.annotation),
                read_by=str(extra["read_by"]),
                expected=str(extra["expected"]),
                names=tuple(name for name in (str(extra["also"]), field.validation_alias) if name),
            )


def shown_default(value: Any) -> str:
    """A default as one would set it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Variable:
    """A declared variable. default: as one would set it, or in words; empty for none. names: the first counts."""

    name: str
    group: str
    text: str
    default: str
    secret: bool
    read_by: str
    expected: str
    names: tuple[str, ...]

    @property
    def text_set(self) -> str:
        """What the environment has of it; empty where that is nothing."""
        return next((value for name in self.names if (value := os.environ.get(name))), "")

    @property
    def is_set(self) -> bool:
        """Whether the environment has it, and not empty."""
        return bool(self.text_set)

    @property
    def is_empty(self) -> bool:
        """Whether the environment has it empty, which counts as not set."""
        return not self.is_set and any(name in os.environ for name in self.names)

    def problem(self) -> str:
        """What to say of it when its value is wrong."""
        if self.secret:
            return f"{self.name}: invalid value, expected {self.expected}"
        return f"{self.name} is {without_secrets(os.environ.get(self.name, ''))!r}: expected {self.expected}"
