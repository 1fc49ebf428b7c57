"""Routes of users."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import AdminRequest, Route
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.services.base import Page, PageQuery
from asgi_aiproxy.services.invitations import (
    Invitation,
    InvitationCode,
    InvitationNew,
    Invitations,
)
from asgi_aiproxy.services.users import (
    PasswordLink,
    UserCreated,
    UserEdit,
    UserNew,
    UserOut,
    UserQuery,
    UserService,
)


def user_routes(service: UserService, invitations: Invitations) -> list[Route]:
    """Return the routes to list, create, change and remove users."""
    return [
        Route(
            method="GET",
            path="/users",
            need="read",
            run=lambda call: service.page(call.query),
            query=UserQuery,
            answer=Page[UserOut],
            summary="List users.",
        ),
        Route(
            method="POST",
            path="/users",
            need="write",
            run=lambda call: service.create(call.body, call.by),
            body=UserNew,
            answer=UserCreated,
            status=201,
            summary="Create a user with a role below one's own; its link is shown once.",
        ),
        Route(
            method="GET",
            path="/users/{id}",
            need="read",
            run=lambda call: service.get(_number(call)),
            answer=UserOut,
            summary="One user.",
        ),
        Route(
            method="PATCH",
            path="/users/{id}",
            need="write",
            run=lambda call: service.edit(_number(call), call.body, call.by),
            body=UserEdit,
            answer=UserOut,
            summary="Change a user whose role is below one's own.",
        ),
        Route(
            method="POST",
            path="/users/{id}/password-link",
            need="write",
            run=lambda call: service.make_password_link(_number(call), call.by),
            answer=PasswordLink,
            summary="Make a link by which a user sets a new password, once.",
        ),
        Route(
            method="DELETE",
            path="/users/{id}/second-factor",
            need="write",
            run=lambda call: service.reset_second_factor(_number(call), call.by),
            answer=UserOut,
            summary="Remove the second factor of a user with a role below one's own.",
        ),
        Route(
            method="DELETE",
            path="/users/{id}/passkeys",
            need="write",
            run=lambda call: service.remove_passkeys(_number(call), call.by),
            answer=UserOut,
            summary="Remove all passkeys of a user with a role below one's own.",
        ),
        Route(
            method="DELETE",
            path="/users/{id}",
            need="write",
            run=lambda call: service.drop(_number(call), call.by),
            summary="Remove a user, its tokens and its account.",
        ),
        Route(
            method="GET",
            path="/invitations",
            need="read",
            run=lambda call: invitations.page(call.query),
            query=PageQuery,
            answer=Page[Invitation],
            summary="List invitations, without their codes.",
        ),
        Route(
            method="POST",
            path="/invitations",
            need="write",
            run=lambda call: invitations.create(call.body, call.by),
            body=InvitationNew,
            answer=InvitationCode,
            status=201,
            summary="Create an invitation, with whose code users sign up; shown once.",
        ),
        Route(
            method="DELETE",
            path="/invitations/{id}",
            need="write",
            run=lambda call: invitations.drop(call.path["id"], call.by),
            summary="Remove an invitation.",
        ),
    ]


def _number(call: AdminRequest) -> int:
    text = call.path["id"]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise invalid(f"id: must be the number of a user, got {text!r}.", "id")
    return int(text)
