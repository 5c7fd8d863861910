"""Request bodies: OpenAI's embeddings API with further fields, and an adapter to add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from scions.serving.errors import ApiError

MAX_STRENGTH = 10.0
_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}


def _check_input(value: Any) -> list[str] | list[list[int]]:
    """Check rows of texts or of ids; by hand, because messages name the row and long lists must be quick."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"expected a string, an array of strings, or token ids; found {_kind(value)}")
    if not value:
        raise ValueError("is an empty array; give at least one text")
    if type(value[0]) is int:
        value = [value]
    texts = isinstance(value[0], str)
    for at, row in enumerate(value):
        if texts and not isinstance(row, str):
            raise ValueError(f"row {at}: expected a string like row 0, found {_kind(row)}")
        if not texts and not isinstance(row, list):
            raise ValueError(f"row {at}: expected a string or an array of token ids, found {_kind(row)}")
        if not row:
            raise ValueError(f"row {at}: is empty")
        if not texts:
            wrong = next((token for token in row if type(token) is not int or token < 0), None)
            if wrong is not None or None in row:
                raise ValueError(f"row {at}: expected token ids (whole numbers from 0 up), found {_kind(wrong)}")
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a truth value", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "another number" if isinstance(value, (int, float)) else type(value).__name__)


Input = Annotated[
    Any,
    BeforeValidator(_check_input),
    WithJsonSchema(
        {
            "title": "Input",
            "description": "A text, texts, token ids, or rows of token ids (of the base's own tokenizer, with its "
            "special tokens).",
            "anyOf": [
                _TEXT,
                {"type": "array", "minItems": 1, "items": _TEXT},
                _IDS,
                {"type": "array", "minItems": 1, "items": _IDS},
            ],
        }
    ),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EmbeddingsRequest(_Body):
    """Texts to embed. `adapter`, `collection`, `strength` and `prompt` extend OpenAI's API."""

    input: Input
    model: str = Field(
        description="`base`, an adapter's name (`legal`), or both (`base:legal`); `legal@3f2a…` names a version. "
        "`auto` and `auto-rows` as in `adapter`.",
        min_length=1,
        max_length=500,
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="`float` by default; `base64` is float32, little-endian."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Cut the vectors to this many numbers, and scale them to length 1."
    )
    user: str | None = Field(None, description="Accepted for compatibility and not used.")
    adapter: Name | list[Name | None] | None = Field(
        None,
        description="One adapter for all rows, or one a row (null: the base alone); with `model` `base`. `auto`: one "
        "for all rows, decided by their texts. `auto-rows`: one for each row; such vectors must not be compared.",
    )
    collection: Name | None = Field(
        None,
        description="With `auto`: the first request of a collection decides for all further ones, queries included.",
    )
    strength: Strength | list[Strength] | None = Field(
        None, description="Factor on the adapter's contribution, one or one a row; 1 is the adapter as trained."
    )
    prompt: str | None = Field(
        None, description="Name of a prompt of the adapter, or else of the base, put before every text."
    )

    @property
    def texts(self) -> list[str] | None:
        """The rows of the input where they are texts, else None."""
        rows: list[Any] = self.input
        return rows if isinstance(rows[0], str) else None

    @property
    def token_ids(self) -> list[list[int]]:
        """The rows of the input where they are token ids."""
        rows: list[Any] = self.input
        return rows


class AddAdapterRequest(_Body):
    """A folder under the server's folder of adapters, to add, or to read again."""

    folder: Name = Field(description="The folder's name; never a path.")
    name: Name | None = Field(None, description="Name of the adapter; the folder's name by default.")


def parse(kind: type[Any], body: bytes) -> Any:
    """Read a body as one of the classes above.

    Raises:
        ApiError: 400, not JSON or a wrong field; names the field and never repeats its value.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        param, message = _describe(error.errors(include_url=False, include_input=False, include_context=False), kind)
    raise ApiError(400, message, code="invalid_body", param=param)


def _describe(problems: Sequence[Any], kind: type[BaseModel]) -> tuple[str | None, str]:
    problem = problems[0]
    place = [str(part) for part in problem["loc"]]
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        return None, "The body is not valid JSON."
    if not place:
        return None, f"The body: {text[:1].lower()}{text[1:]}."
    field = place[0][:100]
    if problem["type"] == "extra_forbidden":
        return field, f"{field!r} is no field of this request; there are {', '.join(kind.model_fields)}."
    if problem["type"] == "missing":
        return field, f"{field!r} is missing."
    rows = [part for part in place[1:] if part.isdigit()]
    where = f"{field}[{rows[0]}]" if rows else field
    return field, f"{where}: {text[:1].lower()}{text[1:]}."
