"""Read YAML files, and take those of aiproxy and LiteLLM."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.importer.plan import Plan
from asgi_aiproxy.importer.values import NO_PASSWORDS, RETIRED, table_of, value_at

_ENV = re.compile(r"os\.environ/(\w+)|\$\{?(\w+)\}?")
_WEB = "a session of a web site is only used when its owner sends it; see compat.{}"
_CAPTCHA = "this gateway solves no captchas"
_SERVER = "belongs to the server: serve --port, --ssl-certfile, --ssl-keyfile"


def read_yaml(text: str) -> dict[str, Any]:
    """Return the mapping in a YAML text. Raises ConfigurationError."""
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError as error:
        raise ConfigurationError(
            "To import YAML files, install PyYAML: pip install 'asgi-aiproxy[serve]'."
        ) from error
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise ConfigurationError(f"The file is not valid YAML{line}.") from error
    if not isinstance(found, dict):
        raise ConfigurationError("The file must be a YAML mapping.")
    return found


def kind_of_yaml(found: Mapping[str, Any]) -> str:
    """Return which program's configuration this is: `aiproxy`, `adapter` or `litellm`; empty if
    it is unknown.
    """
    if "model_list" in found or "litellm_settings" in found:
        return "litellm"
    names = set(found)
    if names & {"google_gemini", "arkose", "hars_path", "https_info"} or (
        names & {"openai", "claude"} and isinstance(found.get("port"), str)
    ):
        return "aiproxy"
    if names & {"custom-llm", "server-conn", "white-addr", "toolCall", "browser-less", "lmsys",
                "interpreter", "matcher", "serverless", "specialized"}:  # fmt: skip
        return "adapter"
    return ""


# ── aiproxy ──────────────────────────────────────────────────────────────────


def plan_aiproxy(found: Mapping[str, Any], plan: Plan) -> None:
    """Take the `c.yaml` of aiproxy."""
    plan.set("compat", "aiproxy", "/")
    plan.take("c.yaml", "the paths of aiproxy, at compat.aiproxy")
    if isinstance(proxy := found.get("proxy_url"), str) and proxy:
        plan.set("proxy", proxy)
        plan.take("proxy_url", "the setting proxy")
    _provider_keys(plan, found, "openai", "openai", "api_keys")
    _provider_keys(plan, found, "google_gemini", "gemini", "api_keys")
    _provider_keys(plan, found, "claude", "anthropic", "api_keys")
    gemini = table_of(found, "google_gemini")
    if isinstance(model := gemini.get("model"), str) and model:
        plan.set("compat", "gemini_model", model)
        plan.take("google_gemini.model", "the setting compat.gemini_model")
    if version := table_of(found, "claude").get("api_version"):
        plan.set("providers", "anthropic", "headers", {"anthropic-version": str(version)})
        plan.take("claude.api_version", "the header anthropic-version of the provider anthropic")
    _coze_bots(plan, table_of(table_of(found, "coze"), "api_chat"))
    for section, provider in (("openai", "openai"), ("google_gemini", "gemini"),
                              ("claude", "anthropic"), ("coze", "coze")):  # fmt: skip
        url = table_of(found, section).get("proxy_url")
        if isinstance(url, str) and url:
            plan.set("providers", provider, "proxy", url)
            plan.take(f"{section}.proxy_url", f"the proxy of the provider {provider}")
    reasons = {
        "port": _SERVER,
        "https_info": _SERVER,
        "hars_path": _CAPTCHA,
        "arkose": _CAPTCHA,
        "bing": RETIRED,
        "openai.web_sessions": _WEB.format("chatgpt_web"),
        "openai.chat_web_url": "off by default: set compat.chatgpt_web yourself",
        "openai.auth_proxy_url": NO_PASSWORDS,
        "openai.cookie_path": NO_PASSWORDS,
        "openai.image_path": "pictures are not kept in files",
        "claude.web_sessions": _WEB.format("claude_web"),
        "coze.discord": "this gateway uses no Discord account",
    }
    for place, reason in reasons.items():
        if value_at(found, place) not in (None, "", [], {}):
            plan.leave(place, reason)


def _provider_keys(
    plan: Plan, found: Mapping[str, Any], section: str, provider: str, name: str
) -> None:
    given = table_of(found, section).get(name)
    for index, item in enumerate(given if isinstance(given, list) else []):
        place = f"{section}.{name}[{index}]"
        if not isinstance(item, dict):
            plan.reject(place, "must be a mapping with id and val")
            continue
        version = item.get("version")
        attributes = {"version": str(version)} if version else {}
        id = str(item.get("id") or "")
        plan.add_key(provider, item.get("val"), place, id=id, attributes=attributes)


def _coze_bots(plan: Plan, chat: Mapping[str, Any]) -> None:
    common = chat.get("access_token")
    bots = chat.get("bots")
    for index, bot in enumerate(bots if isinstance(bots, list) else []):
        place = f"coze.api_chat.bots[{index}]"
        if not isinstance(bot, dict) or not bot.get("bot_id"):
            plan.reject(place, "must be a mapping with bot_id and user")
            continue
        user = str(bot.get("user") or "user")
        attributes = {"bot_id": str(bot["bot_id"]), "user": user}
        id = f"{bot['bot_id']}-{user}"
        plan.add_key("coze", bot.get("access_token") or common, place, id=id,
                     attributes=attributes)  # fmt: skip


# ── LiteLLM ──────────────────────────────────────────────────────────────────

_LITELLM_PROVIDERS = {
    "openai": "openai", "text-completion-openai": "openai", "anthropic": "anthropic",
    "gemini": "gemini", "cohere": "cohere", "cohere_chat": "cohere", "mistral": "mistral",
    "groq": "groq", "deepseek": "deepseek", "xai": "xai", "openrouter": "openrouter",
    "together_ai": "together", "fireworks_ai": "fireworks", "perplexity": "perplexity",
    "cerebras": "cerebras", "ollama": "ollama", "ollama_chat": "ollama", "azure": "azure",
    "huggingface": "huggingface", "nvidia_nim": "nvidia", "moonshot": "moonshot",
    "dashscope": "dashscope", "deepinfra": "deepinfra", "sambanova": "sambanova",
    "hosted_vllm": "vllm", "lm_studio": "lmstudio", "minimax": "minimax", "zai": "zai",
    "github": "github", "voyage": "voyage", "jina_ai": "jina", "volcengine": "volcengine",
    "novita": "novita", "nebius": "nebius", "featherless_ai": "featherless",
    "baseten": "baseten", "hyperbolic": "hyperbolic", "vercel_ai_gateway": "vercel",
    "xinference": "xinference",
}  # fmt: skip


def plan_litellm(found: Mapping[str, Any], plan: Plan) -> None:
    """Take the `config.yaml` of LiteLLM's proxy."""
    routes: dict[str, list[str]] = {}
    servers: dict[tuple[str, str], str] = {}
    models = found.get("model_list")
    for index, item in enumerate(models if isinstance(models, list) else []):
        place = f"model_list[{index}]"
        try:
            name, target = _litellm_model(plan, item, place, servers)
        except ValueError as error:
            plan.reject(place, str(error))
            continue
        if target not in routes.setdefault(name, []):
            routes[name].append(target)
        plan.take(place, f"the route {name!r} to {target}")
    if routes:
        plan.set("routes", routes)
    general = table_of(found, "general_settings")
    if general.get("master_key"):
        plan.leave("general_settings.master_key", "set admin_token")
    for section in ("litellm_settings", "router_settings", "environment_variables"):
        for name in table_of(found, section):
            plan.leave(f"{section}.{name}", "has no counterpart that could be set for you")
    for name in general:
        if name != "master_key":
            plan.leave(f"general_settings.{name}", "has no counterpart that could be set for you")


def _litellm_model(
    plan: Plan, item: object, place: str, servers: dict[tuple[str, str], str]
) -> tuple[str, str]:
    """Take one entry; returns the name and the target of its route. Raises ValueError."""
    if not isinstance(item, dict) or not isinstance(item.get("litellm_params"), dict):
        raise ValueError("must be a mapping with model_name and litellm_params")
    given = item["litellm_params"]
    full = given.get("model")
    if not isinstance(full, str) or not full:
        raise ValueError("litellm_params.model is missing")
    prefix, slash, model = full.partition("/")
    if not slash:
        prefix, model = "openai", full
    kind = _LITELLM_PROVIDERS.get(prefix)
    if kind is None:
        raise ValueError(f"the provider {prefix!r} of LiteLLM is not known here")
    base = str(given.get("api_base") or given.get("base_url") or "").rstrip("/")
    name = servers.get((kind, base))
    if name is None:
        taken = plan.settings.get("providers", {})
        name = kind if not base or kind not in taken else f"{kind}-{len(taken) + 1}"
        servers[kind, base] = name
        table: dict[str, Any] = {} if name == kind else {"kind": kind}
        if base:
            table["base_url"] = base
        if kind == "azure" and given.get("api_version"):
            table["api_version"] = str(given["api_version"])
        plan.settings.setdefault("providers", {}).setdefault(name, {}).update(table)
    _litellm_key(plan, name, given, f"{place}.litellm_params.api_key")
    return str(item.get("model_name") or full), f"{name}/{model}"


def _litellm_key(plan: Plan, name: str, given: Mapping[str, Any], place: str) -> None:
    secret = given.get("api_key")
    if not isinstance(secret, str) or not secret:
        return
    variable = _ENV.fullmatch(secret.strip())
    if variable is None:
        known = {(key.provider, key.secret) for key in plan.keys}
        if (name, secret.strip()) not in known:
            plan.add_key(name, secret, place, rpm=given.get("rpm"), tpm=given.get("tpm"))
        return
    reference = f"env:{variable[1] or variable[2]}"
    keys = plan.settings["providers"][name].setdefault("keys", [])
    if reference not in keys:
        keys.append(reference)
        plan.take(place, f"the key {reference!r} of the provider {name}")
