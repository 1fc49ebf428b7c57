"""The typed calls as methods of an app. What makes them is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from asgi_aiproxy._asgi import ASGIApp
    from asgi_aiproxy.messages import Request
    from asgi_aiproxy.operations.embeddings.base import Task
    from asgi_aiproxy.typed_calls import ChatAnswer, ChatStream, EmbeddingsAnswer, InProcess


class TypedCalls:
    """The methods `chat`, `stream` and `embed` of an app: see `InProcess`.

    Middlewares outside the app do not apply: use `InProcess` on the outermost one for that.
    """

    async def chat(
        self, request: Request | Mapping[str, Any] | None = None, /, **members: Any
    ) -> ChatAnswer:
        """Return a whole answer, as `InProcess.chat`. Raises APIError."""
        return await self._calls.chat(request, **members)

    def stream(
        self, request: Request | Mapping[str, Any] | None = None, /, **members: Any
    ) -> ChatStream:
        """Return the events of an answer, as `InProcess.stream`. Raises APIError."""
        return self._calls.stream(request, **members)

    async def embed(
        self,
        *,
        model: str,
        input: str | Sequence[str],
        dimensions: int | None = None,
        task: Task | None = None,
        user: str = "",
    ) -> EmbeddingsAnswer:
        """Return the embeddings of texts, as `InProcess.embed`. Raises APIError."""
        return await self._calls.embed(
            model=model, input=input, dimensions=dimensions, task=task, user=user
        )

    @property
    def _calls(self) -> InProcess:
        from asgi_aiproxy.typed_calls import InProcess

        return InProcess(cast("ASGIApp", self))
