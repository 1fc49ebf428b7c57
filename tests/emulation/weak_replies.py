"""Replies of models that have no tools, written by hand after what small models send.

Each has a name, the reply, the calls in it, and the text that the client must be sent. `None` for
the calls: the reply cannot be used, and the model is asked again.
"""

from __future__ import annotations

from typing import Any

Calls = list[tuple[str, dict[str, Any]]]

PARIS: tuple[str, dict[str, Any]] = ("get_weather", {"city": "Paris"})
LIMA: tuple[str, dict[str, Any]] = ("get_weather", {"city": "Lima", "unit": "C"})
SEARCH: tuple[str, dict[str, Any]] = ("search-docs", {"query": 'a "quoted" {word}', "limit": 3})
CODE: tuple[str, dict[str, Any]] = ("search-docs", {"query": "```python\nprint({})\n```"})

_PARIS = '{"city": "Paris"}'
_SEARCH = '{"query": "a \\"quoted\\" {word}", "limit": 3}'
_CALL = f'{{"toolId": "get_weather", "arguments": {_PARIS}}}'
_OTHER = f'{{"toolId": "search-docs", "arguments": {_SEARCH}}}'
_AS_TEXT = '{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}'
_NAMED = f'{{"name": "get_weather", "arguments": {_PARIS}}}'

BASE: list[tuple[str, str, Calls | None, str]] = [
    # as instructed
    ("one call", f"1: {_CALL}", [PARIS], ""),
    ("one call without space", f"1:{_CALL}", [PARIS], ""),
    ("spaces before", f"  1: {_CALL}\n\n", [PARIS], ""),
    ("a full-width colon", f"1\uff1a{_CALL}", [PARIS], ""),
    ("two lines", f"1: {_CALL}\n1: {_OTHER}", [PARIS, SEARCH], ""),
    ("two lines with an empty one", f"1: {_CALL}\n\n1: {_OTHER}\n", [PARIS, SEARCH], ""),
    ("a list", f"1: [{_CALL}, {_OTHER}]", [PARIS, SEARCH], ""),
    (
        "over several lines",
        '1: {\n  "toolId": "get_weather",\n  "arguments": {\n    "city": "Paris"\n  }\n}',
        [PARIS],
        "",
    ),
    ("the same twice", f"1: {_CALL}\n1: {_CALL}", [PARIS], ""),
    (
        "arguments as text",
        '1: {"toolId": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}',
        [PARIS],
        "",
    ),
    ("arguments beside the id", '1: {"toolId": "get_weather", "city": "Paris"}', [PARIS], ""),
    ("parameters", f'1: {{"toolId": "get_weather", "parameters": {_PARIS}}}', [PARIS], ""),
    ("braces in a string", f"1: {_OTHER}", [SEARCH], ""),
    (
        "code in a string",
        '1: {"toolId": "search-docs", "arguments": {"query": "```python\\nprint({})\\n```"}}',
        [CODE],
        "",
    ),
    ("an answer", "0: It is sunny.", [], "It is sunny."),
    ("an answer without space", "0:It is sunny.", [], "It is sunny."),
    ("an answer on the next line", "0:\nIt is sunny.", [], "It is sunny."),
    ("an answer without mark", "It is sunny.", [], "It is sunny."),
    # prose around
    ("prose before", f"Let me check that.\n1: {_CALL}", [PARIS], "Let me check that."),
    ("prose in the line", f"I will call {_CALL}", [PARIS], "I will call"),
    ("prose around", f"Sure! {_CALL} One moment.", [PARIS], "Sure! One moment."),
    ("prose between", f"First: {_CALL} then: {_OTHER}", [PARIS, SEARCH], "First: then:"),
    ("an answer mark before a call", f"0: Let me see.\n1: {_CALL}", [PARIS], "Let me see."),
    # code fences
    ("a fence", f"```json\n{_CALL}\n```", [PARIS], ""),
    ("a fence without language", f"```\n{_CALL}\n```", [PARIS], ""),
    ("a fence in one line", f"```{_CALL}```", [PARIS], ""),
    ("a fence after the mark", f"1: ```json\n{_CALL}\n```", [PARIS], ""),
    ("a mark in a fence", f"```\n1: {_CALL}\n```", [PARIS], ""),
    (
        "a fence with prose",
        f"Here you go:\n```json\n{_NAMED}\n```\nDone.",
        [PARIS],
        "Here you go:\nDone.",
    ),
    ("a fence with two calls", f"```json\n{_CALL}\n{_OTHER}\n```", [PARIS, SEARCH], ""),
    ("a fence with a list", f"```json\n[{_NAMED}]\n```", [PARIS], ""),
    ("a fence that is not closed", f"```json\n{_CALL}", [PARIS], ""),
    ("a fence named after tools", f"```tool_call\n{_NAMED}\n```", [PARIS], ""),
    # other notations
    ("name and arguments", _NAMED, [PARIS], ""),
    ("name and parameters", f'{{"name": "get_weather", "parameters": {_PARIS}}}', [PARIS], ""),
    ("name and args", f'{{"name": "get_weather", "args": {_PARIS}}}', [PARIS], ""),
    ("tool and tool_input", f'{{"tool": "get_weather", "tool_input": {_PARIS}}}', [PARIS], ""),
    (
        "action and action_input",
        f'{{"action": "get_weather", "action_input": {_PARIS}}}',
        [PARIS],
        "",
    ),
    ("function with a name", f'{{"function": "get_weather", "arguments": {_PARIS}}}', [PARIS], ""),
    ("arguments first", f'{{"arguments": {_PARIS}, "name": "get_weather"}}', [PARIS], ""),
    (
        "OpenAI's call",
        f'{{"id": "c", "type": "function", "function": {_AS_TEXT}}}',
        [PARIS],
        "",
    ),
    (
        "OpenAI's list",
        f'{{"tool_calls": [{{"type": "function", "function": {_AS_TEXT}}}]}}',
        [PARIS],
        "",
    ),
    ("the name as member", f'{{"get_weather": {_PARIS}}}', [PARIS], ""),
    ("tags of Hermes", f"<tool_call>\n{_NAMED}\n</tool_call>", [PARIS], ""),
    (
        "two tags of Hermes",
        f"<tool_call>{_NAMED}</tool_call>\n<tool_call>{_OTHER}</tool_call>",
        [PARIS, SEARCH],
        "",
    ),
    ("a tag that is not closed", f"<tool_call>\n{_NAMED}", [PARIS], ""),
    ("prose and a tag", f"Checking.\n<tool_call>\n{_NAMED}\n</tool_call>", [PARIS], "Checking."),
    (
        "elements of Qwen",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        [PARIS],
        "",
    ),
    (
        "elements of Qwen without the outer",
        "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
        [PARIS],
        "",
    ),
    ("a function tag with JSON", f"<function=get_weather>{_PARIS}</function>", [PARIS], ""),
    (
        "elements of Claude",
        '<function_calls>\n<invoke name="get_weather">\n'
        '<parameter name="city">Paris</parameter>\n</invoke>\n</function_calls>',
        [PARIS],
        "",
    ),
    (
        "pairs of GLM",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
        [PARIS],
        "",
    ),
    ("the mark of Mistral", f"[TOOL_CALLS][{_NAMED}]", [PARIS], ""),
    (
        "the mark of Llama",
        f'<|python_tag|>{{"name": "get_weather", "parameters": {_PARIS}}}',
        [PARIS],
        "",
    ),
    (
        "the marks of Kimi",
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{_PARIS}<|tool_call_end|><|tool_calls_section_end|>",
        [PARIS],
        "",
    ),
    (
        "the marks of DeepSeek",
        f"<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>get_weather\n```json\n{_PARIS}\n```<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>",
        [PARIS],
        "",
    ),
    ("a Python call", 'get_weather(city="Paris")', [PARIS], ""),
    (
        "a list of Python calls",
        '[get_weather(city="Paris"), get_weather(city="Lima", unit="C")]',
        [PARIS, LIMA],
        "",
    ),
    ("ReAct", f"Action: get_weather\nAction Input: {_PARIS}", [PARIS], ""),
    (
        "ReAct with a thought",
        f"Thought: I need the weather.\nAction: get_weather\nAction Input: {_PARIS}",
        [PARIS],
        "Thought: I need the weather.",
    ),
    # slips
    (
        "a trailing comma",
        '1: {"toolId": "get_weather", "arguments": {"city": "Paris",},}',
        [PARIS],
        "",
    ),
    ("single quotes", "1: {'toolId': 'get_weather', 'arguments': {'city': 'Paris'}}", [PARIS], ""),
    ("another case", f'1: {{"toolId": "Get_Weather", "arguments": {_PARIS}}}', [PARIS], ""),
    (
        "a low line for a hyphen",
        f'1: {{"toolId": "search_docs", "arguments": {_SEARCH}}}',
        [SEARCH],
        "",
    ),
    (
        "the prefix functions",
        f'{{"name": "functions.get_weather", "arguments": {_PARIS}}}',
        [PARIS],
        "",
    ),
    (
        "a line break in a string",
        '1: {"toolId": "search-docs", "arguments": {"query": "```python\nprint({})\n```"}}',
        [CODE],
        "",
    ),
    # replies that cannot be used
    ("half JSON", '1: {"toolId": "get_weather", "arguments": {"city": "Par', None, ""),
    ("half JSON in a fence", '```json\n{"toolId": "get_weather", "argum', None, ""),
    ("half JSON in a tag", '<tool_call>\n{"name": "get_weather", "arguments": {', None, ""),
    ("half JSON with a name", '{"name": "get_weather", "arguments": {"city"', None, ""),
    ("nothing after the mark", "1:", None, ""),
    ("a wrong name", '1: {"toolId": "get_time", "arguments": {}}', None, ""),
    (
        "a wrong name in a tag",
        '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>',
        None,
        "",
    ),
    ("a wrong name without mark", '{"name": "get_time", "arguments": {}}', None, ""),
    ("a wrong name as element", "<function=get_time>\n</function>", None, ""),
    ("a tag without a call", "<tool_call>the weather</tool_call>", None, ""),
    ("no name", f'1: {{"arguments": {_PARIS}}}', None, ""),
    ("a missing argument", '1: {"toolId": "get_weather", "arguments": {}}', None, ""),
    ("a wrong type", '1: {"toolId": "get_weather", "arguments": {"city": 7}}', None, ""),
    (
        "a value that is not allowed",
        '1: {"toolId": "get_weather", "arguments": {"city": "Lima", "unit": "K"}}',
        None,
        "",
    ),
    ("a list of arguments", '1: {"toolId": "get_weather", "arguments": ["Paris"]}', None, ""),
    ("broken JSON", '1: {"toolId": "get_weather" "arguments": {"city": "Paris"}}', None, ""),
    (
        "a task instead of arguments",
        '1: [{"toolId": "get_weather", "task": "look at Paris"}]',
        None,
        "",
    ),
    ("prose and half JSON", 'Checking.\n1: {"toolId": "get_weather"', None, "Checking."),
    # answers that look like calls
    (
        "JSON",
        '{"temperature": 20, "sky": {"name": "clear"}}',
        [],
        '{"temperature": 20, "sky": {"name": "clear"}}',
    ),
    ("JSON with a name", '{"name": "Ann", "age": 7}', [], '{"name": "Ann", "age": 7}'),
    (
        "JSON in a fence",
        '```json\n{"name": "app", "version": "1"}\n```',
        [],
        '```json\n{"name": "app", "version": "1"}\n```',
    ),
    (
        "code",
        'Use this:\n```python\ncall = {"name": "get_weather"}\n```\nDone.',
        [],
        'Use this:\n```python\ncall = {"name": "get_weather"}\n```\nDone.',
    ),
    (
        "markup",
        "<b>bold</b>, a < b, [a](b), `x`, {y} and ``` alone",
        [],
        "<b>bold</b>, a < b, [a](b), `x`, {y} and ``` alone",
    ),
    ("a numbered list", "1: one\n2: two", [], "1: one\n2: two"),
    (
        "the name of a tool",
        "I used get_weather(city) and search-docs.",
        [],
        "I used get_weather(city) and search-docs.",
    ),
    ("JSON that is cut off", '{"temperature": 20, "sk', [], '{"temperature": 20, "sk'),
    ("an action of people", "Action: go home\nNow.", [], "Action: go home\nNow."),
]
REPLIES = [
    *BASE,
    *(
        (f"{name}, after an answer of lines", f"Two lines.\nOf text.\n{reply}", calls, text)
        for name, reply, calls, text in BASE
        if calls and not text
    ),
]
