"""Headers that vendors define, for the modules that pass headers on. Names are lower case.

Sources: the API references of the vendors; Azure's asynchronous requests
(https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations), Google's
resumable uploads (https://ai.google.dev/api/files), AWS's errors
(https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html).
"""

from __future__ import annotations

# What the client of a shim is sent of a response: ids for support requests, and rate limits.
RESPONSE_HEADERS = frozenset(
    {"x-request-id", "request-id", "openai-processing-ms", "openai-version", "openai-model"}
    | {"retry-after", "retry-after-ms", "x-should-retry", "cf-ray", "apim-request-id"}
)
RATE_LIMIT_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")

# They select an account of the caller's own: a key of the gateway's belongs to another one.
ACCOUNT_HEADERS = frozenset({"openai-organization", "openai-project", "x-goog-user-project"})

# Addresses of the vendor in responses, beside `location`. Clients follow the second ones without
# sending their key.
ADDRESS_HEADERS = frozenset({"operation-location", "azure-asyncoperation"})
UPLOAD_ADDRESS_HEADERS = frozenset({"x-goog-upload-url", "x-goog-upload-control-url"})

# In which coding agents send the id of their session, the more specific one first.
SESSION_HEADERS = ("x-claude-code-session-id", "session-id", "session_id")

# The error's code, before a colon.
ERROR_CODE_HEADERS = frozenset({"x-amzn-errortype"})
