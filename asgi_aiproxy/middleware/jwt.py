"""`jwt_tokens`: callers with a JSON Web Token of an identity provider (OpenID Connect).

Theory of operation. A caller sends a token that an identity provider has signed (RFC 7519). Two
things are needed to trust it: the provider's public keys, and a check of what the token says.

- Verification (PyJWT): the signature by a key of the set, an algorithm of `algorithms` (asymmetric
  ones only: a token cannot make the public key a shared secret), issuer, audience, `exp`, `nbf` and
  `iat` with `leeway` seconds of clock skew. What was found for a token is remembered until the
  token expires or the key set changes, so that most requests cost one SHA-256.
- The public keys come from `PublicKeySet` (`asgi_aiproxy.middleware.jwks`).

Ids that the identity provider chooses must not be those of others here: a `prefix` is put before
the id and the account of each caller. Without one, only those that look like the account of a user
of the gateway (`user-7`) get the prefix `jwt:`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.middleware.jwks import PublicKeySet, check_key_url
from asgi_aiproxy.principal import NO_LIMITS, Limits, Principal, user_number
from asgi_aiproxy.upstream import Transport

_ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)
_MAX_TOKEN_CHARACTERS = 16 * 1024
_MAX_REMEMBERED = 10_000
_RESERVED_PREFIX = "jwt:"


@dataclass(frozen=True, slots=True, kw_only=True)
class JWTGroup:
    """What callers of one group of the identity provider may do.

    Arguments are those of `Principal`: `models`, `providers` and `keys` are patterns (empty: all),
    `limits` are rate limits and budgets of each caller, `price_ratio` multiplies list prices, and
    `scopes` are those of the admin API.
    """

    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    price_ratio: float = 1.0
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JWTClaims:
    """The claims of a token that make the caller.

    Arguments:

    - `id`, `name`: claims with the caller's id and name. A token without the first is refused.
    - `account`: claim with the account whose shared budgets the caller spends; empty: none.
    - `groups`: claim with the names of groups, a string or a list of strings. A dot leads into an
      object: `realm_access.roles`.
    - `group_rules`: what the members of each group may do. The first rule whose group the caller is
      in applies.
    - `require_group`: whether callers in none of these groups are refused.

    Raises ConfigurationError if `require_group` is set without rules.
    """

    id: str = "sub"
    name: str = "name"
    account: str = ""
    groups: str = "groups"
    group_rules: Mapping[str, JWTGroup] = field(default_factory=dict)
    require_group: bool = False

    def __post_init__(self) -> None:
        if self.require_group and not self.group_rules:
            raise ConfigurationError("JWTClaims: require_group needs group_rules.")

    def principal(self, claims: Mapping[str, Any]) -> Principal | None:
        """Make the caller from the verified claims of a token.

        Returns None if the claim of the id is missing. Raises APIError if the caller is in none of
        the groups and must be.
        """
        id = _text(_claim(claims, self.id))
        if not id:
            return None
        found = _claim(claims, self.groups)
        groups = {found} if isinstance(found, str) else set(map(_text, found or ()))
        name = next((group for group in self.group_rules if group in groups), "")
        if not name and self.require_group:
            raise APIError(
                ErrorKind.FORBIDDEN,
                f"You are in none of the groups that may call: {', '.join(self.group_rules)}.",
                code="group_required",
            )
        rule = self.group_rules.get(name, _NO_RULE)
        return Principal(
            id,
            _text(_claim(claims, self.name)) or id,
            rule.models,
            limits=rule.limits,
            account=_text(_claim(claims, self.account)) if self.account else "",
            group=name,
            price_ratio=rule.price_ratio,
            providers=rule.providers,
            keys=rule.keys,
            scopes=rule.scopes,
            may_choose_key=False,
        )


_NO_RULE = JWTGroup()

ClaimsToPrincipal = Callable[[Mapping[str, Any]], Principal | None]


class _Verification(msgspec.Struct, frozen=True):
    """The result for one token: its caller, in use until `expires` (Unix time)."""

    principal: Principal
    expires: float
    key_set: int


class JWTVerifier:
    """Verify JSON Web Tokens: the `verify=` of `Authenticate`. See `jwt_tokens`."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Iterable[str],
        claims: JWTClaims | ClaimsToPrincipal | None = None,
        jwks_url: str = "",
        algorithms: Iterable[str] = ("RS256", "ES256", "EdDSA"),
        leeway: float = 30.0,
        max_age: float = 300.0,
        stale: float = 86_400.0,
        prefix: str = "",
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jwt = _import_pyjwt()
        check_key_url("issuer", issuer)
        self._audience = [audience] if isinstance(audience, str) else list(audience)
        if not all(self._audience) or not self._audience:
            raise ConfigurationError(
                "jwt_tokens: audience is required: without it, tokens that the identity provider "
                "issued for another application would be accepted."
            )
        self._algorithms = [algorithms] if isinstance(algorithms, str) else list(algorithms)
        unknown = sorted(set(self._algorithms) - _ALGORITHMS)
        if unknown or not self._algorithms:
            raise ConfigurationError(
                f"jwt_tokens: invalid algorithms {unknown}. There are: "
                f"{', '.join(sorted(_ALGORITHMS))}."
            )
        if claims is not None and not callable(claims) and not isinstance(claims, JWTClaims):
            raise ConfigurationError(
                "jwt_tokens: claims must be JWTClaims(...), or a function from the claims to a "
                f"Principal, not {type(claims).__name__}."
            )
        if claims is None:
            claims = JWTClaims()
        self._to_principal: ClaimsToPrincipal = (
            claims.principal if isinstance(claims, JWTClaims) else claims
        )
        if not isinstance(prefix, str) or not prefix.isprintable():
            raise ConfigurationError("jwt_tokens: prefix must be printable text, such as 'sso:'.")
        self._prefix = prefix
        self._issuer = issuer
        self._leeway = leeway
        self._clock = clock
        self._key_set = PublicKeySet(self._jwt, issuer, jwks_url, transport, max_age, stale, clock)
        self._known: dict[bytes, _Verification] = {}

    def __repr__(self) -> str:
        return f"JWTVerifier(issuer={self._issuer!r}, audience={self._audience!r})"

    async def __call__(self, token: str) -> Principal | None:
        """Return the caller that a token names, or None if it is not a valid token.

        Raises APIError if the token has expired, is for another audience or issuer, or cannot be
        checked because the key set cannot be fetched.
        """
        if token.count(".") != 2 or len(token) > _MAX_TOKEN_CHARACTERS:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        await self._key_set.refresh()
        known = self._known.get(digest)
        if known is not None and known.key_set == self._key_set.version:
            if self._clock() < known.expires:
                return known.principal
            del self._known[digest]
        return await self._verify(token, digest)

    async def _verify(self, token: str, digest: bytes) -> Principal | None:
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return None
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            return None
        key_id = header.get("kid")
        key = await self._key_set.find(key_id if isinstance(key_id, str) else None, algorithm)
        if key is None:
            return None
        version = self._key_set.version
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("The token has expired. Sign in again.", "token_expired") from None
        except jwt.ImmatureSignatureError:
            raise _refused("The token is not valid yet.", "token_not_yet_valid") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise _refused(
                "The token was issued for another application, or by another login service.",
                "token_for_another_service",
            ) from None
        except jwt.PyJWTError:
            return None
        principal = self._to_principal(claims)
        if principal is not None:
            principal = in_namespace(principal, self._prefix)
            expires = float(claims["exp"]) + self._leeway
            if len(self._known) >= _MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = _Verification(principal, expires, version)
        return principal


def jwt_tokens(
    *,
    issuer: str,
    audience: str | Iterable[str],
    claims: JWTClaims | ClaimsToPrincipal | None = None,
    jwks_url: str = "",
    algorithms: Iterable[str] = ("RS256", "ES256", "EdDSA"),
    leeway: float = 30.0,
    max_age: float = 300.0,
    stale: float = 86_400.0,
    prefix: str = "",
    transport: Transport | None = None,
) -> JWTVerifier:
    """A `verify` for JSON Web Tokens of an identity provider (needs the extra `jwt`).

    Arguments:

    - `issuer`: the provider's issuer, exactly as in the claim `iss` of its tokens.
    - `audience`: the value, or values, of which one must be in the claim `aud`.
    - `claims`: how claims make the caller: `JWTClaims(...)`, or a function that takes the verified
      claims and returns a `Principal`, or None to refuse.
    - `jwks_url`: where the key set is; empty: it is looked up in the provider's discovery document.
    - `algorithms`: the signature algorithms that are accepted; asymmetric ones only.
    - `leeway`: seconds that clocks may differ.
    - `max_age`: seconds after which the key set is refreshed in the background.
    - `stale`: seconds that a key set stays in use while the provider cannot be reached.
    - `prefix`: put before the ids and accounts of callers, such as `"sso:"`, so that they differ
      from those of other tokens.
    - `transport`: sends the requests to the provider; default: one of its own.

    Raises ConfigurationError if PyJWT is not installed, or an argument is invalid.
    """
    return JWTVerifier(
        issuer=issuer,
        audience=audience,
        claims=claims,
        jwks_url=jwks_url,
        algorithms=algorithms,
        leeway=leeway,
        max_age=max_age,
        stale=stale,
        prefix=prefix,
        transport=transport,
    )


def in_namespace(principal: Principal, prefix: str) -> Principal:
    """The caller with `prefix` before its id and its account.

    They are never those of a user of the gateway: such ones have the prefix `jwt:`.
    """

    def named(name: str) -> str:
        found = prefix + name if name else ""
        return found if user_number(found) is None else _RESERVED_PREFIX + found

    return replace(principal, id=named(principal.id), account=named(principal.account))


def _import_pyjwt() -> Any:
    try:
        import cryptography as _  # noqa: F401 (asymmetric algorithms need it)
        import jwt
    except ImportError as error:
        raise ConfigurationError(
            f"jwt_tokens requires PyJWT and cryptography: pip install 'asgi-aiproxy[jwt]'. "
            f"({error})"
        ) from error
    return jwt


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """The value of a claim: one of this name, or one inside objects along the dots."""
    if path in claims:  # names may be URLs, which have dots
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _refused(message: str, code: str) -> APIError:
    return APIError(ErrorKind.UNAUTHORIZED, message, code=code)
