"""Make pages from the templates, with Jinja2: all values are escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal

from asgi_aiproxy.console.assets import Assets
from asgi_aiproxy.console.site import Site
from asgi_aiproxy.console.texts import Languages
from asgi_aiproxy.errors import ConfigurationError

if TYPE_CHECKING:
    from asgi_aiproxy.console.pages import PageRequest

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, pass_context
    from jinja2.runtime import Context
except ImportError as error:
    raise ConfigurationError(
        "The console requires Jinja2: pip install 'asgi-aiproxy[console]'"
    ) from error

Currency = Literal["usd", "units"]
_FOLDER = Path(__file__).parent
_NOTHING = "\N{EN DASH}"


class Renderer:
    """The templates, static files and texts of the console.

    `site` says in which unit amounts are shown.
    """

    def __init__(self, site: Site) -> None:
        self.assets = Assets(_FOLDER / "static")
        self.languages = Languages(_FOLDER / "strings")
        self._templates = _environment(site)

    def prepare(self) -> None:
        """Compile all templates, which otherwise happens when each is used first."""
        for name in self._templates.list_templates():
            self._templates.get_template(name)

    def render(
        self, template: str, request: PageRequest, context: Mapping[str, Any]
    ) -> Iterator[str]:
        """Make a page as HTML, in pieces."""
        return self._templates.get_template(template).generate(
            _=request.texts,
            request=request,
            url=request.url,
            asset=lambda name: request.url("/static/" + self.assets.hashed(name)),
            languages=self.languages.tags,
            name=request.site.name,
            site=request.site.site,
            site_texts=request.site.html,
            **context,
        )


class _Loader(FileSystemLoader):
    """Templates that are compiled once in a process, for each `currency`: to compile one takes up
    to 30 ms, in which nothing else runs.
    """

    def __init__(self, currency: Currency) -> None:
        super().__init__(_FOLDER / "templates")
        self._currency = currency

    def load(
        self, environment: Environment, name: str, globals: MutableMapping[str, Any] | None = None
    ) -> Template:
        """Return a template."""
        code = _compiled(name, self._currency)
        return Template.from_code(environment, code, globals if globals is not None else {})


@cache
def _compiled(name: str, currency: Currency) -> CodeType:
    """Return a template as Python code; it depends on how the filters are called."""
    environment = _environment(Site(currency=currency))
    source, path, _ = FileSystemLoader(_FOLDER / "templates").get_source(environment, name)
    return environment.compile(source, name, path)


def _environment(site: Site) -> Environment:
    environment = Environment(
        loader=_Loader(site.currency),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    units = _in_units(site) if site.currency == "units" else None
    environment.filters.update(
        usd=units or format_usd,
        cost=units or format_cost,
        number=format_number,
        price=format_price,
        time=format_time,
        iso=format_iso,
        span=format_span,
    )
    return environment


def _in_units(site: Site) -> Callable[[Context, float | None], str]:
    """Return a filter that shows an amount in US dollars as quota units."""

    @pass_context
    def show(context: Context, dollars: float | None) -> str:
        if dollars is None:
            return _NOTHING
        return f"{dollars * site.units_per_usd:,.0f} {context['_']('units')}"

    return show


def format_usd(dollars: float | None) -> str:
    """Return an amount in US dollars: with cents, and up to six digits below a cent."""
    if dollars is None:
        return _NOTHING
    sign, size = "-" if dollars < 0 else "", abs(dollars)
    if size == 0 or size >= 1:
        return f"{sign}${size:,.2f}"
    return f"{sign}$" + f"{size:.6f}".rstrip("0").rstrip(".")


def format_cost(dollars: float | None) -> str:
    """Return an amount in US dollars for columns and figures: with two digits, or four below $1."""
    if dollars is None:
        return _NOTHING
    if 0 < abs(dollars) < 0.00005:
        return "<$0.0001"
    return f"${dollars:,.2f}" if dollars == 0 or abs(dollars) >= 1 else f"${dollars:.4f}"


def format_price(dollars: float | None) -> str:
    """Return a price in US dollars per million tokens, with all its digits."""
    if dollars is None:
        return _NOTHING
    return "$" + (f"{dollars:,.2f}" if round(dollars, 2) == dollars else f"{dollars:,.6g}")


def format_number(value: float | None) -> str:
    """Return a number with separators of thousands."""
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def format_time(seconds: float | None) -> str:
    """Return a Unix time as text in UTC, which a script turns into the reader's time zone."""
    if not seconds:
        return _NOTHING
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_iso(seconds: float) -> str:
    """Return a Unix time for `<time datetime>`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def format_span(seconds: float | None) -> str:
    """Return a duration."""
    if seconds is None:
        return _NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
