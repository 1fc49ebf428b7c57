"""What the error words of vendors are about: the request, a key, its account, a model, the vendor.

A table maps a machine-readable word of an error (`error.code`, `error.type`, Google's `reason` and
`status`, the header `x-amzn-errortype`), or a status and a word (`"413 rate_limit_exceeded"`), or a
status alone (`"402"`) to what the refusal is about. Sentences are never looked at: vendors reword
them. A word that stands in no table is judged by the status, see `asgi_aiproxy.refusals`.
"""

from __future__ import annotations

from collections.abc import Mapping

from asgi_aiproxy.errors import About

Refusals = Mapping[str, About]

# https://platform.openai.com/docs/guides/error-codes. Most compatible servers use these words, too.
# Limits are those of a model for the key's project; a quota is the account's money.
OPENAI: Refusals = {
    "insufficient_quota": About.ACCOUNT,
    "credit_balance_exhausted": About.ACCOUNT,
    "billing_hard_limit_reached": About.ACCOUNT,
    "billing_not_active": About.ACCOUNT,
    "account_deactivated": About.ACCOUNT,
    "access_terminated": About.ACCOUNT,
    "insufficient_balance": About.ACCOUNT,
    "organization_restricted": About.ACCOUNT,
    "invalid_api_key": About.KEY,
    "invalid_organization": About.KEY,
    "mismatched_organization": About.KEY,
    "ip_not_authorized": About.KEY,
    "model_not_found": About.MODEL,
    "rate_limit_exceeded": About.MODEL,  # also with 413: more tokens than this account's minute has
    "unsupported_country_region_territory": About.VENDOR,
    "content_filter": About.REQUEST,
    "content_policy_violation": About.REQUEST,
    "context_length_exceeded": About.REQUEST,
}

# https://learn.microsoft.com/azure/ai-foundry/openai/reference, .../concepts/content-filter
AZURE: Refusals = {
    **OPENAI,
    "DeploymentNotFound": About.MODEL,
    "OperationNotSupported": About.MODEL,
    "ResponsibleAIPolicyViolation": About.REQUEST,
    "AccessDenied": About.KEY,
    "401 PermissionDenied": About.MODEL,
    "403 PermissionDenied": About.MODEL,
    "SubscriptionSuspended": About.ACCOUNT,
}

# https://docs.claude.com/en/api/errors. (A 400 about an account without credit has the type of any
# wrong request.)
ANTHROPIC: Refusals = {
    "authentication_error": About.KEY,
    "billing_error": About.ACCOUNT,
    "rate_limit_error": About.MODEL,
    "overloaded_error": About.VENDOR,
    "api_error": About.VENDOR,
    "timeout_error": About.VENDOR,
    "request_too_large": About.REQUEST,
}

# https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto and
# https://ai.google.dev/gemini-api/docs/troubleshooting. A key is a project's: so is a quota.
GEMINI: Refusals = {
    "API_KEY_INVALID": About.KEY,
    "API_KEY_EXPIRED": About.KEY,
    "API_KEY_SERVICE_BLOCKED": About.KEY,
    "API_KEY_HTTP_REFERRER_BLOCKED": About.KEY,
    "API_KEY_IP_ADDRESS_BLOCKED": About.KEY,
    "API_KEY_ANDROID_APP_BLOCKED": About.KEY,
    "API_KEY_IOS_APP_BLOCKED": About.KEY,
    "ACCESS_TOKEN_EXPIRED": About.KEY,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": About.KEY,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": About.KEY,
    "CREDENTIALS_MISSING": About.KEY,
    "SERVICE_DISABLED": About.ACCOUNT,
    "BILLING_DISABLED": About.ACCOUNT,
    "CONSUMER_SUSPENDED": About.ACCOUNT,
    "CONSUMER_INVALID": About.ACCOUNT,
    "USER_PROJECT_DENIED": About.ACCOUNT,
    "ACCOUNT_STATE_INVALID": About.ACCOUNT,
    "GCP_SUSPENDED": About.ACCOUNT,
    "quota_per_project": About.KEY,
    "LOCATION_POLICY_VIOLATED": About.VENDOR,
    "404 NOT_FOUND": About.MODEL,  # (files and the like are looked for by another path)
    # A region without the free tier, or a project without billing where that is needed.
    "400 FAILED_PRECONDITION": About.VENDOR,
}

# https://console.groq.com/docs/errors, .../docs/rate-limits: limits are an organization's, for each
# model.
GROQ: Refusals = {
    **OPENAI,
    "413 tokens": About.MODEL,
    "498": About.VENDOR,  # "flex" capacity is used up
    "403 permissions_error": About.MODEL,
    "model_permission_blocked_org": About.MODEL,
    "model_permission_blocked_project": About.MODEL,
    "model_terms_required": About.MODEL,
    "model_decommissioned": About.MODEL,
    "424": About.VENDOR,
}

# https://openrouter.ai/docs/api/reference/errors-and-debugging
OPENROUTER: Refusals = {
    **OPENAI,
    "402": About.ACCOUNT,
    "403 moderation": About.REQUEST,
}

# https://api-docs.deepseek.com/quick_start/error_codes: 402 is the balance, 422 wrong parameters.
# (Its 401 has the code "invalid_request_error".)
DEEPSEEK: Refusals = {**OPENAI, "402": About.ACCOUNT, "authentication_error": About.KEY}

# https://docs.x.ai/docs/key-information/debugging. (A wrong key is a 400 that looks like others.)
XAI: Refusals = {**OPENAI, "unauthenticated": About.KEY, "resource-exhausted": About.MODEL}

# https://docs.mistral.ai/api: errors are {"object": "error", "message", "type", "param", "code"}.
MISTRAL: Refusals = {
    **OPENAI,
    "rate_limited": About.MODEL,
    "1300": About.MODEL,
    "service_tier_capacity_exceeded": About.VENDOR,
    "3505": About.VENDOR,
    "invalid_model": About.MODEL,
    "1500": About.MODEL,
}

# https://docs.together.ai/docs/error-codes: 402 is the spending limit, 403 a prompt that is too
# long.
TOGETHER: Refusals = {
    **OPENAI,
    "402": About.ACCOUNT,
    "403 invalid_request_error": About.REQUEST,
    "credit_limit": About.ACCOUNT,
    "model_not_available": About.MODEL,
}

# https://docs.fireworks.ai/guides/inference-error-codes: 412 is an account that is suspended.
FIREWORKS: Refusals = {
    **OPENAI,
    "412 PRECONDITION_FAILED": About.ACCOUNT,
    "412": About.ACCOUNT,
    "402": About.ACCOUNT,
    "UNAUTHORIZED": About.KEY,
    "404 NOT_FOUND": About.MODEL,
}

# https://docs.perplexity.ai: as OpenAI's; numbers for codes.
PERPLEXITY: Refusals = OPENAI

# https://inference-docs.cerebras.ai/support/error
CEREBRAS: Refusals = {
    **OPENAI,
    "402": About.ACCOUNT,
    "wrong_api_key": About.KEY,
    "token_quota_exceeded": About.MODEL,
    "request_quota_exceeded": About.MODEL,
    "queue_exceeded": About.VENDOR,
}

# https://docs.cohere.com/reference/errors: {"message"} alone, so the status says it all.
COHERE: Refusals = {**OPENAI, "402": About.ACCOUNT, "498": About.KEY, "499": About.VENDOR}

# https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
BEDROCK: Refusals = {
    "UnrecognizedClientException": About.KEY,
    "InvalidClientTokenId": About.KEY,
    "InvalidSignatureException": About.KEY,
    "SignatureDoesNotMatch": About.KEY,
    "ExpiredTokenException": About.KEY,
    "IncompleteSignature": About.KEY,
    "MissingAuthenticationToken": About.KEY,
    "OptInRequired": About.ACCOUNT,
    "AccessDeniedException": About.MODEL,
    "FTUFormNotFilled": About.MODEL,
    "ResourceNotFoundException": About.MODEL,
    "ThrottlingException": About.MODEL,
    "ServiceQuotaExceededException": About.MODEL,
    "ModelNotReadyException": About.VENDOR,
    "ModelErrorException": About.VENDOR,
    "ModelTimeoutException": About.VENDOR,
    "InternalServerException": About.VENDOR,
    "ServiceUnavailableException": About.VENDOR,
    "ValidationException": About.REQUEST,
}

# Servers at home know no accounts; a model that is not there may be elsewhere.
LOCAL: Refusals = {**OPENAI, "404": About.MODEL}

# For a provider without a table of its own, by its dialect.
BY_DIALECT: Mapping[str, Refusals] = {
    "openai_chat": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "ollama": LOCAL,
}


def about(table: Refusals, status: int, words: tuple[str, ...]) -> About | None:
    """What a refusal is about by a vendor's table; None if that says nothing."""
    for word in words:
        found = table.get(f"{status} {word}") or table.get(word) or BEDROCK.get(word)
        if found is not None:
            return found
    return table.get(str(status))
