"""One change of the rows that are selected in a table of tokens or keys."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.bulk import BulkResult

_FINAL = ("revoke", "remove")  # actions that cannot be undone, which are confirmed first


async def change_selection(
    request: PageRequest, operation: str, base: str, **path: str
) -> PageAnswer:
    """Run a change of several rows by an operation of the admin API, and return to `base`.

    Raises APIError if nothing is selected, or with the rows that were not changed.
    """
    ids = request.form.get("ids", [])
    body = read_form(request.form, action="text", days="number", ids="choices")
    if not ids:
        raise invalid("Select at least one row.")
    if body.get("action") != "extend":
        body.pop("days", None)
    if body.get("action") in _FINAL and "confirmed" not in request.form:
        return request.page(
            "selection.html", ids=ids, action=body["action"], target=f"{base}/selection", base=base
        )
    result: BulkResult = await request.api(operation, body=body, **path)
    if result.failed:
        reasons = "; ".join(f"{each.id}: {each.message}" for each in result.failed[:5])
        raise invalid(f"{len(result.failed)} of {len(ids)} were not changed. {reasons}")
    return request.redirect(base, done="removed" if body["action"] in _FINAL else "saved")
