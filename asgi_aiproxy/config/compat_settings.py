"""Settings of `[compat]`: the apps with the paths of earlier gateways."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from asgi_aiproxy.config.provider_settings import as_key_list
from asgi_aiproxy.config.values import Proxy, Secret, Text


def _check_mount(value: str) -> str:
    path = "/" + value.strip("/")
    if not value.startswith("/") or "//" in value or "?" in value:
        raise ValueError('must be a path such as "/" or "/legacy"')
    return path


Mount = Annotated[str, AfterValidator(_check_mount)]


class CompatImageSettings(BaseModel):
    """The options of `asgi_aiproxy.compat.AdapterImages`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    model: str = Field(default="dall-e-3", min_length=1)
    models: dict[str, str] = {}
    rewriter: str = ""
    styles: list[str] = []
    samples: list[str] = []


class CompatSettings(BaseModel):
    """The path at which each app is mounted, and the options of the apps.

    `/` puts an app in place of the gateway's own paths.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    aiproxy: Mount | None = None
    oneapi: Mount | None = None
    chatgpt_to_api: Mount | None = None
    chatgpt_adapter: Mount | None = None
    root_password: Secret | None = None
    api_limit: Annotated[int, Field(ge=0)] = 0
    admin_password: Secret | None = None
    api_keys: Annotated[list[Secret], BeforeValidator(as_key_list), NoDecode] = []
    proxies: list[Proxy] = []
    models: dict[str, str] = {}
    images: CompatImageSettings = CompatImageSettings()
    gemini_model: str | None = None
    chatgpt_web: Text | None = None
    claude_web: Text | None = None
