"""Google's models get only what they support; the rest is converted, reported or refused."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy.dialects.gemini import capabilities
from asgi_aiproxy.errors import APIError
from tests.support.dialect_requests import HI, anthropic, openai, written

PRO, FLASH, LITE = "gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"
NEWEST = "gemini-flash-latest"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def config(model: str, **members: Any) -> tuple[Any, tuple[str, ...]]:
    draft = written("gemini", openai(**members), model)
    return draft.body.get("generationConfig", {}).get("thinkingConfig"), draft.ignored


# ── which row is whose ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "levels", "budget"),
    [
        ("gemini-1.5-pro", (), None),
        ("gemini-2.0-flash-001", (), None),
        ("gemini-2.5-pro-preview-tts", (), None),
        ("gemini-2.5-flash-image", (), None),
        ("gemini-2.5-pro", (), (128, 32_768)),
        ("models/gemini-2.5-flash-lite-preview-09-2025", (), (512, 24_576)),
        ("gemini-2.5-flash", (), (1, 24_576)),
        ("gemini-3-pro-preview", ("low", "high"), (128, 32_768)),
        ("gemini-3.1-pro-preview", ("low", "medium", "high"), (128, 32_768)),
        ("gemini-3-flash-preview", ("minimal", "low", "medium", "high"), (1, 24_576)),
        ("gemini-3.1-flash-lite", ("minimal", "low", "medium", "high"), (1, 24_576)),
        ("gemini-3-pro-image-preview", (), None),
        ("gemini-3.5-flash", ("minimal", "low", "medium", "high"), None),
        ("gemini-3.6-flash", ("minimal", "low", "medium", "high"), None),
        ("gemini-3.8-flash", ("low", "medium", "high"), None),
        ("gemini-4-pro", ("low", "medium", "high"), None),
        ("gemini-flash-latest", ("low", "medium", "high"), None),
        ("tunedModels/mine", ("low", "medium", "high"), None),
        ("gemma-3-27b-it", (), None),
    ],
)
def test_a_models_row_is_found_by_its_name(name: str, levels: Any, budget: Any) -> None:
    row = capabilities.of(name)
    assert (row.levels, row.budget) == (levels, budget)


def test_a_name_without_a_version_is_the_newest_model() -> None:
    for name in ("gemini-flash-latest", "gemini-5-ultra", "mine"):
        row = capabilities.of(name)
        assert row.levels
        assert row.both
        assert row.signatures


# ── thinking ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("model", "effort", "sent", "exact"),
    [
        (FLASH, "none", {"thinkingBudget": 0}, True),
        (LITE, "none", {"thinkingBudget": 0}, True),
        (PRO, "none", {"thinkingBudget": 128}, False),
        (PRO, "max", {"includeThoughts": True, "thinkingBudget": 32_768}, True),
        (FLASH, "xhigh", {"includeThoughts": True, "thinkingBudget": 24_576}, True),
        (LITE, "minimal", {"includeThoughts": True, "thinkingBudget": 1024}, True),
        ("gemini-3-flash", "none", {"thinkingLevel": "minimal"}, False),
        ("gemini-3-flash", "minimal", {"includeThoughts": True, "thinkingLevel": "minimal"}, True),
        ("gemini-3-pro", "none", {"thinkingLevel": "low"}, False),
        ("gemini-3-pro", "minimal", {"includeThoughts": True, "thinkingLevel": "low"}, False),
        ("gemini-3-pro", "medium", {"includeThoughts": True, "thinkingLevel": "high"}, False),
        ("gemini-3.1-pro", "medium", {"includeThoughts": True, "thinkingLevel": "medium"}, True),
        (NEWEST, "max", {"includeThoughts": True, "thinkingLevel": "high"}, True),
        (NEWEST, "minimal", {"includeThoughts": True, "thinkingLevel": "low"}, False),
        ("gemini-2.0-flash", "high", None, False),
        ("gemini-2.0-flash", "none", None, True),
        ("gemini-2.5-flash-image", "low", None, False),
    ],
)
def test_an_effort_is_sent_as_the_nearest_level_and_reported_if_it_differs(
    model: str, effort: str, sent: Any, exact: bool
) -> None:
    ignored = () if exact else ("reasoning_effort",)
    assert config(model, reasoning_effort=effort) == (sent, ignored)


@pytest.mark.parametrize(
    ("model", "budget", "sent", "exact"),
    [
        (FLASH, 2048, {"includeThoughts": True, "thinkingBudget": 2048}, True),
        (FLASH, 30_000, {"includeThoughts": True, "thinkingBudget": 24_576}, False),
        (LITE, 100, {"includeThoughts": True, "thinkingBudget": 512}, False),
        ("gemini-3-pro", 2048, {"includeThoughts": True, "thinkingBudget": 2048}, True),
        ("gemini-3.5-flash", 2048, {"includeThoughts": True, "thinkingLevel": "low"}, False),
        (NEWEST, 9000, {"includeThoughts": True, "thinkingLevel": "high"}, False),
        ("gemini-2.0-flash", 2048, None, False),
    ],
)
def test_a_budget_is_limited_to_the_range_of_the_model(
    model: str, budget: int, sent: Any, exact: bool
) -> None:
    request = anthropic(thinking={"type": "enabled", "budget_tokens": budget})
    draft = written("gemini", request, model)
    assert draft.body["generationConfig"].get("thinkingConfig") == sent
    assert draft.ignored == (() if exact else ("reasoning_effort",))


@pytest.mark.parametrize(
    ("model", "limit", "budget", "exact"),
    [
        (FLASH, 4000, 3000, True),
        (FLASH, 100_000, 24_576, True),
        (FLASH, 1, 0, False),
        (LITE, 600, 0, False),
        (PRO, 100, 128, False),
    ],
)
def test_thinking_by_effort_reserves_a_quarter_of_the_tokens_for_the_answer(
    model: str, limit: int, budget: int, exact: bool
) -> None:
    sent, ignored = config(model, reasoning_effort="high", max_completion_tokens=limit)
    assert sent["thinkingBudget"] == budget
    assert ignored == (() if exact else ("reasoning_effort",))


# ── sampling ─────────────────────────────────────────────────────────────────

SAMPLING = {"temperature": 0.2, "top_p": 0.5, "top_k": 3}
PENALTIES = {"presence_penalty": 0.5, "frequency_penalty": 0.5}


def test_sampling_parameters_without_effect_are_reported() -> None:
    for model in (NEWEST, "gemini-3.6-flash", "gemini-3.5-flash-lite"):
        draft = written("gemini", openai(**SAMPLING, **PENALTIES), model)
        assert "generationConfig" not in draft.body
        assert set(draft.ignored) == {*SAMPLING, *PENALTIES}
        usual = written("gemini", openai(temperature=1, top_p=1, presence_penalty=0), model)
        assert (usual.ignored, usual.body.get("generationConfig")) == ((), None)
    for model in (FLASH, "gemini-3-pro", "mine"):
        draft = written("gemini", openai(**SAMPLING, **PENALTIES), model)
        assert draft.ignored == ()
        assert draft.body["generationConfig"]["temperature"] == 0.2


# ── instructions ─────────────────────────────────────────────────────────────


def system(text: str, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": text}


def user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text} for text in texts]}


def test_instructions_at_the_beginning_are_the_system_instruction() -> None:
    draft = written("gemini", openai([system("A"), system("B", "developer"), *HI]))
    assert draft.body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert draft.body["contents"] == [user("Hi")]
    assert draft.ignored == ()


def test_instructions_in_mid_conversation_stay_in_place_and_are_reported() -> None:
    messages = [
        system("A"),
        *HI,
        {"role": "assistant", "content": "Hello."},
        system("In French.", "developer"),
        {"role": "user", "content": "And now?"},
    ]
    draft = written("gemini", openai(messages))
    assert draft.body["systemInstruction"] == {"parts": [{"text": "A"}]}
    assert draft.body["contents"] == [
        user("Hi"),
        {"role": "model", "parts": [{"text": "Hello."}]},
        user("<system>\nIn French.\n</system>", "And now?"),
    ]
    assert draft.ignored == ("messages[].role",)
    longer = written("gemini", openai([*messages, {"role": "assistant", "content": "Voilà."}]))
    assert longer.body["contents"][:3] == draft.body["contents"]


def test_results_are_sent_before_instructions_between_them_and_their_calls() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *HI,
        {"role": "assistant", "tool_calls": [call]},
        system("In French."),
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ]
    parts = written("gemini", openai(messages)).body["contents"][-1]["parts"]
    assert [next(iter(part)) for part in parts] == ["functionResponse", "text"]


def test_instructions_become_user_text_for_a_model_without_system_instructions() -> None:
    draft = written("gemini", openai([system("A"), *HI]), "gemma-3-27b-it")
    assert "systemInstruction" not in draft.body
    assert draft.body["contents"] == [user("<system>\nA\n</system>", "Hi")]
    assert draft.ignored == ("messages[].role",)


# ── JSON schemas ─────────────────────────────────────────────────────────────


def test_keywords_that_google_lacks_move_into_the_description_and_are_reported() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "strict": True,
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
            "s": {"type": "string", "description": "A name.", "pattern": "^a", "maxLength": 3},
            "c": {"const": "x"},
            "l": {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 1},
            "d": {"type": "string", "format": "date-time", "default": "now"},
        },
        "required": ["n"],
        "additionalProperties": False,
    }
    sent = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "strict": True,  # the vendor ignores unknown keywords itself
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": '{"exclusiveMaximum":9}'},
            "s": {"type": "string", "description": 'A name.\n\n{"pattern":"^a","maxLength":3}'},
            "c": {"enum": ["x"]},
            "l": {
                "type": "array",
                "items": {"type": "string", "description": '{"format":"email"}'},
                "minItems": 1,
            },
            "d": {"type": "string", "format": "date-time", "default": "now"},
        },
        "required": ["n"],
        "additionalProperties": False,
    }
    lost = ("exclusiveMaximum", "pattern", "maxLength", "format")
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    draft = written("gemini", openai(response_format=form))
    assert draft.body["generationConfig"]["responseJsonSchema"] == sent
    assert draft.ignored == tuple(f"response_format.json_schema.schema.{name}" for name in lost)
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    draft = written("gemini", openai(tools=[tool]))
    (declared,) = draft.body["tools"][0]["functionDeclarations"]
    assert declared["parametersJsonSchema"] == sent
    assert draft.ignored == tuple(f"tools[].function.parameters.{name}" for name in lost)


FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def test_tools_and_an_output_schema_can_be_combined_from_gemini_3_on() -> None:
    for model in ("gemini-3-pro", NEWEST):
        draft = written("gemini", openai(tools=TOOLS, response_format=FORM), model)
        assert draft.body["generationConfig"]["responseJsonSchema"] == {"type": "object"}
        assert draft.body["tools"]
        assert draft.ignored == ()


@pytest.mark.parametrize("form", [FORM, {"type": "json_object"}])
def test_before_gemini_3_an_output_schema_with_tools_is_an_instruction_and_reported(
    form: Any,
) -> None:
    for model in (PRO, "gemini-2.0-flash"):
        draft = written("gemini", openai(tools=TOOLS, response_format=form), model)
        assert "generationConfig" not in draft.body
        assert draft.body["tools"]
        (said,) = draft.body["systemInstruction"]["parts"]
        assert "JSON" in said["text"]
        assert ('{"type":"object"}' in said["text"]) is (form is FORM)
        assert draft.ignored == ("response_format",)


def test_tools_that_must_not_be_called_are_dropped_for_an_output_schema() -> None:
    draft = written("gemini", openai(tools=TOOLS, tool_choice="none", response_format=FORM), PRO)
    assert "tools" not in draft.body
    assert draft.body["generationConfig"]["responseMimeType"] == "application/json"
    assert draft.ignored == ()


# ── media ────────────────────────────────────────────────────────────────────

JPEG, GIF = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQE", "R0lGODlhAQABAIAAAAAA"


def shown(declared: str, data: str) -> list[dict[str, Any]]:
    url = f"data:{declared};base64,{data}"
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize("declared", ["image/jpg", "image/png", "image/jpeg", "image/*"])
def test_an_image_has_the_type_of_its_bytes(declared: str) -> None:
    (part,) = written("gemini", openai(shown(declared, JPEG))).body["contents"][0]["parts"]
    assert part["inlineData"]["mimeType"] == "image/jpeg"


@pytest.mark.parametrize(
    ("declared", "data", "kind"),
    [
        ("image/gif", GIF, "image/gif"),
        ("image/png", GIF, "image/gif"),
        ("image/svg+xml", "PHN2Zz48L3N2Zz4=", "image/svg+xml"),
        ("image/bmp", "AAAA", "image/bmp"),
    ],
)
def test_an_image_that_google_does_not_accept_is_refused_with_its_path(
    declared: str, data: str, kind: str
) -> None:
    with pytest.raises(APIError, match=f"not {kind}".replace("+", r"\+")) as caught:
        written("gemini", openai([*HI, *shown(declared, data)]))
    assert caught.value.param == "messages[1].content[0]"
