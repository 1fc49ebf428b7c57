"""The screens of the console, one module for each noun."""

from __future__ import annotations

from asgi_aiproxy.console.pages import PageRoute
from asgi_aiproxy.console.screens.about import about_pages
from asgi_aiproxy.console.screens.announcements import announcement_pages
from asgi_aiproxy.console.screens.audit import audit_pages
from asgi_aiproxy.console.screens.explain import explain_pages
from asgi_aiproxy.console.screens.external import external_pages
from asgi_aiproxy.console.screens.groups import group_pages
from asgi_aiproxy.console.screens.home import home_pages
from asgi_aiproxy.console.screens.log import log_pages
from asgi_aiproxy.console.screens.models import model_pages
from asgi_aiproxy.console.screens.my_account import my_account_pages
from asgi_aiproxy.console.screens.passkeys import passkey_pages
from asgi_aiproxy.console.screens.playground import playground_pages
from asgi_aiproxy.console.screens.providers import provider_pages
from asgi_aiproxy.console.screens.second_factor import second_factor_pages
from asgi_aiproxy.console.screens.settings import settings_pages
from asgi_aiproxy.console.screens.sign_in import language_pages, sign_in_pages
from asgi_aiproxy.console.screens.sign_up import sign_up_pages
from asgi_aiproxy.console.screens.site import site_pages
from asgi_aiproxy.console.screens.start import start_pages
from asgi_aiproxy.console.screens.tokens import own_token_pages, token_pages
from asgi_aiproxy.console.screens.usage import usage_pages
from asgi_aiproxy.console.screens.users import user_pages
from asgi_aiproxy.console.screens.vouchers import redeem_pages, voucher_pages


def page_routes(
    *,
    sign_in: bool,
    playground: bool,
    users: bool,
    external: bool,
    second_factors: bool,
    passkeys: bool,
) -> list[PageRoute]:
    """Return all pages: with `sign_in` those of the console's own sign-in, too, with `playground`
    the page that calls the gateway, with `users` those of users with passwords, with `external`
    those of identity providers, with `second_factors` those of second factors,
    with `passkeys` those of passkeys.
    """
    return [
        *(sign_in_pages() if sign_in else ()),
        *(sign_up_pages() if users else ()),
        *(my_account_pages() if users else ()),
        *(user_pages() if users else ()),
        *(external_pages() if external else ()),
        *(second_factor_pages() if second_factors else ()),
        *(passkey_pages() if passkeys else ()),
        *about_pages(),
        *language_pages(),
        *home_pages(),
        *start_pages(),
        *(playground_pages() if playground else ()),
        *own_token_pages(),
        *token_pages(),
        *usage_pages(),
        *log_pages(),
        *provider_pages(),
        *group_pages(),
        *redeem_pages(),
        *voucher_pages(),
        *model_pages(),
        *explain_pages(),
        *announcement_pages(),
        *audit_pages(),
        *settings_pages(),
        *site_pages(),
    ]
