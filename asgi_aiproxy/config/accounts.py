"""The users that settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from asgi_aiproxy.config.providers import make_sealer
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import Budget
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.github import GitHubProvider
from asgi_aiproxy.services.identity_providers import IdentityProvider
from asgi_aiproxy.services.low_balance import LowBalanceMail
from asgi_aiproxy.services.mail import SMTPMailer
from asgi_aiproxy.services.oidc import OIDCProvider
from asgi_aiproxy.services.passkeys import Passkeys
from asgi_aiproxy.services.second_factor import SecondFactors
from asgi_aiproxy.services.sign_in import SignInService
from asgi_aiproxy.services.sign_up import SignUpRules
from asgi_aiproxy.services.turnstile import Turnstile
from asgi_aiproxy.services.users import UserService
from asgi_aiproxy.stores import Store
from asgi_aiproxy.upstream.connect import tls

if TYPE_CHECKING:
    from asgi_aiproxy.config.accounts_settings import AccountsSettings, IdentityProviderSettings
    from asgi_aiproxy.config.settings import Settings


def make_users(settings: Settings, store: Store, audit: AuditLog) -> UserService:
    """Return the service that manages users."""
    given = settings.accounts.credit or ["0"]
    credit = tuple(Budget.parse(text, shared=True) for text in given)
    return UserService(store, credit=credit, audit=audit)


def link_url(settings: Settings, page: str, secret: str) -> str:
    """Return the URL of a page of the console with the secret of a one-time link."""
    base = settings.accounts.url.rstrip("/") or "/console"
    return f"{base}/{page}?{urlencode({'link': secret})}"


def check_accounts(settings: Settings) -> None:
    """Raise ConfigurationError if users are enabled without what they require."""
    given = settings.accounts
    if not given.enabled:
        return
    if not settings.console:
        raise ConfigurationError("accounts.enabled: users sign in to the console: console = true.")
    if given.sign_up == "domains" and (not given.email_domains or given.mail is None):
        raise ConfigurationError(
            "accounts.sign_up: 'domains' requires accounts.email_domains, and [accounts.mail] to "
            "verify that a user has such an address."
        )
    if (given.mail is not None or given.providers) and not given.url:
        raise ConfigurationError(
            "accounts.url: mail has links to the console, and identity providers send browsers "
            "back to it: set the URL at which browsers reach it, such as "
            '"https://ai.example.com/console".'
        )


def make_sign_in(settings: Settings, users: UserService) -> SignInService | None:
    """Return the service that signs users in; None if they are not enabled.

    Raises ConfigurationError.
    """
    given = settings.accounts
    if not given.enabled:
        return None
    rules = SignUpRules(
        mode=given.sign_up,
        domains=tuple(given.email_domains),
        verify=given.mail is not None,
        invited_credit=_credit(given.invited_credit),
        inviter_credit=_credit(given.inviter_credit),
    )
    return SignInService(
        users,
        rules=rules,
        mailer=_mailer(given),
        url=given.url,
        name=settings.console_name,
        factors=_second_factors(settings, users),
        passkeys=_passkeys(settings, users),
        turnstile=_turnstile(settings),
        providers=[_provider(name, each, settings) for name, each in given.providers.items()],
    )


def make_low_balance_mail(settings: Settings, store: Store) -> LowBalanceMail | None:
    """Return what sends mail to users whose balance is low; None if there is no mail."""
    given = settings.accounts
    mailer = _mailer(given)
    if not given.enabled or mailer is None:
        return None
    return LowBalanceMail(
        store,
        mailer,
        fraction=given.low_balance,
        name=settings.console_name,
        link=settings.site.top_up_url or given.url,
    )


def _turnstile(settings: Settings) -> Turnstile | None:
    given = settings.accounts.turnstile
    if given is None:
        return None
    proxy = settings.proxy.get_secret_value() if settings.proxy is not None else None
    return Turnstile(
        given.site_key,
        given.secret.get_secret_value(),
        host=urlsplit(settings.accounts.url).hostname or "",
        proxy=proxy,
        ca=settings.ca_file,
    )


def _second_factors(settings: Settings, users: UserService) -> SecondFactors | None:
    """Return the second factors; None if their secrets could not be encrypted in the store."""
    cipher, required = make_sealer(settings), settings.accounts.second_factor
    if cipher is None:
        if required:
            raise ConfigurationError(
                "accounts.second_factor: with Redis or a store file it requires sealing_keys, "
                "which encrypt the secrets of authenticators."
            )
        return None
    return SecondFactors(users, cipher=cipher, required=required, name=settings.console_name)


def _passkeys(settings: Settings, users: UserService) -> Passkeys | None:
    """Return the passkeys; None if they are not enabled. Raises ConfigurationError."""
    given = settings.accounts
    if not given.passkeys:
        return None
    try:
        return Passkeys(users, url=given.url, name=settings.console_name)
    except ConfigurationError as error:
        raise ConfigurationError(f"accounts.passkeys: {error}") from error


def _provider(name: str, given: IdentityProviderSettings, settings: Settings) -> IdentityProvider:
    """Return an identity provider. Raises ConfigurationError, which names the setting."""
    proxy = given.proxy if given.proxy is not None else settings.proxy
    shared: dict[str, Any] = {
        "client_id": given.client_id,
        "client_secret": given.client_secret.get_secret_value(),
        "email_domains": tuple(given.email_domains),
        "link_by_email": given.link_by_email,
        "proxy": proxy.get_secret_value() if proxy is not None else None,
        "ssl_context": tls(settings.ca_file) if settings.ca_file is not None else None,
    }
    try:
        if given.kind == "github":
            label = given.label or "GitHub"
            return GitHubProvider(
                name=name, label=label, url=given.url, api_url=given.api_url, **shared
            )
        scopes = tuple(given.scopes)
        return OIDCProvider(name, label=given.label, issuer=given.issuer, scopes=scopes, **shared)
    except ConfigurationError as error:
        raise ConfigurationError(f"accounts.providers.{name}: {error}") from error


def _credit(text: str | None) -> Budget | None:
    return Budget.parse(text, shared=True) if text is not None else None


def _mailer(given: AccountsSettings) -> SMTPMailer | None:
    mail = given.mail
    if mail is None:
        return None
    return SMTPMailer(
        mail.host,
        sender=mail.sender,
        port=mail.port,
        security=mail.security,
        user=mail.user,
        password=mail.password.get_secret_value() if mail.password is not None else "",
        timeout=mail.timeout,
    )
