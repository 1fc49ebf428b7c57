"""The costs of exchanges."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects.output_limits import output_tokens
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import Price, Prices, Ratio, Ratios, Tier
from asgi_aiproxy.prices.file_estimate import REFERENCE_TOKENS
from asgi_aiproxy.prices.price import to_rates
from asgi_aiproxy.prices.ratios import millionths
from asgi_aiproxy.prices.token_estimate import SentRequest, estimate_size

ONE = 1_000_000  # the ratio of a group that pays full prices
SONNET = Price(
    input=3,
    output=15,
    cache_read=0.3,
    cache_write=3.75,
    cache_write_1h=6,
    tiers=(Tier(above=200_000, input=6, output=22.5, cache_read=0.6),),
)
AUDIO = Price(input=2.5, output=10, audio_input=40, audio_output=80, reasoning=12, request=0.005)


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (SONNET, Usage(), 0),
        (SONNET, Usage(input=1000), 3000),
        (SONNET, Usage(output=1000), 15_000),
        (SONNET, Usage(input=1000, output=100), 4500),
        # Cached tokens are part of the input, and cheaper.
        (SONNET, Usage(input=1000, cache_read=900), 300 + 270),
        (SONNET, Usage(input=1000, cache_write=1000), 3750),
        (SONNET, Usage(input=1000, cache_write=1000, cache_write_1h=400), 2250 + 2400),
        # A long prompt costs more from its first token, and so does its answer.
        (SONNET, Usage(input=200_000), 600_000),
        (SONNET, Usage(input=200_001, output=10), 6 * 200_001 + 225),
        (SONNET, Usage(input=300_000, cache_read=300_000), 180_000),
        # Reasoning costs as much as other output, unless it has a price.
        (SONNET, Usage(output=1000, reasoning=900), 15_000),
        (AUDIO, Usage(output=1000, reasoning=900), 5000 + 1000 + 10_800),
        (AUDIO, Usage(input=100, audio_input=60), 5000 + 100 + 2400),
        (AUDIO, Usage(output=100, audio_output=50), 5000 + 500 + 4000),
        (AUDIO, Usage(), 5000),
        # A part of a micro-dollar counts as a whole.
        (Price(input=0.0375), Usage(input=1), 1),
        (Price(input=0.1), Usage(input=10), 1),
        (Price(input=0.1), Usage(input=11), 2),
        (Price(input=0.07), Usage(input=100), 7),
        # Contradictory counts cannot lower the cost.
        (SONNET, Usage(input=10, cache_read=1000), 300),
        (SONNET, Usage(output=10, reasoning=1000), 15_000),
        (Price(), Usage(input=10**9, output=10**9), 0),
    ],
)
def test_an_exchange_costs_what_its_kinds_of_tokens_cost(
    price: Price, usage: Usage, cost: int
) -> None:
    assert to_rates(price).cost(usage) == cost
    assert Prices({"m": price}, listed=False).cost("p", "m", usage, ONE) == cost


TOKENS = st.integers(0, 3_000_000)
PRICES = st.decimals(0, 200, places=4).map(float)


@given(PRICES, PRICES, TOKENS, TOKENS)
def test_a_cost_is_never_off_by_a_whole_micro_dollar(a: float, b: float, i: int, o: int) -> None:
    exact = Fraction(str(a)) * i + Fraction(str(b)) * o
    assert 0 <= to_rates(Price(input=a, output=b)).cost(Usage(input=i, output=o)) - exact < 1


KINDS = ("cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output")
KINDS += ("image_input", "image_output")
SOME = st.none() | PRICES
TIERS = st.builds(Tier, above=TOKENS, input=SOME, output=SOME, cache_read=SOME, cache_write_1h=SOME)
ANY_PRICE = st.builds(
    Price,
    input=PRICES,
    output=PRICES,
    request=PRICES,
    tiers=st.lists(TIERS, max_size=3, unique_by=lambda tier: tier.above).map(tuple),
    **dict.fromkeys(KINDS, SOME),
)


@given(ANY_PRICE, TOKENS, TOKENS, st.data())
def test_no_kind_of_token_costs_more_than_what_was_reserved(
    price: Price, most_in: int, most_out: int, data: st.DataObject
) -> None:
    i, o = data.draw(st.integers(0, most_in)), data.draw(st.integers(0, most_out))
    read = data.draw(st.integers(0, i))
    used = Usage(
        input=i,
        output=o,
        cache_read=read,
        cache_write=data.draw(st.integers(0, i - read)),
        cache_write_1h=data.draw(TOKENS),
        audio_input=data.draw(TOKENS),
        image_input=data.draw(TOKENS),
        reasoning=data.draw(st.integers(0, o)),
        audio_output=data.draw(TOKENS),
        image_output=data.draw(TOKENS),
    )
    found = to_rates(price)
    assert 0 <= found.cost(used) <= found.max_cost(most_in, most_out)


def test_a_group_pays_its_ratio_of_a_price() -> None:
    prices = Prices({"m": SONNET}, listed=False)
    assert prices.cost("p", "m", Usage(input=1000), millionths(0.5)) == 1500
    assert prices.cost("p", "m", Usage(input=1000), millionths(1.1)) == 3300
    assert prices.cost("p", "m", Usage(input=1000), 0) == 0
    assert prices.max_cost("p", "m", 1000, 0, millionths(2)) == 12_000  # written to a cache


# ── which price ──────────────────────────────────────────────────────────────


def test_own_prices_have_precedence_and_exact_names_before_patterns() -> None:
    own = {
        "*": Price(input=1),
        "gpt-*": Price(input=2),
        "gpt-4o": Price(input=3),
        "azure/gpt-4o": Price(input=4),
        "local/*": Price(),
    }
    prices = Prices({k: own[k] for k in ("gpt-*", "local/*", "*", "azure/gpt-4o", "gpt-4o")})
    usage = Usage(input=1)
    assert prices.cost("azure", "gpt-4o", usage, ONE) == 4
    assert prices.cost("openai", "gpt-4o", usage, ONE) == 3
    assert prices.cost("openai", "gpt-4o-mini", usage, ONE) == 2
    assert prices.cost("local", "llama", usage, ONE) == 0
    assert prices.cost("other", "mystery", usage, ONE) == 1


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-2024-08-06"),
        ("anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-pro"),
        ("groq", "llama-3.3-70b-versatile"),
        ("xai", "grok-3"),
        ("mistral", "mistral-large-latest"),
        ("deepseek", "deepseek-chat"),
        ("my-openai", "gpt-4o"),  # a provider with another name: the model decides
        ("azure", "gpt-4o"),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("bedrock", "amazon.nova-lite-v1:0"),
        ("bedrock-anthropic", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("cohere", "command-a-03-2025"),
        ("moonshot", "kimi-k2-0905-preview"),
        ("vertex", "gemini-2.5-flash"),
        ("vertex-anthropic", "claude-opus-4-5@20251101"),
        ("zai", "glm-4.6"),
    ],
)
def test_models_of_the_vendors_have_their_list_prices(provider: str, model: str) -> None:
    found = Prices().find(provider, model)
    assert found is not None
    assert 0 < found.input < 100_000_000  # a hundred dollars for a million tokens
    assert found.input <= found.output
    assert found.cache_read <= found.input


def test_a_list_price_gives_the_same_cost_as_the_package_itself() -> None:
    from genai_prices import Usage as Theirs, calc_price

    rows = [
        ("openai", "gpt-4o-mini", Usage(input=1000, output=300, cache_read=400)),
        (
            "anthropic",
            "claude-sonnet-4-5",
            Usage(input=9000, output=70, cache_read=5000, cache_write=3000),
        ),
        ("anthropic", "claude-sonnet-4-5", Usage(input=250_000, output=70)),
        ("gemini", "gemini-2.5-pro", Usage(input=250_000, output=70, cache_read=100)),
    ]
    for provider, model, usage in rows:
        theirs = calc_price(
            Theirs(
                input_tokens=usage.input,
                output_tokens=usage.output,
                cache_read_tokens=usage.cache_read,
                cache_write_tokens=usage.cache_write,
            ),
            model,
            provider_id={"gemini": "google"}.get(provider, provider),
        )
        cost = Prices().cost(provider, model, usage, ONE)
        assert cost is not None
        assert 0 <= cost - theirs.total_price * 1_000_000 < 1


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "mystery-1"),
        ("", ""),
        ("ollama", "mistral-7b"),
        ("vllm", "gpt-4o"),
        ("sglang", "gpt-4o"),
    ],
)
def test_an_unknown_model_has_no_price_unless_one_is_given(provider: str, model: str) -> None:
    assert Prices().cost(provider, model, Usage(input=1), ONE) is None
    assert Prices().max_cost(provider, model, 1, 1, ONE) is None
    stated = Prices(unknown=Price(input=7))
    assert stated.cost(provider, model, Usage(input=1), ONE) == 7


def test_prices_that_change_are_looked_up_again() -> None:
    now = [0.0]
    prices = Prices(listed=False, clock=lambda: now[0])
    requested: list[float] = []

    def listed(provider: str, model: str, at: float) -> None:
        requested.append(at)

    prices._listed = listed
    for at in (0.0, 59.0, 61.0, 62.0):
        now[0] = at
        prices.find("p", "m")
    assert requested == [0.0, 61.0]


def test_the_price_list_is_only_loaded_on_first_use() -> None:
    code = """
import sys
from asgi_aiproxy.prices import Price, Prices, Ratios
prices = Prices({"m": Price(input=1)})
prices.find("p", "m")
assert not {"genai_prices", "pydantic", "httpx2"} & set(sys.modules)
prices.find("openai", "gpt-4o")
assert "genai_prices" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ConfigurationError, match=r"asgi-aiproxy\[prices\]"):
        Prices()
    assert Prices({"m": Price(input=1)}, listed=False).find("p", "m") is not None


def test_prices_are_plain_values_in_json() -> None:
    price = msgspec.json.decode(b'{"input": 3, "output": 15.5}', type=Price)
    assert price == Price(input=3, output=15.5)
    with pytest.raises(msgspec.ValidationError, match="unknown field `inptu`"):
        msgspec.json.decode(b'{"inptu": 3}', type=Price)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Price(input=-1), "input: a price must be a number >= 0, got -1"),
        (lambda: Price(output=float("nan")), "got nan"),
        (lambda: Price(tiers=(Tier(above=1, output=-2),)), "got -2"),
        (lambda: Prices({"m": 3}), "must be a Price, not int"),  # type: ignore[dict-item]
        (lambda: Ratio(-1), "model: a ratio must be a number >= 0, got -1"),
        (lambda: Ratios({"m": float("inf")}), "got inf"),
        (lambda: Ratios({}, units_per_usd=0), "at least 1"),
    ],
)
def test_an_invalid_price_is_reported_when_it_is_made(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


# ── ratios ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("model", "usage", "group", "units"),
    [
        ("gpt-4", Usage(input=100, output=50), 1.0, 15 * (100 + 2 * 50)),
        ("gpt-3.5-turbo", Usage(input=100, output=30), 1.0, 105),  # 0.75 x (100 + 39.99…)
        ("gpt-4", Usage(input=100), 0.5, 750),
        ("ada", Usage(input=1), 1.0, 1),  # never nothing for something
        ("ada", Usage(), 1.0, 0),
        ("gpt-4", Usage(input=100, output=50), 0.0, 0),
        ("other", Usage(input=10), 1.0, 300),
    ],
)
def test_units_are_group_times_model_times_prompt_and_completion(
    model: str, usage: Usage, group: float, units: int
) -> None:
    ratios = Ratios(
        {"gpt-4": Ratio(15, 2), "gpt-3.5*": Ratio(0.75, 1.333333), "ada": 0.05}, unknown=30
    )
    assert ratios.cost("openai", model, usage, millionths(group)) == units
    most = ratios.max_cost("openai", model, usage.input, usage.output, millionths(group))
    assert most == units


def test_the_value_of_a_unit_is_configurable() -> None:
    assert Ratios({}).usd(500_000) == 1.0
    assert Ratios({}, units_per_usd=100).usd(250) == 2.5
    # A ratio of 1 is two dollars for a million tokens.
    assert Ratios({"m": 1}).cost("p", "m", Usage(input=1_000_000), ONE) == 1_000_000


def test_a_model_without_ratio_has_no_price_in_units() -> None:
    assert Ratios({"a": 1}).cost("p", "b", Usage(input=1), ONE) is None


# ── estimates ────────────────────────────────────────────────────────────────


def body(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The quick brown fox jumps over the lazy dog. " * 100, 1000),
        ("def f(x):\n    return [i for i in range(x) if i % 2]\n" * 100, 2000),
        ("我们今天去公园散步然后一起吃晚饭" * 100, 1600),  # about a token a character
        ("x", 1),
    ],
)
def test_a_text_is_never_estimated_too_low_by_much(text: str, tokens: int) -> None:
    estimate = read(messages=[{"role": "user", "content": text}])
    assert tokens <= estimate <= 3 * tokens + 100


PICTURE = "iVBORw0KGgo" + "Ab+/" * 250_000  # a megabyte
DATA = "data:image/png;base64," + PICTURE
IN_OPENAI = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA}}]}


def read(**fields: object) -> int:
    """The estimated tokens of a request with these members, encoded and not."""
    encoded = body(**fields)
    raw = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    size = estimate_size(SentRequest("openai", "m", CHAT, encoded, fields), 4096)
    assert estimate_size(SentRequest("openai", "m", CHAT, encoded, raw), 4096) == size
    assert 0 < size.usual <= size.input
    return size.input


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [IN_OPENAI]},
        {"messages": [{"content": [{"type": "image_url", "image_url": DATA}]}]},
        {"input": [{"content": [{"type": "input_image", "image_url": DATA}]}]},
        {"messages": [{"content": [{"source": {
            "type": "base64", "media_type": "image/png", "data": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "tool_result", "content": [{"source": {
            "type": "base64", "media_type": "image/png", "data": PICTURE}}]}]}]},
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]}]},
        {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PICTURE}}]}]},
        {"messages": [{"content": "what is it?", "images": [PICTURE]}]},
        {"messages": [{"content": [{"image": {"format": "png", "source": {"bytes": PICTURE}}}]}]},
        {"messages": [{"content": [{"type": "input_audio", "input_audio": {
            "data": PICTURE, "format": "mp3"}}]}]},
        {"messages": [{"content": [{"type": "file", "file": {
            "file_data": "data:application/pdf;base64," + PICTURE}}]}]},
    ],
)  # fmt: skip
def test_a_file_in_a_place_for_files_is_not_counted_as_text(fields: dict[str, object]) -> None:
    assert 4_784 <= read(**fields) < 60_000


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": PICTURE}]},
        {"messages": [{"role": "user", "content": DATA}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": DATA}]}]},
        {"messages": [{"content": [{"type": "tool_use", "input": {
            "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}}]}]},
        {"tools": [{"type": "function", "function": {"description": DATA}}]},
        {"messages": [{"content": [{"source": {"type": "text", "data": PICTURE}}]}]},
        {"messages": [{"content": [{"source": {
            "type": "base64", "media_type": "text/plain", "data": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "file", "file": {
            "file_data": "data:text/plain;base64," + PICTURE}}]}]},
        {"system": DATA},
        {"prompt": PICTURE},
        {"image_url": DATA},
        {"metadata": {"content": [IN_OPENAI]}},
        {"messages": [{"content": "word " * 200_000}]},
        {"messages": [{"content": "слово" * 100_000}]},
    ],
)  # fmt: skip
def test_a_long_text_without_spaces_is_text(fields: dict[str, object]) -> None:
    assert read(**fields) > 400_000


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"messages": [{"content": [{"image_url": {"url": "https://x.test/a.png"}}]}]}, 4_784),
        (
            {"messages": [{"content": [{"source": {"type": "file", "file_id": "f"}}]}]},
            REFERENCE_TOKENS,
        ),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/b.pdf"}}]}]}, REFERENCE_TOKENS),
        ({"input": "go on", "previous_response_id": "resp_1"}, REFERENCE_TOKENS),
        ({"input": "news?", "tools": [{"type": "web_search"}]}, REFERENCE_TOKENS),
        ({"contents": [], "tools": [{"googleSearch": {}}]}, REFERENCE_TOKENS),
    ],
)
def test_content_that_is_only_referred_to_is_counted_too(
    fields: dict[str, object], least: int
) -> None:
    assert least <= read(**fields) < least + 3_000
    own = {"tools": [{"type": "function", "function": {"name": "f"}}, {"input_schema": {}}]}
    assert read(**own) < 3_000


CHAT, MESSAGES, GENERATE = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1beta/models/g:generateContent",
)
HUGE = 10**6


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [
        (CHAT, {}, 4096),
        (CHAT, {"max_tokens": 10}, 10),
        (CHAT, {"max_completion_tokens": 20}, 20),
        (CHAT, {"max_tokens": 30, "max_completion_tokens": 20}, 30),
        (CHAT, {"max_tokens": 10, "n": 3}, 30),
        (CHAT, {"n": 2}, 8192),
        (CHAT, {"max_tokens": None}, 4096),
        (CHAT, {"max_completion_tokens": None, "max_tokens": 7}, 7),
        (CHAT, {"max_tokens": "many"}, 4096),
        (CHAT, {"max_tokens": [1]}, 4096),
        (CHAT, {"max_tokens": True}, 4096),
        (CHAT, {"max_tokens": -1}, 4096),
        (CHAT, {"max_tokens": 0}, 4096),
        (CHAT, {"max_tokens": 1e6}, HUGE),
        (CHAT, {"max_tokens": "1000000"}, HUGE),
        (CHAT, {"max_tokens": 10, "n": -3}, 10),
        (CHAT, {"max_tokens": 10, "n": "3"}, 30),
        (CHAT, {"max_tokens": 10, "thinking_budget": 500}, 510),
        (CHAT, {"max_output_tokens": 1}, 4096),
        (CHAT, {"options": {"num_predict": 1}}, 4096),
        (CHAT, {"generationConfig": {"maxOutputTokens": 1}}, 4096),
        (CHAT, {"requests": [{"params": {"max_tokens": 1}}], "max_tokens": 50}, 50),
        (CHAT, {"max_output_tokens": HUGE}, HUGE),
        ("/openai/deployments/d/chat/completions", {"max_completion_tokens": 5}, 5),
        ("/v1/completions", {"max_tokens": 10, "best_of": 4}, 40),
        ("/v1/completions", {"max_tokens": 10, "n": 2, "prompt": ["a", "b", "c"]}, 60),
        ("/v1/completions", {"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ("/v1/responses", {"max_output_tokens": 30}, 30),
        ("/v1/responses", {"max_tokens": 1}, 4096),
        (MESSAGES, {"max_tokens": 10}, 10),
        (MESSAGES, {"max_tokens": 10, "thinking": {"budget_tokens": 5000}}, 5000),
        (MESSAGES, {"max_completion_tokens": 10}, 4096),
        (MESSAGES + "/batches",
         {"requests": [{"params": {"max_tokens": 7}}, {"params": {}}, {}]}, 7 + 2 * 4096),
        (GENERATE, {"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2}}, 10),
        (GENERATE, {"generation_config": {"max_output_tokens": 6}}, 6),
        (GENERATE, {"generationConfig": {"maxOutputTokens": "6"}}, 4096),
        (CHAT, {"max_tokens": 1.0}, 4096),
        (CHAT, {"max_tokens": "1"}, 4096),
        (GENERATE, {"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 9}}, 9),
        (GENERATE, {"generationConfig": {"maxOutputTokens": 0}}, 4096),
        (GENERATE, {"generationConfig": "x", "max_tokens": 1}, 4096),
        (GENERATE.replace("generate", "streamGenerate"),
         {"generationConfig": {"maxOutputTokens": 5}}, 5),
        (GENERATE.replace("generate", "batchGenerate"),
         {"batch": {"inputConfig": {"requests": {"requests": [
             {"request": {"generationConfig": {"maxOutputTokens": 5}}}] * 3}}}}, 15),
        ("/api/chat", {"options": {"num_predict": 7}}, 7),
        ("/api/chat", {"options": {"num_predict": -1}, "max_tokens": 1}, 4096),
        ("/model/m/converse", {"inferenceConfig": {"maxTokens": 8}}, 8),
        ("/model/m/invoke", {"max_tokens": 8, "thinking": {"budget_tokens": 9}}, 9),
        ("/v2/chat", {"max_tokens": 8}, 8),
        ("/v2/chat", {"max_tokens": 8, "thinking": {"token_budget": 50}}, 50),
        ("/nobody/knows", {"max_tokens": 1}, 4096),
    ],
)  # fmt: skip
def test_the_output_estimate_is_the_limit_that_the_upstream_applies(
    path: str, fields: dict[str, object], tokens: int
) -> None:
    raw = msgspec.json.decode(body(**fields), type=dict[str, msgspec.Raw])
    assert output_tokens("openai", path, raw, 4096) == tokens
    assert output_tokens("openai", path, fields, 4096) == tokens


def test_a_limit_that_a_server_may_not_support_is_ignored() -> None:
    assert output_tokens("my-server", CHAT, {"max_completion_tokens": 1}, 4096) == 4096
    assert output_tokens("my-server", CHAT, {"max_completion_tokens": HUGE}, 4096) == HUGE
    assert output_tokens("my-server", CHAT, {"max_tokens": 1}, 4096) == 1


def test_the_output_limit_of_the_price_applies_if_a_request_has_none() -> None:
    prices = Prices({"m": Price(output=1, max_output=65_536), "n": Price(output=1)}, listed=False)
    assert (prices.max_output("p", "m"), prices.max_output("p", "n")) == (65_536, None)
