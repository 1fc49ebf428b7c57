"""What an operator adds to the pages: logo, texts as Markdown, links, and the unit of money.

Texts are CommonMark with tables. HTML in them is shown as text, images are not loaded (the policy
of the pages forbids other hosts), and links have only the schemes that are safe in a browser.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Literal

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.services.site import (
    MAX_LOGO,
    SiteService,
    SiteTexts,
    is_web_url,
    logo_type,
)
from asgi_aiproxy.stores.base import StoreUnavailableError

_TEXTS = ("home", "about", "footer")


@dataclass(frozen=True, slots=True)
class Site:
    """What an operator adds to the pages of a console.

    Arguments:

    - `logo`: the content of a PNG, JPEG, WebP or GIF file of at most 64 KiB.
    - `home`, `about`, `footer`: Markdown: above the sign-in, as a page of its own, below all pages.
    - `top_up_url`, `chat_url`: where users pay, and where they chat; they are shown as links.
    - `currency`: how amounts are shown: `usd`, or `units` of which `units_per_usd` are a US dollar.

    Raises ConfigurationError if an argument is invalid.
    """

    logo: bytes = b""
    home: str = ""
    about: str = ""
    footer: str = ""
    top_up_url: str = ""
    chat_url: str = ""
    currency: Literal["usd", "units"] = "usd"
    units_per_usd: int = 500_000

    def __post_init__(self) -> None:
        if len(self.logo) > MAX_LOGO or (self.logo and not self.logo_type):
            raise ConfigurationError(
                "Site: logo must be a PNG, JPEG, WebP or GIF file of at most 64 KiB."
            )
        for name in ("top_up_url", "chat_url"):
            url = getattr(self, name)
            if url and not is_web_url(url):
                raise ConfigurationError(f"Site: {name} must be a URL with http:// or https://.")

    @property
    def logo_type(self) -> str:
        """The media type of the logo; empty if it is none of those that are allowed."""
        return logo_type(self.logo)

    @property
    def logo_url(self) -> str:
        """The logo as a `data:` URL (RFC 2397)."""
        if not self.logo:
            return ""
        return f"data:{self.logo_type};base64,{base64.b64encode(self.logo).decode()}"


@dataclass(frozen=True, slots=True)
class ShownSite:
    """A site as pages show it: `name` is in their titles, `html` has its texts as HTML, which
    templates insert as it is (`|safe`).
    """

    name: str
    site: Site
    html: dict[str, str]


class SiteSource:
    """The site of a console: what is configured (`name`, `site`), replaced by what is stored.

    It is read from the store for each page, so that all workers show the same; texts are made into
    HTML only when they have changed.
    """

    def __init__(self, name: str, site: Site, stored: SiteService) -> None:
        self.configured = ShownSite(name, site, _as_html(site))
        self._stored = stored
        self._texts = SiteTexts()
        self._shown = self.configured

    async def current(self) -> ShownSite:
        """Return the site; that of the last page if the store is unavailable."""
        try:
            texts = await self._stored.get()
        except StoreUnavailableError:
            return self._shown
        if texts != self._texts:
            self._shown, self._texts = self._merged(texts), texts
        return self._shown

    def _merged(self, texts: SiteTexts) -> ShownSite:
        given = {
            name: value
            for name, value in msgspec.structs.asdict(texts).items()
            if value is not None
        }
        name = given.pop("name", self.configured.name)
        if "logo" in given:
            given["logo"] = base64.b64decode(given["logo"])
        site = replace(self.configured.site, **given)
        try:
            html = _as_html(site)
        except ConfigurationError:  # the library is missing
            html = {each: escape(getattr(site, each)) for each in _TEXTS}
        return ShownSite(name, site, html)


def _as_html(site: Site) -> dict[str, str]:
    texts = {name: getattr(site, name) for name in _TEXTS}
    if not any(texts.values()):
        return texts
    render = markdown_renderer()
    return {name: render(text) for name, text in texts.items()}


def markdown_renderer() -> Callable[[str], str]:
    """Return a function from Markdown to HTML. Raises ConfigurationError without the library."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ConfigurationError(
            "Site: Markdown requires: pip install 'asgi-aiproxy[accounts]'"
        ) from error
    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return made.render
