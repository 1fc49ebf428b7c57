"""Multipart forms by a strict grammar, so that every server finds the same fields in them.

Parsers of `multipart/form-data` differ in which errors they tolerate: white space after a
delimiter, bare line feeds, a preamble, an epilogue, folded header lines, repeated or unusually
quoted parameters. The field `model` that one parser finds in such a form can differ from the one
that another parser finds. So only forms that follow the grammar exactly are forwarded (RFC 7578,
RFC 2046 5.1):

- The content type has one `boundary` of letters, digits and `' + _ . = -`, and no other parameter
  than a `charset` of UTF-8.
- The body begins with the first delimiter and ends with the last one; all delimiters are exactly
  CRLF, `--`, the boundary and CRLF (or `--`, at the end, and then nothing but line ends). `--` and
  the boundary may occur nowhere else: clients choose a boundary that does not occur in their data.
- A part has one `Content-Disposition: form-data` with one `name`, and at most one `filename` and
  one `filename*`. Header lines end with CRLF, are not folded and not repeated; the transfer
  encoding is an identity, and a part is not multipart itself.
- At most one field names a model; it is plain text in UTF-8, without a file name. Fields whose
  names some parsers read as `model` (`Model`, `model[]`) are refused, and so is `_charset_`.

Nothing is rewritten: a valid form is forwarded byte for byte as it arrives, and an invalid one is
refused before its invalid bytes are forwarded. Ordinary clients send valid forms.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.inspection import ambiguous, check_model, folded, names_model

_MAX_HEADERS = 16 * 1024
_MAX_MODEL = 1024
_MAX_BOUNDARY = 70
_MAX_PARTS = 1000

_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"((?:[^"\\\x00-\x1f\x7f]|\\(?!"))*)"'
_PARAMETER = re.compile(rf";[ \t]*({_TCHARS})=(?:{_QUOTED}|({_TCHARS}))[ \t]*")
_BOUNDARY = re.compile(rf"[0-9A-Za-z'+_.=\-]{{1,{_MAX_BOUNDARY}}}")
_TYPE = re.compile(r"[ \t]*multipart/form-data[ \t]*", re.IGNORECASE)
_HEADER = re.compile(rf"({_TCHARS}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_FORM_DATA = re.compile(r"form-data[ \t]*", re.IGNORECASE)
_PLAIN_TEXT = re.compile(
    r'text/plain[ \t]*(?:;[ \t]*charset="?(?:utf-8|us-ascii)"?[ \t]*)?', re.IGNORECASE
)
_PLAIN_ENCODINGS = frozenset({"7bit", "8bit", "binary"})
_LINE_ENDS = re.compile(rb"(?:\r\n)*")
_UTF8 = frozenset({"utf-8", "utf8"})


def is_multipart_form(content_type: str) -> bool:
    """Return whether a content type is a multipart form, ignoring its parameters."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse_boundary(content_type: str) -> bytes:
    """Return the boundary of a content type. Raises APIError if it is invalid or ambiguous."""
    start = _TYPE.match(content_type)
    boundaries = _parameters(content_type, start.end()) if start is not None else None
    if (
        boundaries is None
        or boundaries.keys() - {"boundary", "charset"}
        or "boundary" not in boundaries
    ):
        raise APIError(
            ErrorKind.INVALID,
            "This path requires a multipart/form-data body whose content type has a boundary "
            "and no other parameters than a charset.",
            status=415,
        )
    if boundaries.get("charset", "utf-8").lower() not in _UTF8:
        raise APIError(ErrorKind.INVALID, "A multipart form must be in UTF-8.", status=415)
    boundary = boundaries["boundary"]
    if not _BOUNDARY.fullmatch(boundary):
        raise APIError(
            ErrorKind.INVALID,
            f"The boundary must be 1 to {_MAX_BOUNDARY} letters, digits and ' + _ . = -.",
            status=415,
        )
    return boundary.encode()


def _parameters(text: str, start: int) -> dict[str, str] | None:
    """Return the parameters from `start` on, names in lower case; None if they are malformed."""
    found: dict[str, str] = {}
    while start < len(text):
        parameter = _PARAMETER.match(text, start)
        if parameter is None:
            return None
        name, quoted, token = parameter.groups()
        if name.lower() in found:
            return None
        found[name.lower()] = token if quoted is None else quoted
        start = parameter.end()
    return found


class FormPart:
    """A part of a form: its headers, and the position of its content in the body, in bytes."""

    __slots__ = ("end", "headers", "start")

    def __init__(self, headers: bytes, start: int) -> None:
        self.headers = headers
        self.start = self.end = start

    def describe(self) -> tuple[str, str | None, str]:
        """The name of the field, the name of the file if it is one, and the content type."""
        found = {}
        for line in self.headers.decode().split("\r\n"):
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip(" \t")
        disposition = found["content-disposition"]
        given = _parameters(disposition, disposition.find(";")) or {}
        kind = found.get("content-type", "")
        is_file = "filename" in given or "filename*" in given
        return given["name"], given.get("filename", "file") if is_file else None, kind


class FormParser:
    """Parses a form that is fed in pieces, and finds the field that names its model.

    `feed` and `close` raise APIError at the first violation. Once the field is found, `model` is
    its value, and `start` and `end` are its position in the body, in bytes. `parts` are the
    parts read so far.
    """

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._delimiter = b"--" + boundary
        self._buffer = bytearray()
        self._offset = 0  # position of the buffer in the body
        self._state = self._first
        self._searched = 0  # the buffer holds no boundary before this index
        self._naming = ""  # the name of the field whose value is being read, if it names a model
        self.field = ""  # the name of the field that names the model
        self.model: str | None = None
        self.start = self.end = 0
        self._closed_to_models = False
        self.finished = False  # whether the last delimiter was read
        self.parts: list[FormPart] = []  # the last one without its end while it is read

    @classmethod
    def from_content_type(cls, content_type: str) -> FormParser:
        """Return a parser for a body of this type. Raises APIError."""
        return cls(parse_boundary(content_type))

    def feed(self, data: bytes) -> None:
        """Parse more bytes of the body. Raises APIError."""
        self._buffer += data
        while self._state():
            pass

    def allow_no_model(self) -> None:
        """From now on refuse any field that names a model."""
        self._closed_to_models = True

    def close(self) -> None:
        """End the body. Raises APIError if it is incomplete."""
        if not self.finished:
            raise _malformed("it ends before its last delimiter")
        if len(self._buffer) % 2:
            raise _malformed("something follows its last delimiter")

    # Each state parses one element, and returns whether more may be parsed.

    def _first(self) -> bool:
        expected = self._delimiter + b"\r\n"
        have = min(len(self._buffer), len(expected))
        if self._buffer[:have] != expected[:have]:
            if self._buffer.startswith(self._delimiter + b"-"):
                raise _malformed("it has no parts")
            raise _malformed("it does not begin with its boundary")
        if have < len(expected):
            return False
        self._drop(have)
        self._state = self._headers
        return True

    def _headers(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            raise _malformed("a part has no headers")
        end = buffer.find(b"\r\n\r\n")
        seen = bytes(buffer if end < 0 else buffer[:end])
        _check_line_ends(seen)
        if len(seen) > _MAX_HEADERS:
            raise _malformed("the headers of a part are longer than 16 KiB")
        if self._delimiter in seen:
            raise _malformed("its boundary occurs in the headers of a part")
        if end < 0:
            return False
        self._part(seen)
        self._drop(end + 4)
        if len(self.parts) == _MAX_PARTS:
            raise _malformed(f"it has more than {_MAX_PARTS} parts")
        self.parts.append(FormPart(seen, self._offset))
        self._state = self._content
        return True

    def _part(self, headers: bytes) -> None:
        name, plain = read_part(headers)
        self._naming = ""
        read = unquote(name)
        if read == "_charset_":  # which some parsers decode the other fields by (HTML 4.10.22.7)
            raise _malformed("a form must be in UTF-8, without a field '_charset_'")
        if not names_model(read):
            return
        if folded(read) == "model" and name != "model":
            raise ambiguous(name, "model")
        if self._closed_to_models:
            raise invalid(
                f"The field {name!r} must be nearer to the beginning of the form.", "model"
            )
        if self.field:
            twice = f"The field {name!r} is given twice."
            both = f"The fields {self.field!r} and {name!r} both name a model."
            raise invalid(twice if name == self.field else both, "model")
        if not plain:
            raise invalid(f"The field {name!r} must be plain text in UTF-8.", "model")
        self._naming = self.field = name

    def _content(self) -> bool:
        delimiter = self._find()
        if self._naming and (self._searched - 4 if delimiter is None else delimiter) > _MAX_MODEL:
            raise invalid(f"The field {self._naming!r} is too long.", "model")
        if delimiter is None:
            if not self._naming:
                self._drop(max(0, self._searched - 4))  # CRLF and `--` may precede it
            return False
        if self._naming:
            self._value(delimiter)
        self.parts[-1].end = self._offset + delimiter
        end = delimiter + 2 + len(self._delimiter)
        last = self._buffer[end : end + 2] == b"--"
        self._drop(end + 2)
        self._state = self._after if last else self._headers
        self.finished = last
        return True

    def _find(self) -> int | None:
        """Return the index of the next delimiter, its leading line end included; None if it has not
        arrived.

        (The headers of an empty part end with the line end that begins the delimiter.)
        """
        buffer, boundary = self._buffer, self._boundary
        while True:
            position = buffer.find(boundary, self._searched)
            if position < 0:
                self._searched = max(self._searched, len(buffer) - len(boundary) + 1)
                return None
            before = bytes(buffer[max(0, position - 4) : position])
            after = bytes(buffer[position + len(boundary) : position + len(boundary) + 2])
            if before.endswith((b"--", b'--"')):
                if before != b"\r\n--" or after not in (b"", b"\r", b"-", b"\r\n", b"--"):
                    raise _malformed(
                        "its boundary occurs within a part (choose one that does not occur in "
                        "the data), or a delimiter is next to white space or a bare line feed"
                    )
                self._searched = position
                return position - 4 if len(after) == 2 else None
            self._searched = position + 1

    def _value(self, end: int) -> None:
        self.start, self.end = self._offset, self._offset + end
        try:
            value = bytes(self._buffer[:end]).decode()
        except UnicodeDecodeError:
            raise invalid(f"The field {self._naming!r} is not valid UTF-8.", "model") from None
        self.model = check_model(value)

    def _after(self) -> bool:
        """Accept line ends after the last delimiter, and nothing else."""
        buffer = bytes(self._buffer)
        found = _LINE_ENDS.match(buffer)
        remaining = buffer[found.end() :] if found is not None else buffer
        if remaining not in (b"", b"\r"):
            raise _malformed("something follows its last delimiter")
        self._drop(len(buffer) - len(remaining))
        return False

    def _drop(self, count: int) -> None:
        if count > 0:
            del self._buffer[:count]
            self._offset += count
            self._searched = max(0, self._searched - count)


def _check_line_ends(headers: bytes) -> None:
    """Raise APIError on invalid line ends (a CR may be the last byte received so far)."""
    lines = headers.split(b"\r\n")
    if b"\n" in b"".join(lines) or b"\r" in b"".join([*lines[:-1], lines[-1].removesuffix(b"\r")]):
        raise _malformed("a header line of a part does not end with CRLF")
    for line in lines:
        if line.startswith((b" ", b"\t")):
            raise _malformed("a header line of a part is folded")


def read_part(headers: bytes) -> tuple[str, bool]:
    """Return the name of a part with these headers, and whether it is plain text. Raises
    APIError.
    """
    found: dict[str, str] = {}
    for line in headers.split(b"\r\n"):
        try:
            header = _HEADER.fullmatch(line.decode())
        except UnicodeDecodeError:
            header = None
        if header is None:
            raise _malformed("a header line of a part is invalid")
        key = header[1].lower()
        if key in found:
            raise _malformed(f"a part has two headers {key!r}")
        found[key] = header[2].rstrip(" \t")
    disposition = found.get("content-disposition", "")
    start = _FORM_DATA.match(disposition)
    given = _parameters(disposition, start.end()) if start is not None else None
    if not given or "name" not in given or given.keys() - {"name", "filename", "filename*"}:
        raise _malformed('a part has no Content-Disposition of the form form-data; name="..."')
    if "\\" in given["name"] or not given["name"]:
        raise _malformed("the name of a part is empty, or has a backslash")
    if ";" in given.get("filename", "") and "=" in given["filename"]:
        raise _malformed("the file name of a part contains parameters")
    if found.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise _malformed("a part has a transfer encoding")
    kind = found.get("content-type", "text/plain")
    if kind.lower().startswith(("multipart/", "message/")):
        raise _malformed("a part is multipart itself")
    if re.search(r";[ \t]*(?:file)?name\*?[ \t]*[=*]", kind, re.IGNORECASE):
        raise _malformed("the content type of a part has a name or file name parameter")
    plain = len(given) == 1 and _PLAIN_TEXT.fullmatch(kind) is not None
    return given["name"], plain


def _malformed(why: str) -> APIError:
    return invalid(f"The multipart form is malformed: {why}.", code="malformed_form")
