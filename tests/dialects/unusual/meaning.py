"""Compares an answer of the gateway with what the vendor said."""

from __future__ import annotations

from collections.abc import Iterable

from tests.dialects.unusual.case import Case
from tests.support.readers import Answer


def check(case: Case, face: str, answer: Answer) -> None:
    """The answer says what the vendor said, as far as the API has words for it."""
    if case.error is not None:
        assert answer.error is not None
        assert case.message in answer.error["message"]
        assert answer.finish in ("", "end")
        return
    assert answer.error is None
    if face == "openai_completions":
        assert answer.text == case.text + case.refusal or answer.text == case.text
        return
    refusal = case.refusal
    if face == "anthropic" and answer.finish != "filter" and case.finish == "filter":
        refusal = ""
    assert answer.said == case.text + refusal
    if face not in ("anthropic", "gemini"):
        assert answer.refusal == refusal
    assert answer.thought == case.thought
    assert comparable(answer.calls, case) == comparable(case.calls, case)
    assert len({id for id, _, _ in answer.calls}) == len(answer.calls)
    assert tuple(answer.sources) == case.sources
    if face != "anthropic":  # which has no pictures in answers
        assert tuple(answer.images) == case.images
    assert answer.finish == finish(case, face)
    usage = case.usage
    if usage is None and face == "anthropic":
        usage = (0, 0, 0, 0)
    assert answer.usage == usage


def comparable(calls: Iterable[tuple[str, str, object]], case: Case) -> list[object]:
    """Calls without the ids that the gateway made. Some APIs wrap text that is not JSON."""
    wanted = [id for id, _, _ in case.calls]
    return [
        (None if at < len(wanted) and wanted[at] == "?" else id, name, unwrapped(arguments))
        for at, (id, name, arguments) in enumerate(calls)
    ]


def unwrapped(arguments: object) -> object:
    match arguments:
        case {"arguments": str(text)} | {"input": str(text)}:
            return text
    return arguments


def finish(case: Case, face: str) -> str:
    """How an API says the end of the answer."""
    if case.finish == "other" and face != "gemini":
        pauses = face == case.dialect == "anthropic" and "pause" in case.name
        return "other" if pauses else "tools" if case.calls else "end"
    if face == "anthropic" and case.refusal and case.finish == "end" and not case.calls:
        return "filter"  # its refusals are known by how they end
    return case.finish


def knows(case: Case, face: str) -> bool:
    """Whether the SDK of an API has types for all of an answer."""
    if face == "anthropic" and case.name == "custom-tool":
        return False  # a client of that API cannot declare one, and JSON it is not
    return face != "openai_completions" and (case.known or face != case.dialect)
