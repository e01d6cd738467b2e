"""The base of every section of a recipe: its fields document themselves, and settings can be added later."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Percent = Annotated[float, Field(ge=0, le=100, strict=True)]


@dataclass(frozen=True)
class Neutral:
    """Marks a setting that was added to a section some version had already: the value at which nothing changes.

    At this value the setting is left out of recipe text and hashes, so that those of older plans stay as they are; a
    recipe that was kept without it (in a plan, in a store) has this value, whatever the default is today. Write
    `haze: Annotated[bool, Neutral(False)] = True`.
    """

    value: Any


#: The context of `model_dump` for plain data that is read again: with every setting.
COMPLETE = {"complete": True}


#: Characters of a line of a docstring.
DOCSTRING_WIDTH = 100


class Section(BaseModel):
    """A part of the recipe: unknown keys are errors, and the text under each field is its documentation."""

    # A traceback would show what a recipe says, also what is refused because it is secret.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)
    #: The docstring as it was written, without the texts of the fields.
    _written_docstring: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Add the text of each field to the docstring, where `help` shows it."""
        super().__pydantic_init_subclass__(**options)
        cls._written_docstring = inspect.cleandoc(cls.__doc__ or "")
        texts = (
            textwrap.fill(f"{name}: {info.description or ''}".strip(), DOCSTRING_WIDTH, subsequent_indent="    ")
            for name, info in cls.model_fields.items()
        )
        cls.__doc__ = "\n".join([cls._written_docstring, "", *texts]).strip()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON schema, which has the texts of the fields in their own places."""
        schema = handler(core_schema)
        of_section = handler.resolve_ref_schema(schema)
        if of_section.get("description") == cls.__doc__:
            of_section["description"] = cls._written_docstring
            if not cls._written_docstring:
                del of_section["description"]
        return schema

    @classmethod
    def neutral_values(cls) -> dict[str, Any]:
        """The settings that have a neutral value, with it."""
        return {
            name: mark.value
            for name, info in cls.model_fields.items()
            for mark in info.metadata
            if isinstance(mark, Neutral)
        }

    @model_validator(mode="before")
    @classmethod
    def as_it_was_then(cls, data: Any, info: ValidationInfo) -> Any:
        """A recipe that was kept by an older h2crop has what that version did where it does not say."""
        kept = isinstance(info.context, dict) and info.context.get("stored")
        return {**cls.neutral_values(), **data} if kept and isinstance(data, dict) else data

    @model_serializer(mode="wrap")
    def without_neutral(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """As plain data, without settings at their neutral value (but for what is to be read again, `COMPLETE`)."""
        written: dict[str, Any] = serialize(self)
        complete = isinstance(info.context, dict) and info.context.get("complete")
        neutral = {} if complete else type(self).neutral_values()
        silent = {name for name, value in neutral.items() if getattr(self, name) == value}
        return {name: value for name, value in written.items() if name not in silent}
