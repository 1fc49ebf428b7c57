"""Read the lists of ChatGPT-to-API: `access_tokens.json`, `api_keys.txt`, `proxies.txt`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from asgi_aiproxy.compat.outbound_proxies import parse_proxies
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.importer.plan import Plan, PlannedToken

_MIN_TOKEN = 20
_WEB_TOKEN = "eyJ"  # noqa: S105 (the beginning of a JSON web token)


def plan_access_tokens(found: Iterable[Any], plan: Plan) -> None:
    """Take `access_tokens.json`: strings, or objects with `token` and `puid`."""
    plan.set("compat", "chatgpt_to_api", "/")
    for index, item in enumerate(found):
        place = f"[{index}]"
        token = item.get("token") if isinstance(item, dict) else item
        if not isinstance(token, str) or not token.strip():
            plan.reject(place, "must be a token, or an object with a token")
        elif token.strip().startswith(_WEB_TOKEN):
            plan.leave(place, "an access token of ChatGPT's web site: callers may send their own; "
                              "pools have keys of OpenAI's API")  # fmt: skip
        else:
            plan.add_key("openai", token, place)
        if isinstance(item, dict) and item.get("puid"):
            plan.leave(f"{place}.puid", "a cookie of the web site has no use with the API")


def plan_api_keys(text: str, plan: Plan) -> None:
    """Take `api_keys.txt`: one key of a caller in each line."""
    plan.set("compat", "chatgpt_to_api", "/")
    for place, line in _lines(text):
        if not line.isprintable() or not line.isascii() or " " in line:
            plan.reject(place, "must be one key")
        elif len(line) < _MIN_TOKEN:
            plan.reject(place, f"a token must have at least {_MIN_TOKEN} characters; issue a new "
                               "one with the command 'tokens issue'")  # fmt: skip
        else:
            plan.tokens.append(PlannedToken(f"api_keys.txt {place}", line, place))


def plan_proxies(text: str, plan: Plan) -> None:
    """Take `proxies.txt`: one outbound proxy in each line."""
    plan.set("compat", "chatgpt_to_api", "/")
    urls: list[str] = []
    for place, line in _lines(text):
        try:
            urls += parse_proxies(line)
        except ConfigurationError as error:
            plan.reject(place, str(error).partition(": ")[2].rstrip("."))
            continue
        plan.take(place, "an outbound proxy of compat.proxies")
    if urls:
        plan.set("compat", "proxies", urls)


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            yield f"line {number}", line.strip()


LISTS: dict[str, Callable[[str, Plan], None]] = {
    "api_keys": plan_api_keys,
    "proxies": plan_proxies,
}
