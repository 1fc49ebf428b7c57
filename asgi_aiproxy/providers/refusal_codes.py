"""The scope of vendors' error codes: the request, a key, its account, a model or the vendor.

A table maps a machine-readable code of an error (`error.code`, `error.type`, Google's `reason` and
`status`, the header `x-amzn-errortype`), a status and a code (`"413 rate_limit_exceeded"`), or a
status alone (`"402"`) to the scope of the refusal. Messages are never parsed: vendors change
them. The scope of a code without an entry depends on the status, see
`asgi_aiproxy.exchange.error_mapping`.
"""

from __future__ import annotations

from collections.abc import Mapping

from asgi_aiproxy.errors import RefusalScope

Refusals = Mapping[str, RefusalScope]

# https://platform.openai.com/docs/guides/error-codes. Most compatible servers use the same codes.
# Rate limits apply to a model in the key's project; a quota is the credit of the account.
OPENAI: Refusals = {
    "insufficient_quota": RefusalScope.ACCOUNT,
    "credit_balance_exhausted": RefusalScope.ACCOUNT,
    "billing_hard_limit_reached": RefusalScope.ACCOUNT,
    "billing_not_active": RefusalScope.ACCOUNT,
    # https://help.openai.com/en/articles/5955604
    "organization_usage_limit_exceeded": RefusalScope.ACCOUNT,
    "organization_spend_limit_exceeded": RefusalScope.ACCOUNT,
    "project_spend_limit_exceeded": RefusalScope.KEY,
    "account_deactivated": RefusalScope.ACCOUNT,
    "access_terminated": RefusalScope.ACCOUNT,
    "insufficient_balance": RefusalScope.ACCOUNT,
    "organization_restricted": RefusalScope.ACCOUNT,
    "invalid_api_key": RefusalScope.KEY,
    "invalid_organization": RefusalScope.KEY,
    "mismatched_organization": RefusalScope.KEY,
    "ip_not_authorized": RefusalScope.KEY,
    "model_not_found": RefusalScope.MODEL,
    # Also with 413: more tokens than the account may use per minute.
    "rate_limit_exceeded": RefusalScope.MODEL,
    "unsupported_country_region_territory": RefusalScope.VENDOR,
    "content_filter": RefusalScope.REQUEST,
    "content_policy_violation": RefusalScope.REQUEST,
    "context_length_exceeded": RefusalScope.REQUEST,
}

# https://learn.microsoft.com/azure/ai-foundry/openai/reference, .../concepts/content-filter
AZURE: Refusals = {
    **OPENAI,
    "DeploymentNotFound": RefusalScope.MODEL,
    "OperationNotSupported": RefusalScope.MODEL,
    "ResponsibleAIPolicyViolation": RefusalScope.REQUEST,
    "AccessDenied": RefusalScope.KEY,
    "401 PermissionDenied": RefusalScope.MODEL,
    "403 PermissionDenied": RefusalScope.MODEL,
    "SubscriptionSuspended": RefusalScope.ACCOUNT,
}

# https://docs.claude.com/en/api/errors. (The 400 for an account without credit has the same type as
# any invalid request.)
ANTHROPIC: Refusals = {
    "authentication_error": RefusalScope.KEY,
    "billing_error": RefusalScope.ACCOUNT,
    "rate_limit_error": RefusalScope.MODEL,
    "overloaded_error": RefusalScope.VENDOR,
    "api_error": RefusalScope.VENDOR,
    "timeout_error": RefusalScope.VENDOR,
    "request_too_large": RefusalScope.REQUEST,
}

# https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto and
# https://ai.google.dev/gemini-api/docs/troubleshooting. Keys and quotas belong to a project.
GEMINI: Refusals = {
    "API_KEY_INVALID": RefusalScope.KEY,
    "API_KEY_EXPIRED": RefusalScope.KEY,
    "API_KEY_SERVICE_BLOCKED": RefusalScope.KEY,
    "API_KEY_HTTP_REFERRER_BLOCKED": RefusalScope.KEY,
    "API_KEY_IP_ADDRESS_BLOCKED": RefusalScope.KEY,
    "API_KEY_ANDROID_APP_BLOCKED": RefusalScope.KEY,
    "API_KEY_IOS_APP_BLOCKED": RefusalScope.KEY,
    "ACCESS_TOKEN_EXPIRED": RefusalScope.KEY,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": RefusalScope.KEY,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": RefusalScope.KEY,
    "CREDENTIALS_MISSING": RefusalScope.KEY,
    "SERVICE_DISABLED": RefusalScope.ACCOUNT,
    "BILLING_DISABLED": RefusalScope.ACCOUNT,
    "CONSUMER_SUSPENDED": RefusalScope.ACCOUNT,
    "CONSUMER_INVALID": RefusalScope.ACCOUNT,
    "USER_PROJECT_DENIED": RefusalScope.ACCOUNT,
    "ACCOUNT_STATE_INVALID": RefusalScope.ACCOUNT,
    "GCP_SUSPENDED": RefusalScope.ACCOUNT,
    "quota_per_project": RefusalScope.KEY,
    "LOCATION_POLICY_VIOLATED": RefusalScope.VENDOR,
    "404 NOT_FOUND": RefusalScope.MODEL,  # other resources have other paths
    # A region without the free tier, or a project without the billing that it needs.
    "400 FAILED_PRECONDITION": RefusalScope.VENDOR,
}

# https://console.groq.com/docs/errors, .../docs/rate-limits: limits apply to an
# organization and model.
GROQ: Refusals = {
    **OPENAI,
    "413 tokens": RefusalScope.MODEL,
    "498": RefusalScope.VENDOR,  # "flex" capacity is used up
    "403 permissions_error": RefusalScope.MODEL,
    "model_permission_blocked_org": RefusalScope.MODEL,
    "model_permission_blocked_project": RefusalScope.MODEL,
    "model_terms_required": RefusalScope.MODEL,
    "model_decommissioned": RefusalScope.MODEL,
    "424": RefusalScope.VENDOR,
}

# https://openrouter.ai/docs/api/reference/errors-and-debugging: the limit that a 402 or a 403
# is about is in `metadata.limit_source`.
OPENROUTER: Refusals = {
    **OPENAI,
    "openrouter_key_limit": RefusalScope.KEY,
    "openrouter_guardrail_budget": RefusalScope.KEY,
    "openrouter_workspace_budget": RefusalScope.ACCOUNT,
    "openrouter_credits": RefusalScope.ACCOUNT,
    "402": RefusalScope.ACCOUNT,
    "403 moderation": RefusalScope.REQUEST,
}

# https://api-docs.deepseek.com/quick_start/error_codes: 402: no balance, 422: invalid parameters.
# (Its 401 has the code "invalid_request_error".)
DEEPSEEK: Refusals = {
    **OPENAI,
    "402": RefusalScope.ACCOUNT,
    "authentication_error": RefusalScope.KEY,
}

# https://docs.x.ai/developers/debugging. (An invalid key is a 400 like any other.)
XAI: Refusals = {
    **OPENAI,
    "unauthenticated": RefusalScope.KEY,
    "resource-exhausted": RefusalScope.MODEL,
}

# https://docs.mistral.ai/resources/error-glossary: errors are
# {"object": "error", "message", "type", "param", "code"}. (Codes that are numbers are not listed.)
MISTRAL: Refusals = {
    **OPENAI,
    "rate_limited": RefusalScope.MODEL,
    "1300": RefusalScope.MODEL,
    "service_tier_capacity_exceeded": RefusalScope.VENDOR,
    "3505": RefusalScope.VENDOR,
    "invalid_model": RefusalScope.MODEL,
    "1500": RefusalScope.MODEL,
    "unknown_model": RefusalScope.MODEL,
    "authentication_error": RefusalScope.KEY,
    "rate_limit_error": RefusalScope.MODEL,
}

# https://docs.together.ai/docs/error-codes: 402: the spending limit, 403: the prompt is too
# long.
TOGETHER: Refusals = {
    **OPENAI,
    "402": RefusalScope.ACCOUNT,
    "403 invalid_request_error": RefusalScope.REQUEST,
    "credit_limit": RefusalScope.ACCOUNT,
    "model_not_available": RefusalScope.MODEL,
}

# https://docs.fireworks.ai/guides/inference-error-codes: 403: an invalid key, 404: no such model or
# no permission for it, 412: the account is suspended.
FIREWORKS: Refusals = {
    **OPENAI,
    "412 PRECONDITION_FAILED": RefusalScope.ACCOUNT,
    "412": RefusalScope.ACCOUNT,
    "402": RefusalScope.ACCOUNT,
    "UNAUTHORIZED": RefusalScope.KEY,
    "403": RefusalScope.KEY,
    "404": RefusalScope.MODEL,
}

# https://docs.perplexity.ai/docs/sonar/openai-compatibility: as OpenAI's; codes are statuses.
PERPLEXITY: Refusals = OPENAI

# https://inference-docs.cerebras.ai/support/error lists statuses; the codes are as the API sends
# them.
CEREBRAS: Refusals = {
    **OPENAI,
    "402": RefusalScope.ACCOUNT,
    "wrong_api_key": RefusalScope.KEY,
    "token_quota_exceeded": RefusalScope.MODEL,
    "request_quota_exceeded": RefusalScope.MODEL,
    "queue_exceeded": RefusalScope.VENDOR,
}

# https://docs.cohere.com/reference/errors: only {"message"}, so only the status counts.
COHERE: Refusals = {
    **OPENAI,
    "402": RefusalScope.ACCOUNT,
    "498": RefusalScope.KEY,
    "499": RefusalScope.VENDOR,
}

# https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
BEDROCK: Refusals = {
    "UnrecognizedClientException": RefusalScope.KEY,
    "InvalidClientTokenId": RefusalScope.KEY,
    "InvalidSignatureException": RefusalScope.KEY,
    "SignatureDoesNotMatch": RefusalScope.KEY,
    "ExpiredTokenException": RefusalScope.KEY,
    "IncompleteSignature": RefusalScope.KEY,
    "MissingAuthenticationToken": RefusalScope.KEY,
    "OptInRequired": RefusalScope.ACCOUNT,
    "AccessDeniedException": RefusalScope.MODEL,
    "FTUFormNotFilled": RefusalScope.MODEL,
    "ResourceNotFoundException": RefusalScope.MODEL,
    "ThrottlingException": RefusalScope.MODEL,
    "ServiceQuotaExceededException": RefusalScope.MODEL,
    "ModelNotReadyException": RefusalScope.VENDOR,
    "ModelErrorException": RefusalScope.VENDOR,
    "ModelTimeoutException": RefusalScope.VENDOR,
    "InternalServerException": RefusalScope.VENDOR,
    "ServiceUnavailableException": RefusalScope.VENDOR,
    "ValidationException": RefusalScope.REQUEST,
}

# https://www.coze.com/open/docs/developer_guides/coze_error_codes
COZE: Refusals = {
    "4008": RefusalScope.ACCOUNT,
    "4009": RefusalScope.ACCOUNT,
    "4011": RefusalScope.ACCOUNT,
    "4027": RefusalScope.ACCOUNT,
    "4028": RefusalScope.ACCOUNT,
    "4013": RefusalScope.KEY,
    "4014": RefusalScope.KEY,
    "4015": RefusalScope.MODEL,
    "4016": RefusalScope.REQUEST,
    "4100": RefusalScope.KEY,
    "4101": RefusalScope.MODEL,
    "4200": RefusalScope.MODEL,
    "700012006": RefusalScope.KEY,
}

# https://huggingface.co/docs/inference-providers/pricing: 402: the monthly credits are used up.
HUGGINGFACE: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT, "404": RefusalScope.MODEL}

# 402: no credits; 404: no such function (model). No page that lists them was found.
NVIDIA: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT, "404": RefusalScope.MODEL}

# https://docs.github.com/github-models/prototyping-with-ai-models#rate-limits
GITHUB: Refusals = {
    **OPENAI,
    "RateLimitReached": RefusalScope.MODEL,
    "UserByModelByDay": RefusalScope.MODEL,
    "unknown_model": RefusalScope.MODEL,
    "unavailable_model": RefusalScope.MODEL,
    "tokens_limit_reached": RefusalScope.REQUEST,
    "unauthorized": RefusalScope.KEY,
    "no_access": RefusalScope.MODEL,
}

# https://docs.sambanova.ai/docs/en/api-reference/using-the-api/api-error-codes: 410: the model was
# removed.
SAMBANOVA: Refusals = {
    **OPENAI,
    "invalid_authentication": RefusalScope.KEY,
    "410": RefusalScope.MODEL,
}

# 402: no balance; 404: no such model. No page that lists them was found.
DEEPINFRA: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT, "404": RefusalScope.MODEL}

# https://novita.ai/docs/api-reference/basic-error-code (words in `reason`) and
# https://novita.ai/docs/guides/error: a 403 is about the key, the balance or the model.
NOVITA: Refusals = {
    **OPENAI,
    "model_access_denied": RefusalScope.MODEL,
    "ACCESS_DENY": RefusalScope.MODEL,
    "INVALID_API_KEY": RefusalScope.KEY,
    "FAILED_TO_AUTH": RefusalScope.KEY,
    "NOT_ENOUGH_BALANCE": RefusalScope.ACCOUNT,
    "MODEL_NOT_FOUND": RefusalScope.MODEL,
    "RATE_LIMIT_EXCEEDED": RefusalScope.MODEL,
    "TOKEN_LIMIT_EXCEEDED": RefusalScope.MODEL,
    "SERVICE_NOT_AVAILABLE": RefusalScope.VENDOR,
}

# https://featherless.ai/docs/api-reference-error-codes: 403: a model whose licence was not
# accepted. Its limit is the number of concurrent requests of an account, see
# https://featherless.ai/docs/concurrency-limits.
FEATHERLESS: Refusals = {**OPENAI, "403": RefusalScope.MODEL, "429": RefusalScope.KEY}

# https://docs.baseten.co/inference/errors: 401 and 403: an invalid key, 402: the account's billing.
BASETEN: Refusals = {**OPENAI, "403": RefusalScope.KEY}

# https://vercel.com/docs/ai-gateway/pricing: 402 (`insufficient_funds`): no credits are left.
VERCEL: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT}

# https://docs.voyageai.com/docs/error-codes: 403: the IP address is not allowed.
VOYAGE: Refusals = {**OPENAI, "403": RefusalScope.KEY, "429": RefusalScope.MODEL}

# 402: no tokens are left (https://github.com/jina-ai/reader/issues/1125).
JINA: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT}

# https://elevenlabs.io/docs/eleven-api/resources/errors: the word is in `detail.status`. An account
# without credit is a 401.
ELEVENLABS: Refusals = {
    "invalid_api_key": RefusalScope.KEY,
    "missing_permissions": RefusalScope.KEY,
    "quota_exceeded": RefusalScope.ACCOUNT,
    "subscription_required": RefusalScope.ACCOUNT,
    "too_many_concurrent_requests": RefusalScope.KEY,
    "system_busy": RefusalScope.VENDOR,
    "model_not_found": RefusalScope.MODEL,
    "voice_not_found": RefusalScope.REQUEST,
    "402": RefusalScope.ACCOUNT,
}

# https://developers.deepgram.com/docs/errors
DEEPGRAM: Refusals = {
    "INVALID_AUTH": RefusalScope.KEY,
    "INSUFFICIENT_PERMISSIONS": RefusalScope.MODEL,
    "ASR_PAYMENT_REQUIRED": RefusalScope.ACCOUNT,
    "402": RefusalScope.ACCOUNT,
    "TOO_MANY_REQUESTS": RefusalScope.KEY,
}

# https://docs.bfl.ai/api_integration/errors: 402: no credits, 429: too many jobs of the account.
BFL: Refusals = {"402": RefusalScope.ACCOUNT, "429": RefusalScope.KEY, "404": RefusalScope.MODEL}

# https://developers.cloudflare.com/workers-ai/platform/errors/: numbers in a list `errors`.
CLOUDFLARE: Refusals = {
    **OPENAI,
    "10000": RefusalScope.KEY,
    "9109": RefusalScope.KEY,
    "3036": RefusalScope.ACCOUNT,  # the daily allocation
    "3039": RefusalScope.MODEL,
    "3040": RefusalScope.VENDOR,
    "3023": RefusalScope.ACCOUNT,  # the account is blocked
    "3041": RefusalScope.MODEL,
    "3042": RefusalScope.MODEL,
    "5007": RefusalScope.MODEL,
    "5016": RefusalScope.MODEL,
    "5018": RefusalScope.MODEL,
}

# https://docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api: 402: budget exceeded.
SNOWFLAKE: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT}

# https://docs.databricks.com/api/workspace/servingendpoints/query: names of errors.
DATABRICKS: Refusals = {
    **OPENAI,
    "PERMISSION_DENIED": RefusalScope.MODEL,
    "ENDPOINT_NOT_FOUND": RefusalScope.MODEL,
    "RESOURCE_DOES_NOT_EXIST": RefusalScope.MODEL,
    "REQUEST_LIMIT_EXCEEDED": RefusalScope.MODEL,
    "RESOURCE_EXHAUSTED": RefusalScope.MODEL,
    "TEMPORARILY_UNAVAILABLE": RefusalScope.VENDOR,
    "BAD_REQUEST": RefusalScope.REQUEST,
}

# Local servers have no accounts. A model that one of them lacks may be available elsewhere.
LOCAL: Refusals = {**OPENAI, "404": RefusalScope.MODEL}

# Its 429 means that the server has too much to do.
TGI: Refusals = {**LOCAL, "429": RefusalScope.VENDOR, "overloaded": RefusalScope.VENDOR}

# For a provider without a table of its own, by its dialect.
BY_DIALECT: Mapping[str, Refusals] = {
    "openai_chat": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "bedrock": BEDROCK,
    "cohere": COHERE,
    "coze": COZE,
    "ollama": LOCAL,
}


def refusal_scope(table: Refusals, status: int, words: tuple[str, ...]) -> RefusalScope | None:
    """The scope of a refusal by a vendor's table; None if there is no entry."""
    for word in words:
        found = table.get(f"{status} {word}") or table.get(word) or BEDROCK.get(word)
        if found is not None:
            return found
    return table.get(str(status))
