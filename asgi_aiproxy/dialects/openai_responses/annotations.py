"""Citations of the Responses API: the `annotations` of a text.

A text's annotations count characters from its beginning, neutral citations count them from the
beginning of the whole answer's text. `begins` is where the text begins in that.

https://platform.openai.com/docs/api-reference/responses/object (output_text)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.messages import Citation


def decode_citations(annotations: Any, begins: int = 0) -> Iterator[Citation]:
    """Read `annotations`: of pages, and of files by their name."""
    for annotation in _parsing.objects(annotations):
        kind, name = annotation.get("type"), _parsing.get_text(annotation, "filename")
        if kind != "url_citation" and not name:
            continue
        start, end = annotation.get("start_index"), annotation.get("end_index")
        yield Citation(
            url=_parsing.get_text(annotation, "url"),
            title=_parsing.get_text(annotation, "title") or name,
            start=begins + start if isinstance(start, int) else None,
            end=begins + end if isinstance(end, int) else None,
        )


def encode_citation(citation: Citation, begins: int, size: int) -> dict[str, Any]:
    """A member of `annotations` of a text of `size` characters.

    A citation without positions of its own covers the whole text; positions outside of the text
    become its nearest end.
    """
    start = 0 if citation.start is None else citation.start - begins
    end = size if citation.end is None else citation.end - begins
    return {
        "type": "url_citation",
        "start_index": min(max(start, 0), size),
        "end_index": min(max(end, 0), size),
        "url": citation.url,
        "title": citation.title,
    }
