"""The users that settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import Budget
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.low_balance import LowBalanceMail
from asgi_aiproxy.services.mail import SMTPMailer
from asgi_aiproxy.services.sign_in import SignInService, SignUpRules
from asgi_aiproxy.services.users import UserService
from asgi_aiproxy.stores import Store

if TYPE_CHECKING:
    from asgi_aiproxy.config.accounts_settings import AccountsSettings
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
    if given.mail is not None and not given.url:
        raise ConfigurationError(
            "accounts.url: mail has links to the console: set the URL at which browsers reach it, "
            'such as "https://ai.example.com/console".'
        )


def make_sign_in(settings: Settings, users: UserService) -> SignInService | None:
    """Return the service that signs users in; None if they are not enabled."""
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
        users, rules=rules, mailer=_mailer(given), url=given.url, name=settings.console_name
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
