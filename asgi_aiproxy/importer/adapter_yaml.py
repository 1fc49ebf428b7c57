"""Take the `config.yaml` of chatgpt-adapter, as it was until 2024 and since."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.hooks import TextRule
from asgi_aiproxy.importer.plan import Plan
from asgi_aiproxy.importer.values import NO_PASSWORDS, RETIRED, table_of

_NO_TOOL = "-1"
_REWRITER = "rewriter"  # the provider of the model that rewrites prompts
# A line of the newer `matcher.regex`: two strings in double quotes, with a colon between them.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_TIMEOUTS = {"connTimeout": "connect", "responseHeaderTimeout": "first"}
_REASONS = {
    "bing": RETIRED,
    "lmsys": RETIRED,
    "you": "this gateway uses no session of another web site",
    "claude": "cookies of claude.ai are not pooled; use keys of Anthropic's API",
    "coze": "sessions of coze.com are not used; use a token of Coze's API",
    "google": "send safetySettings in the request, or set a hook",
    "cohere": "send safety_mode in the request",
    "browser-less": "this gateway imitates no browser",
    "serverless": NO_PASSWORDS,
    "clash": "outbound proxies are not switched",
    "magnify": "enlarging pictures is not part of this gateway",
    "hf": "the demo spaces belong to third parties; a Gradio server of your own is kind = 'gradio'",
    "white-addr": "set networks of [[tokens]]",
    "x-addr": "set serve --forwarded-allow-ips",
    "debug": "set log_level",
    "domain": "pictures are not kept in files",
    "specialized": "messages are sent as they are: the vendors have APIs for them",
    "server": "serve --port; [[tokens]] for its password; proxy of a provider",
    "proxied": "set proxy, or that of a provider",
}
_TAKEN = {"custom-llm", "interpreter", "llm", "toolCall", "matcher", "flags", "server-conn"}


def plan_adapter(found: Mapping[str, Any], plan: Plan) -> None:
    """Take what there is a setting for, and report the reason for all else."""
    plan.set("compat", "chatgpt_adapter", "/")
    plan.take("config.yaml", "the paths of chatgpt-adapter, at compat.chatgpt_adapter")
    _custom_servers(plan, found)
    _interpreter(plan, found)
    _rewriter(plan, table_of(found, "llm"))
    _emulation(plan, table_of(found, "toolCall"))
    _markers(plan, found)
    for name, setting in _TIMEOUTS.items():
        seconds = table_of(found, "server-conn").get(name)
        if isinstance(seconds, int | float) and seconds > 0:
            plan.set("timeouts", setting, float(seconds))
            plan.take(f"server-conn.{name}", f"the setting timeouts.{setting}")
    for place, value in found.items():
        if place not in _TAKEN and value not in (None, "", [], {}, False):
            plan.leave(str(place), _REASONS.get(place, "has no counterpart"))


# ── upstreams ────────────────────────────────────────────────────────────────


def _custom_servers(plan: Plan, found: Mapping[str, Any]) -> None:
    proxy = found.get("proxied") or table_of(found, "server").get("proxied")
    custom = found.get("custom-llm")
    items = [custom] if isinstance(custom, dict) else custom if isinstance(custom, list) else []
    for index, item in enumerate(items):
        _custom_server(plan, item, f"custom-llm[{index}]", str(proxy or ""))


def _custom_server(plan: Plan, item: object, place: str, proxy: str) -> None:
    if not isinstance(item, dict):
        plan.reject(place, "must be a mapping with base-url and prefix")
        return
    url = item.get("base-url") or item.get("baseUrl") or item.get("reversal")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", str(item.get("prefix") or "custom").strip("/"))
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        plan.reject(place, "base-url must begin with http:// or https://")
        return
    if name in plan.settings.get("providers", {}):
        plan.reject(place, f"the prefix {name!r} is given twice")
        return
    table: dict[str, Any] = {"kind": "openai-compatible", "base_url": url.rstrip("/")}
    if proxy and str(item.get("use-proxies")).lower() == "true":
        table["proxy"] = proxy
    plan.set("providers", name, table)
    plan.take(place, f"the provider {name}: models are requested as {name}/MODEL")
    if str(item.get("tc")).lower() == "true":
        plan.set("providers", name, "emulate", ["tools"])
        plan.take(f"{place}.tc", f"tools are emulated for the provider {name}")


def _interpreter(plan: Plan, found: Mapping[str, Any]) -> None:
    given = table_of(found, "interpreter")
    url = given.get("base-url") or given.get("baseUrl")
    if isinstance(url, str) and url.startswith("http"):
        base = url.rstrip("/")
        base = base if base.endswith("/openai") else f"{base}/openai"
        plan.set("providers", "interpreter", {"kind": "openai-compatible", "base_url": base})
        plan.take("interpreter.base-url", "the provider interpreter (its OpenAI-compatible API)")


def _rewriter(plan: Plan, given: Mapping[str, Any]) -> None:
    """Take `llm`, the chat model that rewrites the prompts of pictures."""
    url, model = given.get("base-url") or given.get("baseUrl"), given.get("model")
    if not given:
        return
    if not (isinstance(url, str) and url.startswith(("http://", "https://")) and model):
        plan.reject("llm", "must have a model and a base-url that begins with http:// or https://")
        return
    base = f"{url.rstrip('/')}/v1"
    plan.set("providers", _REWRITER, {"kind": "openai-compatible", "base_url": base})
    if given.get("token"):
        plan.add_key(_REWRITER, str(given["token"]), "llm.token")
    plan.set("compat", "images", {"rewriter": f"{_REWRITER}/{model}"})
    plan.take("llm", f"the provider {_REWRITER}, and the setting compat.images.rewriter")


# ── tools, markers, filters ──────────────────────────────────────────────────


def _emulation(plan: Plan, given: Mapping[str, Any]) -> None:
    """Take `toolCall` for the servers whose tools are emulated (`tc`)."""
    if str(given.get("enabled")).lower() != "true":
        return
    options: dict[str, Any] = {"features": ["tools"]}
    if (tool := str(given.get("id") or _NO_TOOL)) != _NO_TOOL:
        options["default_tool"] = tool
    if str(given.get("tasks")).lower() == "true":
        options["tasks"] = True
    servers = [name for name, table in plan.settings.get("providers", {}).items()
               if "emulate" in table]  # fmt: skip
    for name in servers:
        if len(options) > 1:
            plan.set("providers", name, "emulate", options)
        plan.take("toolCall", f"emulate of the provider {name}")
    if not servers:
        plan.leave("toolCall", "no custom-llm has tc: true; set emulate of a provider")


def _markers(plan: Plan, found: Mapping[str, Any]) -> None:
    if str(found.get("flags")).lower() == "true":
        plan.set("markers", True)
        plan.take("flags", "the setting markers, which needs the extra markers")
    matchers = found.get("matcher")
    rules = []
    for index, item in enumerate(matchers if isinstance(matchers, list) else []):
        place = f"matcher[{index}]"
        try:
            rules.append(_rule(item))
        except (ConfigurationError, ValueError) as error:
            plan.reject(place, str(error).rstrip("."))
        else:
            plan.take(place, "an entry of [[matchers]]")
    if rules:
        plan.set("matchers", rules)


def _rule(item: object) -> dict[str, Any]:
    """Return one of `[[matchers]]`. Raises ValueError and ConfigurationError."""
    if not isinstance(item, dict):
        raise ValueError("must be a mapping with find and content, or match and regex")
    newer = "match" in item
    content = _newer_content(item.get("regex")) if newer else str(item.get("content") or "")
    rule: dict[str, Any] = {
        "find": str(item.get("match" if newer else "find") or ""),
        "content": content,
        "end": str(item.get("over" if newer else "end") or ""),
        "desc": str(item.get("notice" if newer else "desc") or ""),
    }
    if item.get("len") not in (None, ""):
        rule["len"] = int(item["len"])
    TextRule(
        find=rule["find"],
        replace=content,
        end=rule["end"],
        description=rule["desc"],
        **({"length": rule["len"]} if "len" in rule else {}),
    )
    return {name: value for name, value in rule.items() if value != ""}


def _newer_content(given: object) -> str:
    """Return `"PATTERN":"REPLACEMENT"` without quotes, colons of the pattern escaped."""
    found = _QUOTED.findall(str(given or ""))
    if len(found) != 1:
        raise ValueError('regex: must be one line "PATTERN":"REPLACEMENT"')
    pattern, replacement = found[0]
    return re.sub(r"(?<!\\):", r"\\:", pattern) + f":{replacement}"
