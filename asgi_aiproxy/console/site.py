"""What an operator adds to the pages: logo, texts as Markdown, links, and the unit of money.

Texts are CommonMark with tables. HTML in them is shown as text, images are not loaded (the policy
of the pages forbids other hosts), and links have only the schemes that are safe in a browser.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from asgi_aiproxy.errors import ConfigurationError

_LOGO_TYPES = {
    b"\x89PNG\r\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"GIF8": "image/gif",
}
_MAX_LOGO = 64 * 1024


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
        if len(self.logo) > _MAX_LOGO or (self.logo and not self.logo_type):
            raise ConfigurationError(
                "Site: logo must be a PNG, JPEG, WebP or GIF file of at most 64 KiB."
            )
        for name in ("top_up_url", "chat_url"):
            url = getattr(self, name)
            if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
                raise ConfigurationError(f"Site: {name} must be a URL with http:// or https://.")

    @property
    def logo_type(self) -> str:
        """The media type of the logo; empty if it is none of those that are allowed."""
        found = [kind for start, kind in _LOGO_TYPES.items() if self.logo.startswith(start)]
        return found[0] if found else ""

    @property
    def logo_url(self) -> str:
        """The logo as a `data:` URL (RFC 2397)."""
        if not self.logo:
            return ""
        return f"data:{self.logo_type};base64,{base64.b64encode(self.logo).decode()}"


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
