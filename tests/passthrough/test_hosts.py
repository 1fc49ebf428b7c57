"""The proxy mounted in every host: paths arrive unchanged, and locations lead back."""

from __future__ import annotations

import pytest

from asgi_aiproxy import PassthroughProxy
from tests.support import asgi_client as asgi
from tests.support.hosts import HOSTS, Host
from tests.support.scripted_upstream import Step, Upstream

pytestmark = pytest.mark.anyio

PATHS = ["/", "/a", "/a/b/", "/a%2Fb", "/a%20b%C3%A9", "/v1/x?y=%2F&y=1"]


def known_at(host: Host) -> str:
    """The path at which clients reach the mount: for one host, a proxy in front has
    removed a part.
    """
    return "/api" * (host.name == "fastapi-root_path") + host.path


@pytest.mark.parametrize("host", HOSTS, ids=str)
@pytest.mark.parametrize("path", PATHS)
async def test_a_path_below_the_mount_arrives_as_it_was_sent(host: Host, path: str) -> None:
    upstream = Upstream(Step([b"ok"]))
    app = host.build(
        {host.path or "/": PassthroughProxy("http://up/base", transport=upstream.transport)}
    )
    async with asgi.lifespan(app):
        answer = await asgi.request(app, "GET", host.path + path, headers={"host": "svc"})
    assert answer.body == b"ok"
    (request,) = upstream.requests
    assert request.url.raw_path == b"/base" + path.encode()
    assert request.headers.get("x-forwarded-prefix", "") == known_at(host)


@pytest.mark.parametrize("host", HOSTS, ids=str)
async def test_a_location_leads_back_through_the_mount(host: Host) -> None:
    upstream = Upstream(Step([b""], 302, {"location": "http://up/base/x?y=1#z"}))
    app = host.build(
        {host.path or "/": PassthroughProxy("http://up/base", transport=upstream.transport)}
    )
    async with asgi.lifespan(app):
        answer = await asgi.request(app, "GET", host.path + "/a", headers={"host": "svc"})
    assert answer.header("location") == f"http://svc{known_at(host)}/x?y=1#z"


@pytest.mark.parametrize(
    ("given", "root", "expected"),
    [
        ("/base/x", "/ai", "/ai/x"),
        ("/base", "/ai", "/ai"),
        ("/ai/x", "/ai", "/ai/x"),  # it knows where it is mounted
        ("/elsewhere", "/ai", "/elsewhere"),
        ("/base/x", "", "/base/x"),
        ("relative", "/ai", "relative"),
        ("//other/base/x", "/ai", "//other/base/x"),
        ("http://other/base/x", "/ai", "http://other/base/x"),
        ("http://UP/base/x", "/ai", "http://svc/ai/x"),
        ("https://up/base/x", "/ai", "https://up/base/x"),
        ("http://up/based", "/ai", "http://up/based"),
        ("http://[", "/ai", "http://["),
        ("", "/ai", ""),
    ],
)
async def test_every_kind_of_location(given: str, root: str, expected: str) -> None:
    upstream = Upstream(Step([b""], 302, {"location": given}))
    app = PassthroughProxy("http://up/base", transport=upstream.transport)
    answer = await asgi.request(app, "GET", f"{root}/a", root_path=root, headers={"host": "svc"})
    assert answer.header("location") == expected
