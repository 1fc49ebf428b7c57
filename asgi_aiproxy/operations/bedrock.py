"""What the operations on Amazon Bedrock share: InvokeModel, whose body belongs to the model.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
"""

from __future__ import annotations

from urllib.parse import quote

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.inspection import check_model


def invoke_path(model: str) -> str:
    """The path of InvokeModel. Raises APIError for a model that cannot be in a path."""
    return f"/model/{quote(check_model(model), safe='')}/invoke"


def no_such_operation(model: str, what: str) -> APIError:
    """The error for a model on Bedrock whose API for `what` is not known here."""
    return APIError(
        ErrorKind.NOT_FOUND,
        f"The model {model!r} on Amazon Bedrock does not offer {what} here.",
        param="model",
        code="unsupported_operation",
    )
