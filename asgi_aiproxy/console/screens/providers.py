"""Providers and their keys: health, until when and why; add, change, test and remove keys."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment
from asgi_aiproxy.console.screens.selection import change_selection

_PROVIDER = "/providers/{provider}"
_KEY = _PROVIDER + "/keys/{id}"


def provider_pages() -> list[PageRoute]:
    """Return the pages of providers and keys, for operators."""
    return [
        PageRoute("GET", "/providers", "read", _list),
        PageRoute("GET", _PROVIDER, "read", _provider),
        PageRoute("POST", f"{_PROVIDER}/keys", "write", _add, again=_provider, confirm=True),
        PageRoute("POST", f"{_PROVIDER}/import", "write", _import, again=_provider, confirm=True),
        PageRoute("POST", f"{_PROVIDER}/test", "write", _test_all, again=_provider),
        PageRoute(
            "POST", f"{_PROVIDER}/selection", "write", _selection, again=_provider, confirm=True
        ),
        PageRoute("GET", _KEY, "read", _key),
        PageRoute("POST", f"{_KEY}/edit", "write", _edit, again=_key, confirm=True),
        PageRoute("POST", f"{_KEY}/enable", "write", _enable, again=_key),
        PageRoute("POST", f"{_KEY}/disable", "write", _disable, again=_key),
        PageRoute("POST", f"{_KEY}/test", "write", _test, again=_key),
        PageRoute("POST", f"{_KEY}/remove", "write", _remove, again=_key, confirm=True),
    ]


async def _list(request: PageRequest) -> PageAnswer:
    page = await request.api(
        "GET /providers", query={"limit": "50", "after": request.query.get("after", "")}
    )
    in_flight = await request.api("GET /in-flight")
    return request.page("providers.html", providers=page.data, next=page.next, in_flight=in_flight)


async def _provider(request: PageRequest) -> PageAnswer:
    return await _shown(request)


async def _shown(request: PageRequest, **context: object) -> PageAnswer:
    name = request.path["provider"]
    page = await request.api(
        "GET /providers/{provider}/keys",
        provider=name,
        query={"limit": "50", "after": request.query.get("after", "")},
    )
    provider = await request.api("GET /providers/{provider}", provider=name)
    return request.page(
        "provider.html",
        **{
            "provider": provider,
            "in_flight": await request.api("GET /in-flight"),
            "keys": page.data,
            "next": page.next,
            "base": _address(request),
            "results": None,
            **context,
        },
    )


async def _add(request: PageRequest) -> PageAnswer:
    body = read_form(
        request.form, secret="text", id="text", weight="integer", priority="integer",  # noqa: S106
        models="list", rpm="integer", tpm="integer", concurrency="integer", base_url="text",
        proxy="text",
    )  # fmt: skip
    await request.api(
        "POST /providers/{provider}/keys", provider=request.path["provider"], body=body
    )
    return request.redirect(_address(request), done="created")


async def _import(request: PageRequest) -> PageAnswer:
    lines = request.form.get("lines", [""])[0]
    await request.api(
        "POST /providers/{provider}/import",
        provider=request.path["provider"],
        query={"replace": "true" if "on" in request.form.get("replace", ()) else "false"},
        body=lines.encode(),
    )
    return request.redirect(_address(request), done="created")


async def _test_all(request: PageRequest) -> PageAnswer:
    page = await request.api(
        "POST /providers/{provider}/test",
        provider=request.path["provider"],
        query={
            "model": request.form.get("model", [""])[0].strip(),
            "limit": "50",
            "after": request.query.get("after", ""),
        },
    )
    return await _shown(request, results={result.id: result for result in page.data})


async def _selection(request: PageRequest) -> PageAnswer:
    return await change_selection(
        request,
        "POST /providers/{provider}/bulk",
        _address(request),
        provider=request.path["provider"],
    )


async def _key(request: PageRequest) -> PageAnswer:
    return await _shown_key(request)


async def _shown_key(request: PageRequest, **context: object) -> PageAnswer:
    key = await request.api(f"GET {_KEY}", **request.path)
    values = {
        name: "" if (value := getattr(key, name)) is None else str(value)
        for name in ("weight", "priority", "rpm", "tpm", "concurrency", "base_url")
    }
    values["models"] = ", ".join(key.models)
    return request.page(
        "key.html", **{"key": key, "values": values, "base": _key_address(request),
        "back": _address(request), "result": None, **context},
    )  # fmt: skip


async def _edit(request: PageRequest) -> PageAnswer:
    body = read_form(
        request.form, edit=True, secret="text", weight="integer", priority="integer",  # noqa: S106
        models="list", rpm="integer", tpm="integer", concurrency="integer", base_url="text",
    )  # fmt: skip
    for name in ("secret", "weight", "priority"):  # which a key always has
        if body.get(name) is None:
            body.pop(name, None)
    key = await request.api(f"GET {_KEY}", **request.path)
    if body.get("base_url") == key.base_url:  # unchanged: setting it is a right of its own
        body.pop("base_url", None)
    await request.api(f"PATCH {_KEY}", **request.path, body=body)
    return request.redirect(_key_address(request), done="saved")


async def _enable(request: PageRequest) -> PageAnswer:
    await request.api(f"POST {_KEY}/enable", **request.path)
    return request.redirect(_key_address(request), done="saved")


async def _disable(request: PageRequest) -> PageAnswer:
    await request.api(f"POST {_KEY}/disable", **request.path)
    return request.redirect(_key_address(request), done="saved")


async def _test(request: PageRequest) -> PageAnswer:
    model = request.form.get("model", [""])[0].strip()
    result = await request.api(f"POST {_KEY}/test", **request.path, query={"model": model})
    return await _shown_key(request, result=result)


async def _remove(request: PageRequest) -> PageAnswer:
    await request.api(f"DELETE {_KEY}", **request.path)
    return request.redirect(_address(request), done="removed")


def _address(request: PageRequest) -> str:
    return f"/providers/{segment(request.path['provider'])}"


def _key_address(request: PageRequest) -> str:
    return f"{_address(request)}/keys/{segment(request.path['id'])}"
