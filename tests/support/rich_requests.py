"""Chat requests of every client API, with all that their vendors document.

`FEATURES[face]` has the parts by name. Each is a body; those of one request are joined by
`body_of`: turns and tools are appended, other members are added. The turns of a part are whole:
calls have results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Body = dict[str, Any]

PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQKJSVFT0YK"
TEXT = "Q2F0cyBzbGVlcCAxNiBob3Vycy4="
CITY = {"type": "string", "description": "where", "minLength": 1}
UNIT = {"type": "string", "enum": ["C", "F"]}
DAYS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 9}
SCHEMA = {
    "type": "object",
    "properties": {
        "city": CITY,
        "unit": UNIT,
        "days": DAYS,
        "at": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/time"}]},
    },
    "$defs": {"time": {"type": "string", "format": "date-time"}},
    "required": ["city"],
    "additionalProperties": False,
}
UPPER = {
    "type": "OBJECT",
    "properties": {
        "city": {"type": "STRING", "nullable": True},
        "days": {"type": "ARRAY", "items": {"type": "INTEGER"}},
    },
    "required": ["city"],
}
SHAPE = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
ARGUMENTS = '{"city": "Oslo"}'
CACHE = {"cache_control": {"type": "ephemeral"}}
LINK = "https://images.example/a.png"


def _data(media_type: str, content: str) -> str:
    return f"data:{media_type};base64,{content}"


# ── OpenAI, chat completions ─────────────────────────────────────────────────


def _user(*content: Any, **more: Any) -> Body:
    return {"messages": [{"role": "user", "content": list(content), **more}]}


def _said(text: str) -> Body:
    return {"type": "text", "text": text}


def _function(name: str, **more: Any) -> Body:
    return {"tools": [{"type": "function", "function": {"name": name, **more}}]}


def _call(id: str, name: str = "weather", arguments: str = ARGUMENTS) -> Body:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


_WEATHER = _function("weather", description="The weather", parameters=SCHEMA)

OPENAI_CHAT: dict[str, Body] = {
    "system": {"messages": [{"role": "system", "content": "Be brief.", "name": "rules"}]},
    "developer": {
        "messages": [{"role": "developer", "content": [_said("Be brief."), _said("Be kind.")]}]
    },
    "name": _user(_said("Hi"), name="ann"),
    "earlier turn": {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two", "refusal": None},
        ]
    },
    "refused turn": {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": None, "refusal": "I cannot."},
        ]
    },
    "assistant parts": {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": [_said("Two"), {"type": "refusal", "refusal": "No."}]},
        ]
    },
    "calls": {
        "messages": [
            {"role": "user", "content": "Oslo, Rome?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [_call("call_a"), _call("call_b", arguments="{}")],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "4 C"},
            {"role": "tool", "tool_call_id": "call_b", "content": [_said("20"), _said(" C")]},
        ],
        **_WEATHER,
    },
    "call without tools": {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": [_call("call_c", "gone", "")]},
            {"role": "tool", "tool_call_id": "call_c", "content": ""},
        ]
    },
    "reasoning turn": {
        "messages": [{"role": "assistant", "content": "So.", "reasoning_content": "Hm."}]
    },
    "image": _user(
        _said("What?"),
        {"type": "image_url", "image_url": {"url": _data("image/png", PNG), "detail": "low"}},
    ),
    "image link": _user({"type": "image_url", "image_url": {"url": LINK}}),
    "audio": _user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    "pdf": _user(
        {"type": "file", "file": {"filename": "a.pdf", "file_data": _data("application/pdf", PDF)}}
    ),
    "text file": _user(
        {"type": "file", "file": {"filename": "a.txt", "file_data": _data("text/plain", TEXT)}}
    ),
    "tool": _WEATHER,
    "bare tool": _function("now"),
    "strict tool": _function("solve", parameters=SHAPE, strict=True),
    "custom tool": {
        "tools": [
            {
                "type": "custom",
                "custom": {"name": "shell", "description": "Run it", "format": {"type": "text"}},
            }
        ]
    },
    "choice: one": {
        **_WEATHER,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    },
    "choice: required": {**_WEATHER, "tool_choice": "required"},
    "choice: none": {**_WEATHER, "tool_choice": "none"},
    "choice: allowed": {
        **_WEATHER,
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "weather"}}],
            },
        },
    },
    "not parallel": {**_WEATHER, "parallel_tool_calls": False},
    "json": {"response_format": {"type": "json_object"}},
    "schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "solution",
                "description": "So",
                "schema": SHAPE,
                "strict": True,
            },
        }
    },
    "wide schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "solution", "schema": SCHEMA},
        }
    },
    "max_tokens": {"max_tokens": 4000},
    "max_completion_tokens": {"max_completion_tokens": 4000},
    "temperature": {"temperature": 0.5},
    "hot": {"temperature": 1.7},
    "top_p": {"top_p": 0.9},
    "stop": {"stop": ["END", "."]},
    "one stop": {"stop": "END"},
    "seed": {"seed": 7},
    "penalties": {"presence_penalty": -0.5, "frequency_penalty": 0.5},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "logit_bias": {"logit_bias": {"42": -100}},
    "n": {"n": 1},
    "effort: high": {"reasoning_effort": "high"},
    "effort: minimal": {"reasoning_effort": "minimal"},
    "effort: none": {"reasoning_effort": "none"},
    "verbosity": {"verbosity": "low"},
    "user": {"user": "u1"},
    "safety_identifier": {"safety_identifier": "s1"},
    "cache key": {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    "metadata": {"metadata": {"a": "b"}},
    "store": {"store": False},
    "service_tier": {"service_tier": "auto"},
    "prediction": {"prediction": {"type": "content", "content": "Hi"}},
    "modalities": {"modalities": ["text"]},
    "web search": {"web_search_options": {"search_context_size": "low"}},
    "usage": {"stream_options": {"include_usage": True}},
}

# ── Anthropic, messages ──────────────────────────────────────────────────────

_TOOL = {"name": "weather", "description": "The weather", "input_schema": SCHEMA}


def _turn(role: str, *content: Any) -> Body:
    return {"role": role, "content": list(content)}


def _use(id: str, **input: Any) -> Body:
    return {"type": "tool_use", "id": id, "name": "weather", "input": input}


def _result(id: str, content: Any, **more: Any) -> Body:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def _source(kind: str, **source: Any) -> Body:
    return {"type": kind, "source": source}


_IMAGE = _source("image", type="base64", media_type="image/png", data=PNG)

ANTHROPIC: dict[str, Body] = {
    "system": {"system": "Be brief."},
    "cached system": {"system": [_said("You know much."), {**_said("Be brief."), **CACHE}]},
    "earlier turn": {
        "messages": [_turn("user", _said("One")), {"role": "assistant", "content": "Two"}]
    },
    "calls": {
        "messages": [
            _turn("user", _said("Oslo, Rome?")),
            _turn("assistant", _said("I look."), _use("toolu_a", city="Oslo"), _use("toolu_b")),
            _turn(
                "user",
                _result("toolu_a", "4 C"),
                _result("toolu_b", [_said("no such city")], is_error=True),
                _said("So?"),
            ),
        ],
        "tools": [_TOOL],
    },
    "image in a result": {
        "messages": [
            _turn("assistant", _use("toolu_c")),
            _turn("user", _result("toolu_c", [_said("a chart"), _IMAGE])),
        ],
        "tools": [_TOOL],
    },
    "empty result": {
        "messages": [
            _turn("assistant", _use("toolu_d")),
            _turn("user", {"type": "tool_result", "tool_use_id": "toolu_d"}),
        ],
        "tools": [_TOOL],
    },
    "thoughts": {
        "messages": [
            _turn("user", _said("Oslo?")),
            _turn(
                "assistant",
                {"type": "thinking", "thinking": "I look.", "signature": "U2ln"},
                {"type": "redacted_thinking", "data": "UmVk"},
                _use("toolu_e"),
            ),
            _turn("user", _result("toolu_e", "4 C")),
        ],
        "tools": [_TOOL],
    },
    "image": {"messages": [_turn("user", _IMAGE, {**_said("What?"), **CACHE})]},
    "image link": {"messages": [_turn("user", _source("image", type="url", url=LINK))]},
    "pdf": {
        "messages": [
            _turn(
                "user",
                {
                    **_source("document", type="base64", media_type="application/pdf", data=PDF),
                    "title": "a.pdf",
                    "context": "Old",
                },
            )
        ]
    },
    "document": {
        "messages": [
            _turn(
                "user",
                {
                    **_source("document", type="text", media_type="text/plain", data="Cats sleep."),
                    "citations": {"enabled": True},
                    "title": "cats",
                },
            )
        ]
    },
    "parts of a document": {
        "messages": [
            _turn("user", _source("document", type="content", content=[_said("Cats sleep.")]))
        ]
    },
    "search results": {
        "messages": [
            _turn(
                "user",
                {
                    "type": "search_result",
                    "source": "https://a.example",
                    "title": "A",
                    "content": [_said("Cats sleep.")],
                },
            )
        ]
    },
    "cached tool": {"tools": [{**_TOOL, **CACHE}]},
    "strict tool": {"tools": [{"name": "solve", "input_schema": SHAPE, "strict": True}]},
    "bare tool": {"tools": [{"name": "now", "input_schema": {"type": "object"}}]},
    "choice: any": {
        "tools": [_TOOL],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    },
    "choice: one": {"tools": [_TOOL], "tool_choice": {"type": "tool", "name": "weather"}},
    "choice: none": {"tools": [_TOOL], "tool_choice": {"type": "none"}},
    "budget": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 6000},
    "adaptive": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
    "no thinking": {"thinking": {"type": "disabled"}},
    "schema": {"output_config": {"format": {"type": "json_schema", "schema": SHAPE}}},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 7},
    "stop": {"stop_sequences": ["END"]},
    "metadata": {"metadata": {"user_id": "u-1"}},
    "service_tier": {"service_tier": "auto"},
    "automatic cache": CACHE,
}

# ── OpenAI, responses ────────────────────────────────────────────────────────

_RESPONSES_TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather",
    "parameters": SCHEMA,
    "strict": False,
}


def _item(role: str, *content: Any) -> Body:
    return {"type": "message", "role": role, "content": list(content)}


def _in(text: str) -> Body:
    return {"type": "input_text", "text": text}


def _called(id: str) -> Body:
    return {
        "type": "function_call",
        "id": f"fc_{id}",
        "call_id": f"call_{id}",
        "name": "weather",
        "arguments": ARGUMENTS,
        "status": "completed",
    }


def _output(id: str, output: Any) -> Body:
    return {"type": "function_call_output", "call_id": f"call_{id}", "output": output}


def _image(url: str) -> Body:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


OPENAI_RESPONSES: dict[str, Body] = {
    "instructions": {"instructions": "Be brief."},
    "developer": {"input": [_item("developer", _in("Be brief."))]},
    "earlier turn": {
        "input": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]
    },
    "earlier message": {
        "input": [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Two", "annotations": []},
                    {"type": "refusal", "refusal": "No."},
                ],
            }
        ]
    },
    "calls": {
        "input": [
            _called("a"),
            _called("b"),
            _output("a", "4 C"),
            _output("b", [_in("a chart"), _image(_data("image/png", PNG))]),
        ],
        "tools": [_RESPONSES_TOOL],
    },
    "reasoning": {
        "input": [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "I look."}],
                "encrypted_content": "RW5j",
            },
            _called("c"),
            _output("c", "4 C"),
        ],
        "tools": [_RESPONSES_TOOL],
        "include": ["reasoning.encrypted_content"],
    },
    "custom call": {
        "input": [
            {"type": "custom_tool_call", "call_id": "call_d", "name": "shell", "input": "ls"},
            {"type": "custom_tool_call_output", "call_id": "call_d", "output": "a"},
        ],
        "tools": [{"type": "custom", "name": "shell"}],
    },
    "image": {"input": [_item("user", _in("What?"), _image(_data("image/png", PNG)))]},
    "image link": {"input": [_item("user", _image(LINK))]},
    "pdf": {
        "input": [
            _item(
                "user",
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": _data("application/pdf", PDF),
                },
            )
        ]
    },
    "tool": {"tools": [_RESPONSES_TOOL]},
    "strict tool": {
        "tools": [{"type": "function", "name": "solve", "parameters": SHAPE, "strict": True}]
    },
    "choice: required": {"tools": [_RESPONSES_TOOL], "tool_choice": "required"},
    "choice: one": {
        "tools": [_RESPONSES_TOOL],
        "tool_choice": {"type": "function", "name": "weather"},
    },
    "choice: allowed": {
        "tools": [_RESPONSES_TOOL],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "weather"}],
        },
    },
    "not parallel": {"tools": [_RESPONSES_TOOL], "parallel_tool_calls": False, "max_tool_calls": 3},
    "effort": {"reasoning": {"effort": "high", "summary": "auto"}},
    "no effort": {"reasoning": {"effort": "none"}},
    "schema": {
        "text": {
            "format": {"type": "json_schema", "name": "solution", "strict": True, "schema": SHAPE},
            "verbosity": "low",
        }
    },
    "json": {"text": {"format": {"type": "json_object"}}},
    "limits": {"max_output_tokens": 4000, "temperature": 0.5, "top_p": 0.9},
    "logprobs": {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    "options": {
        "metadata": {"a": "b"},
        "truncation": "disabled",
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
    },
    "user": {"user": "u1"},
}

# ── Google, generateContent ──────────────────────────────────────────────────


def _content(role: str, *parts: Any) -> Body:
    return {
        "role": role,
        "parts": [{"text": part} if isinstance(part, str) else part for part in parts],
    }


def _config(**members: Any) -> Body:
    return {"generationConfig": members}


_DECLARED = {
    "tools": [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "The weather", "parametersJsonSchema": SCHEMA}
            ]
        }
    ]
}


def _google_call(**more: Any) -> Body:
    return {"functionCall": {"name": "weather", "args": {"city": "Oslo"}, **more}}


def _google_result(value: Any, **more: Any) -> Body:
    return {"functionResponse": {"name": "weather", "response": value, **more}}


GEMINI: dict[str, Body] = {
    "system": {"systemInstruction": {"parts": [{"text": "Be brief."}]}},
    "earlier turn": {"contents": [_content("user", "One"), _content("model", "Two")]},
    "calls": {
        "contents": [
            _content("user", "Oslo, Rome?"),
            _content("model", "I look.", _google_call(), _google_call()),
            _content(
                "user", _google_result({"result": "4 C"}), _google_result({"sky": {"clouds": 3}})
            ),
        ],
        **_DECLARED,
    },
    "calls with ids": {
        "contents": [
            _content("model", _google_call(id="a"), _google_call(id="b")),
            _content(
                "user",
                _google_result({"output": 1}, id="b"),
                _google_result({"error": "no"}, id="a"),
            ),
        ],
        **_DECLARED,
    },
    "thoughts": {
        "contents": [
            _content(
                "model",
                {"text": "I look.", "thought": True},
                {**_google_call(), "thoughtSignature": "U2ln"},
            ),
            _content("user", _google_result({"result": "4 C"})),
        ],
        **_DECLARED,
    },
    "image": {
        "contents": [
            _content("user", "What?", {"inlineData": {"mimeType": "image/png", "data": PNG}})
        ]
    },
    "image link": {
        "contents": [_content("user", {"fileData": {"mimeType": "image/png", "fileUri": LINK}})]
    },
    "audio": {
        "contents": [_content("user", {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}})]
    },
    "pdf": {
        "contents": [
            _content(
                "user",
                {
                    "inlineData": {
                        "mimeType": "application/pdf",
                        "data": PDF,
                        "displayName": "a.pdf",
                    }
                },
            )
        ]
    },
    "tool": _DECLARED,
    "upper tool": {
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "sky",
                        "description": "The sky",
                        "parameters": UPPER,
                        "response": UPPER,
                    },
                    {"name": "now", "description": "Now"},
                ]
            }
        ]
    },
    "choice: any": {
        **_DECLARED,
        "toolConfig": {
            "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}
        },
    },
    "choice: none": {**_DECLARED, "toolConfig": {"functionCallingConfig": {"mode": "NONE"}}},
    "budget": _config(
        maxOutputTokens=6000, thinkingConfig={"thinkingBudget": 2048, "includeThoughts": True}
    ),
    "level": _config(thinkingConfig={"thinkingLevel": "HIGH"}),
    "no thinking": _config(thinkingConfig={"thinkingBudget": 0}),
    "schema": _config(responseMimeType="application/json", responseJsonSchema=SHAPE),
    "upper schema": _config(responseMimeType="application/json", responseSchema=UPPER),
    "sampling": _config(
        temperature=0.5, topP=0.9, topK=7, seed=5, stopSequences=["END"], candidateCount=1
    ),
    "penalties": _config(presencePenalty=0.5, frequencyPenalty=0.5),
    "logprobs": _config(responseLogprobs=True, logprobs=2),
    "modalities": _config(responseModalities=["TEXT"], mediaResolution="MEDIA_RESOLUTION_LOW"),
    "safety": {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    },
}

FEATURES: dict[str, dict[str, Body]] = {
    "openai_chat": OPENAI_CHAT,
    "anthropic": ANTHROPIC,
    "openai_responses": OPENAI_RESPONSES,
    "gemini": GEMINI,
}
_LAST: dict[str, Body] = {
    "openai_chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "anthropic": {"messages": [{"role": "user", "content": "Hi"}]},
    "openai_responses": {"input": [{"role": "user", "content": "Hi"}]},
    "gemini": {"contents": [_content("user", "Hi")]},
}
_APPENDED = ("messages", "input", "contents", "tools", "include")


def body_of(face: str, names: Iterable[str]) -> Body:
    """One request with the parts of these names; a turn of the user is its last one."""
    body: Body = {"max_tokens": 4000} if face == "anthropic" else {}
    for part in [*(FEATURES[face][name] for name in names), _LAST[face]]:
        for name, value in part.items():
            if name in _APPENDED:
                body[name] = [
                    *body.get(name, ()),
                    *(each for each in value if each not in body.get(name, ())),
                ]
            elif name == "generationConfig":
                body[name] = body.get(name, {}) | value
            else:
                body[name] = value
    return body
