"""Channels as providers: what each type is, and a router over all enabled channels.

Theory of operation. The rows of the store are read again after a change (`Store.watch`), and
made into one `Provider` for each channel, named `channel-N`, with a pool of its one key. A channel
whose row has not changed keeps its provider, and so what is known of its key's health. The router
has a table of targets by group and model, so that a lookup does not depend on the number of
channels. The relay names the group, or the channel that a token selects, as the requested provider
(`group:default`, `channel-7`). A higher `priority` goes first; channels of one priority share the
load by `weight`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.compat.oneapi.rows import ENABLED, ChannelRow, OneAPIData, all_rows
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.providers import (
    ANTHROPIC,
    COHERE,
    COZE,
    DASHSCOPE,
    DEEPSEEK,
    GEMINI,
    GROQ,
    MINIMAX,
    MISTRAL,
    MOONSHOT,
    OLLAMA,
    OPENAI,
    OPENROUTER,
    SILICONFLOW,
    TOGETHER,
    XAI,
    ZAI,
    ModelOffer,
    Provider,
    Target,
    azure,
    openai_compatible,
)
from asgi_aiproxy.router import weighted_shuffle

_AZURE = 3
_MAX_VERSIONS = 16
# Types whose API has a provider here; their base URL has no version.
_VENDORS: dict[int, Provider] = {
    1: OPENAI,
    14: ANTHROPIC,
    16: ZAI,
    17: DASHSCOPE,
    20: OPENROUTER,
    24: GEMINI,
    25: MOONSHOT,
    27: MINIMAX,
    28: MISTRAL,
    29: GROQ,
    30: OLLAMA,
    34: COZE,
    35: COHERE,
    36: DEEPSEEK,
    39: TOGETHER,
    44: SILICONFLOW,
    45: XAI,
}
# The paths of One API's own base URLs.
_BASE_PATHS = {20: "/api", 29: "/openai"}
# Vendors with separate accounts in China: the hosts that One API's keys belong to.
_OWN_HOSTS = {
    16: "https://open.bigmodel.cn/api/paas/v4",
    17: "https://dashscope.aliyuncs.com/compatible-mode/v1",
    25: "https://api.moonshot.cn/v1",
    27: "https://api.minimax.chat/v1",
    44: "https://api.siliconflow.cn/v1",
}
# Types with OpenAI's API below `/v1` of this address; a channel may have another one.
_COMPATIBLE: dict[int, str] = {
    2: "https://oa.api2d.net",
    4: "https://api.closeai-proxy.xyz",
    5: "https://api.openai-sb.com",
    6: "https://api.openaimax.com",
    7: "https://api.ohmygpt.com",
    8: "",
    9: "https://api.caipacity.com",
    10: "https://api.aiproxy.io",
    12: "https://api.api2gpt.com",
    13: "https://api.aigc2d.com",
    19: "https://ai.360.cn",
    22: "https://fastgpt.run/api/openapi",
    26: "https://api.baichuan-ai.com",
    31: "https://api.lingyiwanwu.com",
    32: "https://api.stepfun.com",
}
# Types whose base URL ends with the version.
_VERSIONED: dict[int, str] = {41: "https://api.novita.ai/v3/openai", 50: ""}
_OLD_SNAPSHOT = re.compile(r"-(?:0301|0314|0613)$")
_NEW_LIMIT = re.compile(r"o\d|gpt-5")
_OPENAI_BASES = ("/v1", "/v1beta/openai")
RETIRED_TYPES = {11: "Google's PaLM API closed in August 2024: use type 24 (Gemini)."}
KNOWN_TYPES = frozenset({_AZURE, *_VENDORS, *_COMPATIBLE, *_VERSIONED})


def channel_name(id: int) -> str:
    """Return the name of a channel's provider."""
    return f"channel-{id}"


def type_error(type: int) -> str:
    """Return why channels of a type cannot be used; an empty string if they can."""
    if type in RETIRED_TYPES:
        return RETIRED_TYPES[type]
    if type not in KNOWN_TYPES:
        return f"Channels of type {type} are not supported: use type 8 with a base_url."
    return ""


def make_provider(
    row: ChannelRow, key: str, bases: Mapping[str, str] = MappingProxyType({})
) -> Provider:
    """Return the provider of a channel.

    Arguments:

    - `row`, `key`: the channel, and its key.
    - `bases`: base URLs in place of those of vendors, for channels without one.

    Raises ConfigurationError for an invalid channel.
    """
    problem = type_error(row.type)
    if problem:
        raise ConfigurationError(problem)
    name = channel_name(row.id)
    base = row.base_url.strip().rstrip("/")
    pool = KeyPool([Key(key, id=str(row.id))], name=name)
    if row.type == _AZURE:
        return azure(base, name=name, api_version=_azure_version(row)).using(pool)
    if row.type in _COMPATIBLE or row.type in _VERSIONED:
        base = base or _COMPATIBLE.get(row.type) or _VERSIONED.get(row.type, "")
        if not base:
            raise ConfigurationError("base_url: is required for a channel of this type.")
        return openai_compatible(_with_version(base, row.type), name=name).using(pool)
    vendor = _VENDORS[row.type]
    if vendor is OPENAI:
        vendor = vendor.using(transform_request=_openai_request)
    if not base:
        own = bases.get(vendor.name) or _OWN_HOSTS.get(row.type, vendor.base_url)
        return vendor.using(pool, name=name, base_url=own)
    # The address of a channel is without the end that One API adds, such as `/v1`.
    end = urlsplit(vendor.base_url).path.rstrip("/").removeprefix(_BASE_PATHS.get(row.type, ""))
    if end and not base.endswith(end):
        base += end
    return vendor.using(pool, name=name, base_url=base)


def channel_id(name: str) -> int:
    """Return the number of the channel whose provider has this name; 0 if it is another."""
    number = name.removeprefix("channel-")
    return int(number) if number.isdecimal() else 0


def _azure_version(row: ChannelRow) -> str | None:
    """Return the version of Azure's API that a channel sets; None: the present API."""
    return row.other or _config(row).get("api_version") or None


def _vendor_name(row: ChannelRow, model: str) -> str:
    """Return the name that a model has at the vendor of a channel."""
    return mapping_of(row).get(model) or (deployment(model) if row.type == _AZURE else model)


def deployment(model: str) -> str:
    """Return the name that One API gives to the deployment of a model at Azure."""
    return _OLD_SNAPSHOT.sub("", model.replace(".", ""))


def _openai_request(draft: ProviderRequest) -> ProviderRequest:
    """Leave a request as it is, except for models that only know the new name of the limit."""
    model = draft.body.get("model", "")
    name = model if isinstance(model, str) else bytes(model).decode().strip('"')
    return OPENAI.transform_request(draft) if _NEW_LIMIT.match(name) else draft


def _with_version(base: str, type: int) -> str:
    if type in _VERSIONED or base.endswith(_OPENAI_BASES):
        return base
    return f"{base}/v1"


def _config(row: ChannelRow) -> dict[str, str]:
    try:
        found = json.loads(row.config or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def models_of(row: ChannelRow) -> list[str]:
    """Return the models of a channel."""
    return [name.strip() for name in row.models.split(",") if name.strip()]


def groups_of(row: ChannelRow) -> list[str]:
    """Return the groups of a channel."""
    return [name.strip() for name in row.group.split(",") if name.strip()]


def mapping_of(row: ChannelRow) -> dict[str, str]:
    """Return the vendor's names of models. Raises ConfigurationError if the JSON is invalid."""
    text = row.model_mapping.strip()
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError("model_mapping: must be a JSON object of names.") from error


class ChannelRouter:
    """A router over the enabled channels of a store."""

    def __init__(self, data: OneAPIData, bases: Mapping[str, str] = MappingProxyType({})) -> None:
        self._data = data
        self._bases = bases
        self._random = random.SystemRandom()
        self._providers: dict[int, tuple[ChannelRow, Provider]] = {}
        self._targets: dict[tuple[str, str], list[Target]] = {}
        self._models: dict[str, list[str]] = {}
        self.rows: dict[int, ChannelRow] = {}
        # Providers of channels of Azure by the version that callers request.
        self._azure: dict[str, dict[str, Provider]] = {}
        self._stale = True
        self._stop: Callable[[], None] | None = None

    def start(self) -> None:
        """Watch the store for changes, in the running event loop."""
        if self._stop is None:
            self._stop = self._data.store.watch(self._data.channels.name, self._changed)

    def stop(self) -> None:
        """Stop watching."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _changed(self) -> None:
        self._stale = True

    async def refresh(self, *, force: bool = False) -> None:
        """Read the channels again if they have changed."""
        if not (self._stale or force):
            return
        self._stale = False
        rows = {row.id: row async for row in all_rows(self._data.channels)}
        providers: dict[int, tuple[ChannelRow, Provider]] = {}
        targets: dict[tuple[str, str], list[Target]] = {}
        models: dict[str, dict[str, None]] = {}
        for row in rows.values():
            if row.status != ENABLED:
                continue
            provider = self._provider(row)
            if provider is None:
                continue
            providers[row.id] = row, provider
            for model in models_of(row):
                name = _vendor_name(row, model)
                target = Target(provider, name, max(1, row.weight), -row.priority)
                targets.setdefault((channel_name(row.id), model), []).append(target)
                for group in groups_of(row):
                    targets.setdefault((f"group:{group}", model), []).append(target)
                    models.setdefault(group, {})[model] = None
        self.rows, self._providers, self._targets = rows, providers, targets
        self._models = {group: list(names) for group, names in models.items()}

    def _provider(self, row: ChannelRow) -> Provider | None:
        """Return the provider of a channel; None if it cannot be used."""
        known = self._providers.get(row.id)
        if known is not None and _same_address(known[0], row):
            return known[1]
        try:
            mapping_of(row)
            return self.make(row, self.key(row))
        except AIProxyError:
            return None

    def make(self, row: ChannelRow, key: str) -> Provider:
        """Return the provider of a channel. Raises ConfigurationError for an invalid channel."""
        return make_provider(row, key, self._bases)

    def key(self, row: ChannelRow) -> str:
        """Return the key of a channel. Raises SealError."""
        return self._data.decrypt(row.key, f"channel:{row.id}")

    def provider(self, id: int) -> Provider | None:
        """Return the provider of an enabled channel."""
        found = self._providers.get(id)
        return found[1] if found is not None else None

    def group_models(self, group: str) -> list[str]:
        """Return the models that the enabled channels of a group serve."""
        return self._models.get(group, [])

    def candidates(self, provider: str, model: str) -> Sequence[Target]:
        """Return the targets for a model in a group or at a channel, in no order.

        A channel that a token selects gets any model, also one that is not in its list.
        """
        found = self._targets.get((provider, model), [])
        if found or provider != channel_name(channel_id(provider)):
            return found
        known = self._providers.get(channel_id(provider))
        return [Target(known[1], _vendor_name(known[0], model))] if known is not None else []

    # as a router

    def targets(self, model: str, provider: str = "") -> Sequence[Target]:
        """Return the targets for a model in the order to try them.

        `provider` is the group or channel, and after `@` the version of Azure's API that the caller
        requests: channels without a version of their own use it.
        """
        where, _, version = provider.partition("@")
        found = weighted_shuffle(self.candidates(where, model), self._random)
        return [self._at_version(target, version) for target in found] if version else found

    def _at_version(self, target: Target, version: str) -> Target:
        """Return a target at a version of Azure's API, if its channel has no version."""
        row = self.rows.get(channel_id(target.provider.name))
        if row is None or row.type != _AZURE or _azure_version(row):
            return target
        versions = self._azure.setdefault(target.provider.name, {})
        known = versions.get(version)
        if known is None or known.keys is not target.provider.keys:
            if len(versions) >= _MAX_VERSIONS:
                versions.clear()
            name, base = target.provider.name, target.provider.base_url
            made = azure(base, name=name, api_version=version)
            known = versions[version] = made.using(target.provider.keys or ())
        return replace(target, provider=known)

    def models(self) -> Sequence[str]:
        """Return no names: they depend on the group of the caller."""
        return ()

    def model_offers(self) -> Sequence[ModelOffer]:
        """Return no models, for the same reason."""
        return ()


def _same_address(before: ChannelRow, after: ChannelRow) -> bool:
    """Return whether two rows make the same provider."""
    names = ("type", "key", "base_url", "other", "config")
    return all(getattr(before, name) == getattr(after, name) for name in names)
