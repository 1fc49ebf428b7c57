"""The settings of callers with JSON Web Tokens: the table `[jwt]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.middleware.jwt import JWTClaims, JWTGroup, JWTVerifier, jwt_tokens
from asgi_aiproxy.principal import Budget, Limits


def check_budget(text: str) -> str:
    """Return `text` if it is a budget as `Budget.parse` reads it. Raises ValueError."""
    try:
        Budget.parse(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return text


BudgetText = Annotated[str, AfterValidator(check_budget)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class JWTGroupSettings(_Table):
    """What callers of one group may do. `rpm` and `tpm` are limits per minute and caller."""

    models: list[str] = []
    providers: list[str] = []
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    budgets: list[BudgetText] = []

    @property
    def limits(self) -> Limits:
        """The limits of each caller of the group."""
        budgets = tuple(Budget.parse(text) for text in self.budgets)
        return Limits(self.rpm, self.tpm, self.concurrency, budgets)


class JWTClaimSettings(_Table):
    """The names of the claims that make the caller; see `JWTClaims`."""

    id: str = "sub"
    name: str = "name"
    account: str = ""
    groups: str = "groups"


class JWTSettings(_Table):
    """An identity provider whose tokens are accepted; see `jwt_tokens`. `leeway` is in seconds."""

    issuer: str
    audience: list[str] = Field(min_length=1)
    jwks_url: str = ""
    algorithms: list[str] = ["RS256", "ES256", "EdDSA"]
    leeway: float = Field(default=30.0, ge=0)
    prefix: str = ""
    claims: JWTClaimSettings = JWTClaimSettings()
    groups: dict[str, JWTGroupSettings] = {}
    require_group: bool = False

    def verifier(self) -> JWTVerifier:
        """Make the verifier. Raises ConfigurationError."""
        rules = {
            name: JWTGroup(
                models=tuple(given.models), providers=tuple(given.providers), limits=given.limits
            )
            for name, given in self.groups.items()
        }
        try:
            claims = JWTClaims(
                **self.claims.model_dump(), group_rules=rules, require_group=self.require_group
            )
            return jwt_tokens(
                issuer=self.issuer,
                audience=self.audience,
                claims=claims,
                jwks_url=self.jwks_url,
                algorithms=self.algorithms,
                leeway=self.leeway,
                prefix=self.prefix,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"jwt: {error}") from error
