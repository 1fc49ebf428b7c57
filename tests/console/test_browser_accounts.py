"""A real browser signs up, verifies its address, signs in with a second factor and at an identity
provider of another site, and ends a session, under the strict policy of the pages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pyotp
import pytest
from starlette.applications import Starlette

from asgi_aiproxy import AdminApp, MemoryStore
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.console import Console
from asgi_aiproxy.keys.encryption import NoEncryption
from asgi_aiproxy.services.mail import Mail
from asgi_aiproxy.services.oidc import OIDCProvider
from asgi_aiproxy.services.passkeys import Passkeys
from asgi_aiproxy.services.second_factor import SecondFactors
from asgi_aiproxy.services.sign_in import SignInService
from asgi_aiproxy.services.sign_up import SignUpRules
from asgi_aiproxy.services.users import UserService
from asgi_aiproxy.testing.server import serve_in_thread
from tests.console.support import ROOT
from tests.console.test_browser import check, press
from tests.console.test_external import ANN
from tests.support.identity_provider import CLIENT, SECRET, identity_provider
from tests.support.webdriver import Driver, browser, missing

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
PASSWORD = "a long enough password"


@dataclass
class Site:
    """A served console with users; `ahead` is by how many seconds clocks of codes are ahead."""

    console: str = ""
    mails: list[Mail] = field(default_factory=list)
    ahead: float = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def code(self, secret: str) -> str:
        """The next code of the authenticator."""
        self.ahead += 30
        return pyotp.TOTP(secret).at(int(self.now()))


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    store = MemoryStore()
    service = UserService(store, passwords=Passwords(time_cost=1, memory_cost=64))

    async def mailer(mail: Mail) -> None:
        found.mails.append(mail)

    with identity_provider() as provider:
        provider.person = {**ANN, "email": "ben@example.com", "preferred_username": "ben"}
        # It is another site: the console is at localhost.
        corp = OIDCProvider(
            "corp", label="Corp", issuer=provider.url, client_id=CLIENT, client_secret=SECRET
        )
        users = SignInService(
            service,
            rules=SignUpRules(mode="open", verify=True),
            mailer=mailer,
            providers=[corp],
            factors=SecondFactors(service, cipher=NoEncryption(), clock=found.now),
        )
        app = Starlette()
        with serve_in_thread(app) as url:
            # A passkey belongs to a host name, not to an IP address.
            found.console = users.url = url.replace("127.0.0.1", "localhost") + "/a/console"
            users.passkeys = Passkeys(service, url=found.console)
            app.mount(
                "/a/console", Console(AdminApp(store, token=ROOT, users=service), users=users)
            )
            yield found


def sign_up(page: Driver, site: Site) -> None:
    page.open(f"{site.console}/sign-up")
    fields = {"username": "ann", "email": "ann@example.com", "password": PASSWORD}
    for name, value in fields.items():
        page.type(f"#f-{name}", value)
    check(page, site, "sign-up")
    press(page, "/sign-up")
    page.wait("An e-mail was sent")
    link = re.search(r"http://\S+", site.mails[-1].text)
    assert link
    page.open(link[0])
    press(page, "/verify-email")
    page.wait("is verified")
    sign_in(page, site)
    page.wait("Home", "h1")


def sign_in(page: Driver, site: Site) -> None:
    page.open(f"{site.console}/sign-in")
    page.type("#f-username", "ann")
    page.type("#f-password", PASSWORD)
    page.click("main form[action$='/sign-in'] button")


def test_a_user_signs_up_and_in_with_a_second_factor_and_ends_a_session(site: Site) -> None:
    with browser() as page:
        sign_up(page, site)

        # A second factor, and a sign-in that needs it.
        page.open(f"{site.console}/my/account")
        check(page, site, "my-account")
        press(page, "/second-factor")
        page.wait("Scan this code")
        secret = page.text("#secret")
        page.type("#f-code", site.code(secret))
        check(page, site, "second-factor")
        press(page, "/enable")
        page.wait("Each of these codes")
        check(page, site, "recovery-codes")
        page.click("main a.button")
        page.wait("Recovery codes left: 10")
        page.click("header form[action$='/sign-out'] button")
        page.wait("Sign in", "h1")
        sign_in(page, site)
        page.wait("Second factor", "h1")
        check(page, site, "code")
        page.type("#f-code", "000000")
        press(page, "/sign-in/code")
        page.wait("The code is wrong")
        page.type("#f-code", site.code(secret))
        press(page, "/sign-in/code")
        page.wait("Home", "h1")

        # Another sign-in, which ends the session of the first one.
        page.command("cookie", method="DELETE")
        sign_in(page, site)
        page.type("#f-code", site.code(secret))
        press(page, "/sign-in/code")
        page.wait("Home", "h1")
        page.open(f"{site.console}/my/account")
        rows = "return document.querySelectorAll('#sessions ~ .scroll tbody tr').length"
        assert page.script(rows) == 2
        press(page, "/sessions/end")
        page.wait("Removed.")
        assert page.script(rows) == 1
        check(page, site, "sessions")
        page.click("header form[action$='/sign-out'] button")
        page.wait("Sign in", "h1")

        # At a provider of another site: there and back without a click.
        press(page, "/sign-in/with/corp")
        page.wait("Home", "h1")
        page.wait("Ann", "header")
        assert urlsplit(page.url).path == "/a/console/"
        entries = [each for each in page.log("browser") if each["source"] != "network"]
        assert [each for each in entries if each["level"] in ("SEVERE", "WARNING")] == []


def test_a_user_signs_in_with_a_passkey_and_a_cancelled_one_is_explained(site: Site) -> None:
    with browser() as page:
        sign_up(page, site)

        device = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True}
        device |= {"hasUserVerification": True, "isUserVerified": True}
        authenticator = page.command("webauthn/authenticator", device)
        page.open(f"{site.console}/my/account")
        page.type("#f-name", "laptop")
        press(page, "/my/account/passkeys")
        page.wait("Created.")
        page.wait("laptop", "#passkeys ~ .scroll")
        check(page, site, "passkeys")
        page.click("header form[action$='/sign-out'] button")
        page.wait("Sign in", "h1")
        check(page, site, "sign-in-passkey")
        press(page, "/sign-in/passkey")
        page.wait("Home", "h1")
        page.wait("ann", "header")
        page.click("header form[action$='/sign-out'] button")
        page.wait("Sign in", "h1")

        # A person that cannot unlock the device is not signed in, and may try again.
        verified = f"webauthn/authenticator/{authenticator}/uv"
        page.command(verified, {"isUserVerified": False})
        press(page, "/sign-in/passkey")
        page.wait("No passkey was used")
        check(page, site, "passkey-failed")
        assert page.script("return document.activeElement.id") == "retry"
        page.command(verified, {"isUserVerified": True})
        page.click("#retry")
        page.wait("Home", "h1")
