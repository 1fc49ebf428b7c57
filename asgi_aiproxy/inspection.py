"""Find the models and limits that a JSON request body names, and refuse bodies that are ambiguous.

A caller may be restricted to models or to a budget. The gateway checks this with its own parser,
and the provider runs the request with another one. Parsers differ: of two members with the same
name some take the first and some the last, and Go's `encoding/json` (Ollama, LocalAI), cJSON and
others ignore the case of names. With a body that names two models, one could be checked and the
other one run. So there is one rule, for shims and for the proxy:

*An ambiguous body is refused with 400, and the error names the member.*

1. The body must be one JSON object in UTF-8 that conforms to RFC 8259: no byte order mark, no NaN,
   no comments, nothing before or after it.
2. No name occurs twice, whether or not it is escaped (`mo\\u0064el`).
3. No name is similar to that of a member that is checked (`MODEL`, `Stream`, `model\\u0000`):
   some parsers treat it as that member.
4. The same applies to nested objects that can name a model or a limit (`tools`, `requests`,
   `generationConfig`, `session`, unknown members), at any depth. The caller's own data is not
   inspected: messages, JSON schemas, arguments of tools, metadata.

Every member whose name contains "model", and those in `_OTHER_MODEL_MEMBERS`, name models:
OpenRouter's `models`, `plugins[].allowed_models`, `preset`; OpenAI's and Anthropic's
`tools[].model`; `session.model`; the calls in a batch. All of these models are checked and priced.

The proxy applies all rules to callers that are restricted or have a budget, and forwards their
bodies unchanged. Shims apply 1 and 3 to all callers; they encode bodies again from the parsed
members, so a repeated name is sent once. `asgi_aiproxy.multipart` does the same for forms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache

import msgspec

from asgi_aiproxy.errors import APIError, invalid

Fields = Mapping[str, msgspec.Raw]

# The members, of all dialects, that decide what a call may do and how much is reserved for it.
CHECKED_MEMBERS = frozenset(
    {"model", "models", "stream", "store", "n", "best_of", "candidateCount", "candidate_count"}
    | {"max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"}
    | {"num_predict", "generationConfig", "generation_config", "options", "requests", "tools"}
    | {"messages", "contents", "input", "prompt", "session", "route", "preset", "provider"}
    | {"fallbacks", "plugins", "agent", "service_tier", "speed", "inference_geo"}
)
# Members that name models although their names do not contain "model": of OpenRouter (preset),
# several routers (fallbacks), LiteLLM (deployment_id), Azure's data sources (deployment_name),
# LoRAX and text-generation-inference (adapter_id), SGLang (lora_path). An adapter is a model.
_OTHER_MODEL_MEMBERS = frozenset(
    {"preset", "fallbacks", "fallback", "agent", "adapter_id", "lora_path"}
    | {"deployment", "deployment_id", "deploymentid", "deployment_name", "deploymentname"}
)
# The caller's messages and data: no vendor reads a model name from these.
_CALLER_DATA_MEMBERS = frozenset(
    {"messages", "contents", "content", "prompt", "system", "systemInstruction"}
    | {"system_instruction", "instructions", "documents", "metadata", "labels", "arguments"}
    | {"parameters", "parametersJsonSchema", "parameters_json_schema", "input_schema", "schema"}
    | {"json_schema", "responseSchema", "response_schema", "responseJsonSchema", "variables"}
    | {"response_json_schema", "response_format", "item", "logit_bias", "cachedContent"}
)
_MODEL = "model"
MAX_MODEL_NAME = 1024
_MAX_DEPTH = 32  # nesting depth of objects that can name a model
_MAX_DECODINGS = 4  # how often a name is percent-decoded

_UNLIKE = re.compile(r"[^a-z0-9_]")
_PLAIN = re.compile(r"[a-z0-9_]*").fullmatch
_SEGMENTS = re.compile(r"[/\\]")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
# An object (in lower case) is inspected only if it contains one of these; the last two may fold to
# ASCII letters.
_MAY_NAME = re.compile(
    rb"model|preset|fallback|agent|deployment|adapter_id|lora_path"
    rb"|token|predict|\"n\"|best_of|candidate"
    rb"|\\u|[\x80-\xff]"
)
_START = re.compile(rb"[ \t\r\n]*\{")
_NAME = re.compile(rb'[ \t\r\n]*,?[ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode


def folded(name: str) -> str:
    """Return the name of a member or form field as the least strict parser would compare it.

    Ignored are case (with Unicode case folding, as in Go's `EqualFold`, with U+017F and U+212A),
    variants of letters, and all characters other than ASCII letters, digits and `_`: some parsers
    stop at a NUL, trim white space, or read `model[]` as `model`.
    """
    return _UNLIKE.sub("", unicodedata.normalize("NFKC", name).casefold())


_MEMBER_BY_FOLDED_NAME = {folded(name): name for name in CHECKED_MEMBERS}
_OTHER_FOLDED_NAMES = _MEMBER_BY_FOLDED_NAME.keys() - CHECKED_MEMBERS  # such as `generationconfig`


# Frequent members of requests besides those, so that most requests need no folding.
_USUAL_MEMBERS = CHECKED_MEMBERS | {
    *("temperature", "top_p", "stop", "seed", "user", "metadata", "system", "instructions"),
    *("tool_choice", "parallel_tool_calls", "response_format", "stream_options", "reasoning"),
    *("reasoning_effort", "thinking", "stop_sequences", "systemInstruction", "toolConfig"),
}


def check_names(names: Collection[str]) -> None:
    """Raise APIError for a name that some parsers read as one of `CHECKED_MEMBERS`."""
    if _USUAL_MEMBERS.issuperset(names):
        return
    if _PLAIN("".join(names)) is not None and _OTHER_FOLDED_NAMES.isdisjoint(names):
        return  # nothing to fold
    for name in names:
        if (
            name not in CHECKED_MEMBERS
            and (meant := _MEMBER_BY_FOLDED_NAME.get(folded(name))) is not None
        ):
            raise ambiguous(name, meant)


def ambiguous(name: str, meant: str) -> APIError:
    """Return the error for a name that could be read as another one."""
    return invalid(
        f"The member {name[:100]!r} could be read as {meant!r}. Remove it, or spell it {meant!r}.",
        meant,
        "ambiguous_member",
    )


def names_model(name: str) -> bool:
    """Return whether a member, form field, parameter or header of this name names a model."""
    plain = folded(name)
    return _MODEL in plain or plain in _OTHER_MODEL_MEMBERS


# Names without anything to decode, and without segments of dots.
_USUAL_MODEL = re.compile(r"[A-Za-z0-9_-]+(?:[.:/@][A-Za-z0-9_-]+)*").fullmatch


@lru_cache(maxsize=1024)
def check_model(model: str) -> str:
    """Return the requested model name. Raises APIError for a name that no vendor uses.

    Such a name could leave the path it is inserted into (`..`, `a%2f..`), or be another name for a
    server that trims or truncates it.
    """
    if len(model) <= MAX_MODEL_NAME and _USUAL_MODEL(model) is not None:
        return model
    if len(model) > MAX_MODEL_NAME:
        raise _invalid_model_error(model, f"it is longer than {MAX_MODEL_NAME} characters")
    plain = model
    for _ in range(_MAX_DECODINGS):
        if not plain.isprintable() or plain != plain.strip() or "\ufffd" in plain:
            raise _invalid_model_error(model, "it has control characters, or white space around it")
        if "." in plain:
            for segment in _SEGMENTS.split(plain):
                if segment.partition(";")[0].strip() in (".", ".."):
                    raise _invalid_model_error(model, "it has '.' or '..' between slashes")
        if "%" not in plain:
            return model
        plain = _ENCODED.sub(lambda found: chr(int(found[1], 16)), plain)
    return model


def _invalid_model_error(model: str, why: str) -> APIError:
    shown = model if len(model) <= 100 else model[:100] + "…"
    return invalid(f"Invalid model name {shown!r}: {why}.", "model", "invalid_model_name")


class Inspection(msgspec.Struct, frozen=True, gc=False):
    """What a body names.

    `fields` are its members, still encoded; `model` is the model named at the top level, and
    `others` are all other models named anywhere. `calls` are the models of the calls in `requests`:
    an empty string for a call that names none. `store` is the member of that name.
    """

    fields: Fields
    model: str = ""
    others: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    store: bool | None = None

    def beside(self, model: str) -> tuple[str, ...]:
        """Return all models but `model`, each once."""
        found = dict.fromkeys((self.model, *self.others))
        return tuple(name for name in found if name and name != strip_models_prefix(model))


NOTHING = Inspection({})


def inspect(body: bytes) -> Inspection:
    """Inspect a whole body. Raises APIError (400) that names the ambiguous member."""
    try:
        body.decode()  # the decoder does not validate the bytes of strings that it skips
        try:
            fields = _object(body)
        except msgspec.DecodeError:
            if _SURROGATE.search(body) is None:
                raise
            # Half of a surrogate pair is legal JSON and has the same meaning for all parsers, but
            # the decoder refuses it.
            body = _SURROGATE.sub(rb"\\ufffd", body)
            fields = _object(body)
    except UnicodeDecodeError:
        raise _not_json_error("it is not valid UTF-8") from None
    except RecursionError:
        raise _not_json_error("it is nested too deeply") from None
    except msgspec.ValidationError:
        raise invalid("The request body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        why = str(error).removeprefix("JSON is malformed: ")
        raise _not_json_error(why) from None
    check_names(fields)
    _check_once(body, fields)
    return inspect_fields(fields)


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def _not_json_error(why: str) -> APIError:
    return invalid(
        f"The request body could not be read as JSON: {why}. Callers that are restricted to "
        "models or have a budget must send plain JSON in UTF-8."
    )


def inspect_fields(fields: Fields) -> Inspection:
    """Inspect members whose names have been checked. Raises APIError (400)."""
    walk = _Walk()
    model = ""
    calls: tuple[str, ...] = ()
    for name, raw in fields.items():
        if name == _MODEL:
            model = strip_models_prefix(_text(raw, name))
        elif name == "requests":
            calls = walk.calls(raw)
        else:
            walk.member(name, raw, 1)
    store = fields.get("store")
    kept = {b"true": True, b"false": False}.get(bytes(store)) if store is not None else None
    return Inspection(fields, model, tuple(dict.fromkeys(walk.found)), calls, kept)


def _text(raw: msgspec.Raw, name: str) -> str:
    """Return a member that must be a string; empty for null."""
    if bytes(memoryview(raw)[:4]) == b"null":
        return ""
    try:
        return check_model(_string(raw))
    except msgspec.DecodeError:
        raise invalid(
            f"Invalid type for {name!r}: expected a string.", name, "invalid_type"
        ) from None


def _check_once(text: bytes, fields: Fields) -> None:
    """Raise APIError if an object has more members than were parsed: one name is repeated.

    Members are in the order in which they were parsed, unless a later one has replaced an earlier
    one.
    """
    at = _START.match(text).end()  # type: ignore[union-attr]
    for name, raw in fields.items():
        found = _NAME.match(text, at)
        value = bytes(raw)
        known = found is not None and _string(found[1]) == name
        if found is None or not known or not text.startswith(value, found.end()):
            repeated = _string(found[1]) if found is not None else name
            raise invalid(
                f"The member {repeated[:100]!r} is given twice.", repeated, "duplicate_member"
            )
        at = found.end() + len(value)
    if _END.fullmatch(text, at) is None:
        found = _NAME.match(text, at)
        repeated = _string(found[1]) if found is not None else ""
        raise invalid(
            f"The member {repeated[:100]!r} is given twice.", repeated, "duplicate_member"
        )


class _Walk:
    """Collects the models that members name."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._in_sources = False

    def member(self, name: str, raw: msgspec.Raw, depth: int) -> None:
        """Inspect one member of an object."""
        # (`session.audio.input` contains settings.)
        data = name in _CALLER_DATA_MEMBERS or (
            name == "input" and (depth == 1 or memoryview(raw)[0] != _OBJECT)
        )
        if name == "data_sources":
            self._in_sources = True
            self._value(raw, depth)
            self._in_sources = False
        elif not data or (self._in_sources and name == "parameters"):
            self._value(raw, depth, name if names_model(name) else "")

    def calls(self, raw: msgspec.Raw) -> tuple[str, ...]:
        """Collect the models of each call in a batch."""
        if memoryview(raw)[0] != _ARRAY:
            self._value(raw, 1)
            return ()
        before, models = self.found, list[str]()
        for call in _array(raw):
            self.found = []
            self._value(call, 2)
            models += self.found or [""]
        self.found = [*before, *(model for model in models if model)]
        return tuple(dict.fromkeys(models))

    def _value(self, raw: msgspec.Raw, depth: int, naming: str = "") -> None:
        """Inspect a value; if its member is `naming` models, the strings in it are models."""
        first = memoryview(raw)[0]
        if naming and first == _QUOTE:
            if model := _text(raw, naming):
                self.found.append(strip_models_prefix(model))
            return
        if first not in (_OBJECT, _ARRAY):
            return
        text = bytes(raw)
        if not naming and _MAY_NAME.search(text.lower()) is None:
            return
        if depth > _MAX_DEPTH:
            raise invalid(f"Members that may name a model are nested deeper than {_MAX_DEPTH}.")
        if first == _ARRAY:
            for item in _array(raw):
                self._value(item, depth + 1, naming)
            return
        fields: Fields = _object(raw)
        check_names(fields)
        _check_once(text, fields)
        if naming and not any(map(names_model, fields)):
            # A table of models: all strings in it name models.
            for value in fields.values():
                self._value(value, depth + 1, naming)
            return
        for name, value in fields.items():
            self.member(name, value, depth + 1)


def strip_models_prefix(model: str) -> str:
    """Return a model's name without the prefix `models/` that Google's request bodies use."""
    return model.removeprefix("models/")


_QUOTE, _OBJECT, _ARRAY = b'"{['
