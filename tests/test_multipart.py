"""Multipart forms: the strict grammar, and that other parsers read accepted forms in the
same way.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.multipart import FormParser, parse_boundary
from tests.support import body_readers as readers

B = b"XbX"
END = b"--" + B + b"--\r\n"


def part(name: str, value: bytes, more: str = "") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return b"--" + B + b"\r\n" + disposition.encode() + value + b"\r\n"


def raw(headers: str, value: bytes = b"dear") -> bytes:
    """A part with only these headers."""
    return b"--" + B + b"\r\n" + headers.encode("latin-1") + b"\r\n\r\n" + value + b"\r\n"


def file(value: bytes, name: str = "file") -> bytes:
    return part(name, value, '; filename="a.wav"\r\nContent-Type: audio/wav')


MODEL = part("model", b"cheap")
DISPOSITION = 'Content-Disposition: form-data; name="model"'
NEAR = (
    b'\r\n--XbY\r\nContent-Disposition: form-data; name="model"\r\n\r\nfake\r\n--XbY--'
    b"\r\n--Xb\r\n--\r\nXbX\r\n-XbX--\r\n\r\n"
)

# (what it is, the body, the model that is found in it)
FORMS = [
    ("model first", MODEL + file(b"RIFF") + END, "cheap"),
    ("model last", file(b"RIFF") + part("language", b"en") + MODEL + END, "cheap"),
    ("model alone", MODEL + END, "cheap"),
    ("what is nearly a boundary", file(NEAR) + MODEL + END, "cheap"),
    ("empty file", file(b"") + MODEL + END, "cheap"),
    ("nothing but line ends", file(b"\r\n\r\n\r\n") + MODEL + END, "cheap"),
    ("no line end after the end", MODEL + END[:-2], "cheap"),
    ("several line ends after the end", MODEL + END + b"\r\n", "cheap"),
    ("names without quotes", MODEL.replace(b'"', b"") + END, "cheap"),
    ("headers in other letters", MODEL.replace(b"Content-D", b"CONTENT-d") + END, "cheap"),
    (".NET", part("model", b"m", "\r\nContent-Type: text/plain; charset=utf-8") + END, "m"),
    ("Java", part("model", b"m", "\r\nContent-Transfer-Encoding: 8bit") + END, "m"),
    ("letters", part("model", "модель".encode()) + END, "модель"),
    ("long", part("model", b"m" * 1024) + END, "m" * 1024),
    ("empty", part("model", b"") + END, ""),
    ("a file name in UTF-8", part("f", b"x", "; filename*=UTF-8''%C3%A9") + MODEL + END, "cheap"),
    ("a file name with signs", part("f", b"x", r'; filename="a;b \\c.wav"') + MODEL + END, "cheap"),
    ("no model", file(b"x") + END, None),
    ("only other fields", part("modality", b"x") + part("prompt", b"model") + END, None),
]  # fmt: skip


def read(pieces: list[bytes], boundary: bytes = B) -> FormParser:
    form = FormParser(boundary)
    for piece in pieces:
        form.feed(piece)
    form.close()
    return form


def cuts(body: bytes) -> list[list[bytes]]:
    """The body in all ways that it may be cut."""
    halves = [[body[:at], body[at:]] for at in range(len(body))]
    return [[body], [body[at : at + 1] for at in range(len(body))], *halves]


@pytest.mark.parametrize(("body", "model"), [f[1:] for f in FORMS], ids=[f[0] for f in FORMS])
def test_a_valid_form_is_read_wherever_it_is_cut(body: bytes, model: str | None) -> None:
    for pieces in cuts(body):
        form = read(pieces)
        assert form.model == model
        assert form.finished
        if model is not None:
            assert body[form.start : form.end] == model.encode()


# (what it is, the body, what is said of it)
WRONG = [
    ("twice", MODEL + file(b"x") + part("model", b"dear") + END, "given twice"),
    ("twice the same", MODEL + MODEL + END, "given twice"),
    ("twice, without an end", MODEL + MODEL[:-5], "given twice"),
    ("another name for it", MODEL + part("model_id", b"dear") + END, "both name a model"),
    ("many", part("models", b"a") + MODEL + END, "both name a model"),
    ("in capitals", part("MODEL", b"dear") + END, "could be read as"),
    ("as PHP does", part("model[]", b"dear") + END, "could be read as"),
    ("encoded", part("mode%6c", b"dear") + END, "could be read as"),
    ("a space", part("model ", b"dear") + END, "could be read as"),
    ("a file", file(b"dear", "model") + END, "plain text"),
    ("an empty file name", part("model", b"dear", '; filename=""') + END, "plain text"),
    ("a starred file name", part("model", b"x", "; filename*=UTF-8''x") + END, "plain text"),
    ("UTF-16", part("model", b"x", "\r\nContent-Type: text/plain; charset=utf-16") + END, "plain"),
    ("JSON", part("model", b'"x"', "\r\nContent-Type: application/json") + END, "plain text"),
    ("no text", part("model", b"\xff\xfe") + END, "not valid UTF-8"),
    ("spaces", part("model", b" cheap ") + END, "white space"),
    ("a line end", part("model", b"cheap\r\n") + END, "control characters"),
    ("dots", part("model", b"../x") + END, "Invalid model name"),
    ("a charset for all fields", part("_charset_", b"utf-7") + MODEL + END, "_charset_"),
    ("very long", part("model", b"m" * 1025) + END, "too long"),
    ("very long, no end", part("model", b"m" * 5000)[:-2], "too long"),
    ("base64", raw(DISPOSITION + "\r\nContent-Transfer-Encoding: base64") + END, "transfer enc"),
    ("two names", raw(DISPOSITION + "; name=prompt") + END, "no Content-Disposition"),
    ("a starred name", raw('Content-Disposition: form-data; name*=UTF-8''model') + END, "no Con"),
    ("both names", raw(DISPOSITION + "; name*=UTF-8''x") + END, "no Content-Disposition"),
    ("a continued name", raw("Content-Disposition: form-data; name*0=mo; name*1=del") + END,
     "no Content-Disposition"),
    ("another parameter", raw(DISPOSITION + "; charset=utf-8") + END, "no Content-Disposition"),
    ("two dispositions", raw('Content-Disposition: form-data; name="x"\r\n' + DISPOSITION) + END,
     "two headers"),
    ("an attachment", raw('Content-Disposition: attachment; name="model"') + END, "no Content"),
    ("no disposition", raw("Content-Type: text/plain; name=model") + END, "no Content-Disposition"),
    ("no name", raw("Content-Disposition: form-data") + END, "no Content-Disposition"),
    ("no headers", b"--XbX\r\n\r\nname=model\r\n" + MODEL + END, "no headers"),
    ("an escaped quote", part('x\\"; name="model', b"dear") + END, "no Content-Disposition"),
    ("an escape in a file name", part("x", b"d", r'; filename="a\"; name=\"model"') + END, "no C"),
    ("a name in a file name", part("x", b"dear", '; filename="a; name=model"') + END, "contains p"),
    ("a name in the type", raw('Content-Disposition: form-data; name="x"\r\n'
     "Content-Type: text/plain; name=model") + END, "has a name or file name"),
    ("parts of parts", raw('Content-Disposition: form-data; name="x"\r\n'
     "Content-Type: multipart/mixed; boundary=y") + END, "is multipart itself"),
    ("folded", raw('Content-Disposition: form-data;\r\n name="model"') + END, "folded"),
    ("LF in headers", raw('X: y\n' + DISPOSITION) + END, "end with CRLF"),
    ("CR in headers", raw('X: y\r' + DISPOSITION) + END, "end with CRLF"),
    ("LF before a value", MODEL[:-9] + b"\n\ndear\r\n" + END, "CRLF"),
    ("NUL in headers", raw('X: y\0\r\n' + DISPOSITION) + END, "invalid"),
    ("a space before a colon", raw('Content-Disposition : form-data; name="x"') + END, "invalid"),
    ("a delimiter in headers", raw('X: --XbX\r\n' + DISPOSITION) + END, "in the headers"),
    ("white space after a delimiter", MODEL + part("model", b"x").replace(b"XbX\r", b"XbX \r")
     + END, "white space"),
    ("white space after the first", MODEL.replace(b"XbX\r", b"XbX \r") + END, "begin with"),
    ("LF delimiters", file(b"x\n--XbX\n" + DISPOSITION.encode() + b"\n\ndear\n") + MODEL + END,
     "line feed"),
    ("LF before a delimiter", file(b"x\n--XbX") + MODEL + END, "line feed"),
    ("a delimiter within a line", file(b"x--XbX\r\n") + MODEL + END, "within a part"),
    ("a quoted delimiter", file(b'\r\n--"XbX"\r\n') + MODEL + END, "within a part"),
    ("a longer boundary", file(b"\r\n--XbXx\r\n") + MODEL + END, "within a part"),
    ("a preamble", b"preamble\r\n" + MODEL + END, "begin with"),
    ("a line end before", b"\r\n" + MODEL + END, "begin with"),
    ("an epilogue", MODEL + END + MODEL + END, "follows"),
    ("text after the end", MODEL + END + b"x", "follows"),
    ("half a line end", MODEL + END[:-1], "follows"),
    ("no last delimiter", MODEL + file(b"RIFF"), "before its last"),
    ("never ends", raw(DISPOSITION)[:-4], "before its last"),
    ("no parts", END, "no parts"),
    ("nothing", b"", "before its last"),
    ("JSON instead", b'{"model":"dear"}', "begin with"),
    ("line feeds only", (MODEL + END).replace(b"\r\n", b"\n"), "begin with"),
    ("long headers", b"--XbX\r\nX: " + b"x" * 17_000, "longer than"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_ambiguous_forms_are_refused(body: bytes, words: str) -> None:
    for size in (1, 2, 7, 1000, len(body) or 1):
        with pytest.raises(APIError, match=words) as caught:
            read([body[at : at + size] for at in range(0, len(body), size)])
        assert caught.value.status == 400


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; Boundary=a",
        "multipart/form-data; boundary*=UTF-8''a",
        "multipart/form-data; boundary*0=a; boundary=b",
        'multipart/form-data; x="; boundary=a; "; boundary=b',
        "multipart/form-data; xboundary=a; boundary=b",
        "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
        "multipart/form-data; boundary=a b",
        'multipart/form-data; boundary="a b"',
        'multipart/form-data; boundary="a\\b"',
        'multipart/form-data; boundary="a"b',
        "multipart/form-data; boundary=a;",
        "multipart/form-data, boundary=a",
        "multipart/form-data boundary=a",
        "multipart/form-data; charset=utf-7; boundary=a",
        "multipart/form-data; boundary=" + "a" * 71,
        "multipart/mixed; boundary=a",
        "text/plain; boundary=a",
    ],
)
def test_an_ambiguous_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(APIError) as caught:
        parse_boundary(content_type)
    assert caught.value.status == 415


def test_parsed_data_is_not_kept() -> None:
    form = FormParser(B)
    form.feed(b'--XbX\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n')
    for _ in range(100):
        form.feed(b"x" * 65_536)
        assert len(form._buffer) < 100
    form.feed(b"\r\n" + MODEL + END)
    assert form.model == "cheap"


# ── against other parsers ────────────────────────────────────────────────────

TYPE = "multipart/form-data; boundary=XbX"
SCRAPS = [b"\r\n", b"\n", b"\r", b"--", b"XbX", b"--XbX", b"--XbX\r\n", b"--XbX--", b"--XbX \r\n"]
SCRAPS += [b'Content-Disposition: form-data; name="model"', b"; name=model", b'"', b"\r\n\r\n"]
SCRAPS += [
    b"\n\n",
    b"dear",
    b"cheap",
    b" ",
    b"\t",
    b"\\",
    b"filename=a",
    b"name*=UTF-8''model",
    b"\0",
]
PARTS = [MODEL, file(b"RIFF"), part("prompt", b"dear"), END, raw(DISPOSITION)]


@given(
    scraps=st.lists(st.sampled_from([*SCRAPS, *PARTS]), max_size=8),
    form=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    at=st.integers(0, 400),
    cut=st.integers(0, 20),
)
@settings(max_examples=500, deadline=None)
def test_no_parser_finds_another_model_in_an_accepted_body(
    scraps: list[bytes], form: list[bytes], at: int, cut: int
) -> None:
    whole = b"".join(form) + END
    body = whole[:at] + b"".join(scraps) + whole[at + cut :]
    try:
        found = read([body]).model
    except APIError:
        return
    assert readers.everything(TYPE, body) <= {found}, body


@given(st.lists(st.sampled_from([*SCRAPS, *PARTS, b"x"]), max_size=12), st.integers(1, 50))
@settings(max_examples=500, deadline=None)
def test_how_a_body_is_cut_makes_no_difference(scraps: list[bytes], size: int) -> None:
    def outcome(pieces: list[bytes]) -> str | None:
        try:
            return read(pieces).model
        except APIError as error:
            return str(error.status)

    body = b"".join(scraps)
    places = [*range(0, len(body), size), len(body)]
    assert outcome([body]) == outcome([body[a:b] for a, b in pairwise(places)])


@given(
    values=st.lists(
        st.tuples(st.sampled_from(["file", "text"]), st.binary(max_size=30)), max_size=4
    ),
    model=st.from_regex(r"[a-z0-9/:.@_-]{1,12}", fullmatch=True).filter(lambda m: "." not in m),
    at=st.integers(0, 4),
)
@settings(max_examples=300, deadline=None)
def test_forms_of_real_clients_are_accepted(
    values: list[tuple[str, bytes]], model: str, at: int
) -> None:
    made = [file(value) if kind == "file" else part("prompt", value) for kind, value in values]
    made.insert(at, part("model", model.encode()))
    body = b"".join(made) + END
    form = read([body])
    assert form.model == model
    renamed = body[: form.start] + b"renamed" + body[form.end :]
    assert read([renamed]).model == "renamed"
    assert readers.everything(TYPE, body) == {model}
