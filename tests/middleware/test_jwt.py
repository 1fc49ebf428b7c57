"""JSON Web Tokens of an identity provider: what is accepted, and how its keys are kept."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from asgi_aiproxy import APIError, Authenticate, ConfigurationError, Limits, OpenAIShim
from asgi_aiproxy.config.factory import build_app
from asgi_aiproxy.config.settings import Settings
from asgi_aiproxy.middleware import JWTClaims, JWTGroup, first_of, jwt_tokens, static_tokens
from asgi_aiproxy.middleware.jwt import JWTVerifier
from asgi_aiproxy.principal import SCOPE_KEY, Principal
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

AUDIENCE = "ai-gateway"
EC_KEY, OTHER_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def public(key: Any, key_id: str, algorithm: str | None) -> dict[str, Any]:
    kinds = {
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    kind = next(made for base, made in kinds.items() if isinstance(key, base))
    named = {"kid": key_id, "use": "sig"} | ({"alg": algorithm} if algorithm else {})
    return {**json.loads(kind.to_jwk(key.public_key())), **named}


class IdentityProvider:
    """An identity provider with a discovery document and a key set, which tests change."""

    def __init__(self) -> None:
        self.url = ""
        self.issuer: str | None = None
        self.keys = [public(EC_KEY, "ec", "ES256")]
        self.requests: list[str] = []
        self.failing = False
        self.entered = threading.Event()  # `serve` runs it in a thread of its own
        self.release: threading.Event | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(scope["path"])
        self.entered.set()
        if self.release is not None:
            await asyncio.to_thread(self.release.wait, 30)
        document: dict[str, Any] = {"keys": self.keys}
        if scope["path"].endswith("/openid-configuration"):
            document = {"issuer": self.issuer or self.url, "jwks_uri": f"{self.url}/keys"}
        status = 500 if self.failing else 200
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(document).encode()})

    def token(
        self, key: Any = EC_KEY, algorithm: str = "ES256", key_id: str | None = "ec", **claims: Any
    ) -> str:
        now = int(time.time())
        said = {"sub": "ada", "iss": self.url, "aud": AUDIENCE, "iat": now, "exp": now + 60}
        kept = {name: value for name, value in {**said, **claims}.items() if value is not None}
        headers = {"kid": key_id} if key_id is not None else {}
        return jwt.encode(kept, key, algorithm=algorithm, headers=headers)


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    made = IdentityProvider()
    async with serve(made) as made.url:
        yield made


def verifier(provider: IdentityProvider, **options: Any) -> JWTVerifier:
    return JWTVerifier(**{"issuer": provider.url, "audience": AUDIENCE, **options})


async def refusal(verify: Any, token: str) -> str:
    """The code of the error that refuses a token; empty if it is simply unknown."""
    try:
        assert await verify(token) is None
    except APIError as error:
        return error.code or error.kind.name
    return ""


async def test_tokens_are_checked_by_signature_algorithm_audience_issuer_and_times(
    provider: IdentityProvider,
) -> None:
    verify = verifier(provider)
    now = int(time.time())
    principal = await verify(provider.token(name="Ada L."))
    assert principal is not None
    assert (principal.id, principal.name) == ("ada", "Ada L.")
    assert await verify(provider.token(exp=now - 10)) is not None  # within the clock skew
    assert await verify(provider.token(aud=["x", AUDIENCE])) is not None
    refused = {
        "expired": (provider.token(exp=now - 60), "token_expired"),
        "not yet valid": (provider.token(nbf=now + 120), "token_not_yet_valid"),
        "another audience": (provider.token(aud="another"), "token_for_another_service"),
        "no audience": (provider.token(aud=None), ""),
        "another issuer": (provider.token(iss="https://x.example"), "token_for_another_service"),
        "another key": (provider.token(OTHER_KEY), ""),
        "an unknown key": (provider.token(OTHER_KEY, key_id="other"), ""),
        "a shared secret": (provider.token("a" * 40, algorithm="HS256"), ""),
        "no signature": (provider.token(None, algorithm="none"), ""),
        "an algorithm of another key type": (provider.token(RSA_KEY, "RS256"), ""),
        "no end": (provider.token(exp=None), ""),
        "an end that is not a number": (provider.token(exp="tomorrow"), ""),
        "no subject": (provider.token(sub=None), ""),
        "not a token": ("sk-1234", ""),
        "three empty parts": ("..", ""),
        "not base64": ("ä.ö.ü", ""),
        "very long": (f"{'a' * 20_000}.b.c", ""),
    }
    for name, (token, code) in refused.items():
        assert await refusal(verify, token) == code, name


async def test_the_public_key_is_never_taken_for_a_shared_secret(
    provider: IdentityProvider,
) -> None:
    public_key = json.dumps(provider.keys[0]).encode()
    verify = verifier(provider)

    def part(value: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": "eve", "iss": provider.url, "aud": AUDIENCE, "exp": now + 60}
    signed = part({"alg": "HS256", "typ": "JWT", "kid": "ec"}) + b"." + part(claims)
    digest = hmac.new(public_key, signed, hashlib.sha256).digest()
    forged = signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")
    assert await verify(forged.decode()) is None
    with pytest.raises(ConfigurationError, match="HS256"):
        verifier(provider, algorithms=["HS256"])


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(EC_KEY, "ES256"), (RSA_KEY, "RS256"), (RSA_KEY, "PS512"), (ED_KEY, "EdDSA")],
)
@pytest.mark.parametrize("declared", [True, False])
async def test_keys_of_each_type_verify_with_and_without_a_declared_algorithm(
    provider: IdentityProvider, key: Any, algorithm: str, declared: bool
) -> None:
    provider.keys = [
        public(OTHER_KEY, "other", "ES256"),
        {"kty": "future", "kid": "k2"},
        public(key, "k", algorithm if declared else None),
    ]
    verify = verifier(provider, algorithms=[algorithm])
    assert await verify(provider.token(key, algorithm, "k")) is not None


async def test_a_token_without_a_key_id_is_verified_by_the_only_key(
    provider: IdentityProvider,
) -> None:
    verify = verifier(provider)
    assert await verify(provider.token(key_id=None)) is not None
    provider.keys.append(public(OTHER_KEY, "other", "ES256"))
    assert await verifier(provider)(provider.token(key_id=None)) is None


async def test_the_key_set_is_fetched_once_for_all_first_callers(
    provider: IdentityProvider,
) -> None:
    provider.release = threading.Event()
    verify = verifier(provider)
    calls = [asyncio.create_task(verify(provider.token(sub=f"u{n}"))) for n in range(50)]
    assert await asyncio.to_thread(provider.entered.wait, 30)
    provider.release.set()
    callers = await asyncio.gather(*calls)
    assert [caller.id for caller in callers if caller] == [f"u{n}" for n in range(50)]
    assert provider.requests == ["/.well-known/openid-configuration", "/keys"]


async def test_a_caller_that_leaves_while_the_keys_are_fetched_does_not_end_the_fetch(
    provider: IdentityProvider,
) -> None:
    provider.release = threading.Event()
    verify = verifier(provider)
    leaving = asyncio.create_task(verify(provider.token()))
    staying = asyncio.create_task(verify(provider.token()))
    assert await asyncio.to_thread(provider.entered.wait, 30)
    leaving.cancel()
    provider.release.set()
    assert await staying is not None
    assert leaving.cancelled()


async def test_after_a_key_rotation_tokens_of_the_new_key_are_accepted_at_once(
    provider: IdentityProvider,
) -> None:
    clock = Clock()
    verify = verifier(provider, jwks_url=f"{provider.url}/keys", clock=clock)
    old = provider.token()
    assert await verify(old) is not None
    provider.keys = [public(OTHER_KEY, "new", "ES256")]
    clock.ahead = 11
    assert await verify(provider.token(OTHER_KEY, key_id="new")) is not None
    assert await verify(old) is None, "the old key was withdrawn"
    assert provider.requests == ["/keys", "/keys"]


async def test_forged_key_ids_do_not_become_requests_to_the_provider(
    provider: IdentityProvider,
) -> None:
    verify = verifier(provider, jwks_url=f"{provider.url}/keys")
    for number in range(100):
        assert await verify(provider.token(OTHER_KEY, key_id=f"forged-{number}")) is None
    assert len(provider.requests) == 1


async def test_an_old_key_set_is_refreshed_while_requests_go_on(provider: IdentityProvider) -> None:
    clock = Clock()
    verify = verifier(provider, jwks_url=f"{provider.url}/keys", clock=clock)
    assert await verify(provider.token()) is not None
    provider.entered.clear()
    provider.release = threading.Event()  # the provider hangs
    clock.ahead = 301
    assert await verify(provider.token(exp=int(time.time()) + 600)) is not None
    assert await asyncio.to_thread(provider.entered.wait, 30)
    provider.release.set()
    assert len(provider.requests) == 2


async def test_known_keys_stay_in_use_while_the_provider_is_away_for_a_limited_time(
    provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    verify = verifier(provider, clock=clock, stale=3600)
    token = provider.token(exp=int(time.time()) + 86_400)
    assert await verify(token) is not None
    provider.failing = True
    clock.ahead = 3000
    with caplog.at_level(logging.ERROR):
        assert await verify(token) is not None
        while "key set of" not in caplog.text:
            await asyncio.sleep(0.01)
    clock.ahead = 4000
    assert await refusal(verify, token) == "OVERLOADED"
    provider.failing = False
    clock.ahead = 4020
    assert await verify(token) is not None


async def test_without_keys_the_answer_is_503_and_the_log_says_why(
    provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.issuer = "https://attacker.example"
    app = Authenticate(OpenAIShim(OPENAI.using("sk-x")), verify=verifier(provider))
    headers = {"authorization": f"Bearer {provider.token()}"}
    answer = await asgi.request(app, "GET", "/v1/models", headers=headers)
    assert answer.status == 503
    assert answer.header("retry-after")
    assert "of issuer 'https://attacker.example'" in caplog.text


async def test_the_same_token_again_is_not_verified_again_but_ends_in_time(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    verify = verifier(provider, clock=clock, max_age=10_000)
    token = provider.token()
    assert await verify(token) is not None
    decoded: list[str] = []
    real = jwt.decode

    def counted(token: str, *args: Any, **options: Any) -> Any:
        decoded.append(token)
        return real(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    assert await verify(token) is not None
    assert decoded == []
    clock.ahead = 91  # 60 seconds and the clock skew
    assert await verify(provider.token(sub="x")) is not None
    await verify(token)
    assert decoded[-1] == token


async def test_groups_decide_models_and_limits(provider: IdentityProvider) -> None:
    claims = JWTClaims(
        id="email",
        account="org",
        groups="realm.roles",
        group_rules={
            "ml": JWTGroup(limits=Limits(rpm=600), providers=("openai",)),
            "staff": JWTGroup(models=("gpt-*-mini",), price_ratio=2.0),
        },
        require_group=True,
    )
    verify = verifier(provider, claims=claims)

    async def caller(**more: Any) -> Principal | None:
        return await verify(provider.token(email="ada@x.example", org=7, **more))

    both = await caller(realm={"roles": ["staff", "ml"]})
    assert both is not None
    assert (both.id, both.account, both.group, both.limits.rpm) == ("ada@x.example", "7", "ml", 600)
    staff = await caller(realm={"roles": "staff"})
    assert staff is not None
    assert (staff.group, staff.models, staff.price_ratio) == ("staff", ("gpt-*-mini",), 2.0)
    for roles in ({"roles": ["guest"]}, {"roles": []}, {}, "staff", None):
        token = provider.token(email="ada@x.example", realm=roles)
        assert await refusal(verify, token) == "group_required", roles


async def test_a_function_may_make_the_caller_of_the_claims(provider: IdentityProvider) -> None:
    def caller(claims: Any) -> Principal | None:
        return Principal(claims["sub"]) if claims.get("verified") else None

    verify = jwt_tokens(issuer=provider.url, audience=AUDIENCE, claims=caller)
    assert await verify(provider.token(verified=True)) == Principal("ada")
    assert await verify(provider.token()) is None


@pytest.mark.parametrize("by_function", [False, True])
@pytest.mark.parametrize(
    ("prefix", "name", "expected"),
    [
        ("", "ada", "ada"),
        ("", "user-3", "jwt:user-3"),
        ("", "user-03", "user-03"),
        ("", "User-3", "User-3"),
        ("sso:", "user-3", "sso:user-3"),
        ("sso:", "ada", "sso:ada"),
        ("user-", "3", "jwt:user-3"),
    ],
)
async def test_a_caller_is_never_a_user_of_the_gateway(
    provider: IdentityProvider, prefix: str, name: str, expected: str, by_function: bool
) -> None:
    claims: Any = JWTClaims(id="sub", account="org")
    if by_function:
        claims = lambda found: Principal(found["sub"], account=found["org"])  # noqa: E731
    verify = jwt_tokens(issuer=provider.url, audience=AUDIENCE, claims=claims, prefix=prefix)
    found = await verify(provider.token(sub=name, org=name))
    assert found is not None
    assert (found.id, found.account) == (expected, expected)


async def test_other_tokens_are_accepted_beside_it(provider: IdentityProvider) -> None:
    verify = first_of(static_tokens({"sk-1": "static"}), verifier(provider))
    found = [await verify(token) for token in ("sk-1", provider.token(), "sk-2")]
    assert [caller.id if caller else None for caller in found] == ["static", "ada", None]
    assert await refusal(verify, provider.token(exp=1)) == "token_expired"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"issuer": "login.example"}, "issuer must be an https URL"),
        ({"issuer": "http://login.example"}, "over plain http"),
        ({"jwks_url": "file:///etc/passwd"}, "jwks_url must be an https URL"),
        ({"audience": ""}, "audience is required"),
        ({"audience": []}, "audience is required"),
        ({"algorithms": ["none"]}, "invalid algorithms"),
        ({"prefix": "a\n"}, "prefix must be printable text"),
        ({"claims": {"id": "sub"}}, "claims must be JWTClaims"),
    ],
)
def test_invalid_arguments_are_refused_with_what_to_write(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        jwt_tokens(**{"issuer": "https://login.example", "audience": AUDIENCE, **options})


async def test_the_example_of_the_docs_works(provider: IdentityProvider) -> None:
    page = (Path(__file__).parents[2] / "docs" / "callers.md").read_text("utf-8")
    found = re.search(r"^## JSON Web Tokens\n.*?```python\n(.*?)```", page, re.M | re.DOTALL)
    assert found is not None
    module = ModuleType("docs")
    exec(found[1].replace("https://login.example", provider.url), vars(module))
    seen: list[Principal] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope[SCOPE_KEY])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = {"authorization": f"Bearer {provider.token(groups=['staff'])}"}
    answer = await asgi.request(
        Authenticate(app, verify=module.verify), "GET", "/", headers=headers
    )
    assert answer.status == 200
    assert seen[0].limits.rpm == 60
    answer = await asgi.request(module.ai, "GET", "/v1/models", headers=headers)
    assert answer.status == 200


async def test_serve_accepts_tokens_of_the_configured_provider(
    provider: IdentityProvider,
) -> None:
    given: dict[str, Any] = {
        "providers": {"openai": {"keys": ["sk-x"]}},
        "jwt": {
            "issuer": provider.url,
            "audience": [AUDIENCE],
            "groups": {"staff": {"models": ["gpt-4o-mini"], "rpm": 1}},
            "require_group": True,
        },
    }
    app = build_app(Settings(**given))
    for groups, expected in ((["staff"], 200), (["guest"], 403)):
        headers = {"authorization": f"Bearer {provider.token(groups=groups)}"}
        answer = await asgi.request(app, "GET", "/v1/models", headers=headers)
        assert answer.status == expected
    assert (await asgi.request(app, "GET", "/v1/models")).status == 401
    with pytest.raises(ConfigurationError, match="jwt: jwt_tokens: issuer must be an https"):
        build_app(Settings(**{**given, "jwt": {**given["jwt"], "issuer": "http://x.example"}}))
