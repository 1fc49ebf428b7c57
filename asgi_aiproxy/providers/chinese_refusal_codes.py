"""The scope of error codes of vendors in China. See `refusal_codes`."""

from __future__ import annotations

from asgi_aiproxy.errors import RefusalScope
from asgi_aiproxy.providers.refusal_codes import OPENAI, Refusals

# https://www.alibabacloud.com/help/en/model-studio/error-code. Limits are an account's, for each
# model; `insufficient_quota` is one of them.
DASHSCOPE: Refusals = {
    **OPENAI,
    "insufficient_quota": RefusalScope.MODEL,
    "Arrearage": RefusalScope.ACCOUNT,
    "InvalidApiKey": RefusalScope.KEY,
    "AccessDenied": RefusalScope.MODEL,
    "access_denied": RefusalScope.MODEL,
    "ModelNotFound": RefusalScope.MODEL,
    "Throttling": RefusalScope.MODEL,
    "Throttling.RateQuota": RefusalScope.MODEL,
    "Throttling.AllocationQuota": RefusalScope.MODEL,
    "AllocationQuota.FreeTierOnly": RefusalScope.MODEL,
    "DataInspectionFailed": RefusalScope.REQUEST,
    "data_inspection_failed": RefusalScope.REQUEST,
    "InternalError": RefusalScope.VENDOR,
    "ModelServingError": RefusalScope.VENDOR,
}

# https://docs.z.ai/api-reference/api-code
ZAI: Refusals = {
    **OPENAI,
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), RefusalScope.KEY),
    **dict.fromkeys(("1110", "1111", "1112", "1113", "1120", "1121"), RefusalScope.ACCOUNT),
    **dict.fromkeys(("1211", "1212", "1220", "1221", "1222", "1311"), RefusalScope.MODEL),
    **dict.fromkeys(("1210", "1213", "1214", "1215", "1261", "1301"), RefusalScope.REQUEST),
    **dict.fromkeys(("1302", "1303", "1304", "1305"), RefusalScope.MODEL),
    **dict.fromkeys(("1308", "1309", "1310", "1313"), RefusalScope.ACCOUNT),
    **dict.fromkeys(("1230", "1234", "1312"), RefusalScope.VENDOR),
}

# https://platform.kimi.ai/docs/api/errors. Limits are an account's, for all its models.
MOONSHOT: Refusals = {
    **OPENAI,
    "invalid_authentication_error": RefusalScope.KEY,
    "incorrect_api_key_error": RefusalScope.KEY,
    "exceeded_current_quota_error": RefusalScope.ACCOUNT,
    "permission_denied_error": RefusalScope.MODEL,
    "resource_not_found_error": RefusalScope.MODEL,
    "rate_limit_reached_error": RefusalScope.KEY,
    "engine_overloaded_error": RefusalScope.VENDOR,
}

# https://platform.minimax.io/docs/api-reference/errorcode
MINIMAX: Refusals = {
    **OPENAI,
    **dict.fromkeys(("1004", "2049"), RefusalScope.KEY),
    **dict.fromkeys(("1008", "2056"), RefusalScope.ACCOUNT),
    **dict.fromkeys(("1002", "1039", "2045"), RefusalScope.MODEL),
    **dict.fromkeys(("1000", "1001", "1013", "1024", "1033"), RefusalScope.VENDOR),
    **dict.fromkeys(("1026", "1027", "1042", "2013"), RefusalScope.REQUEST),
}

# https://docs.siliconflow.com/en/faqs/error-code: 403: no permission, mostly because the model
# requires a verified account. Limits are an account's, for each model.
SILICONFLOW: Refusals = {
    **OPENAI,
    "20012": RefusalScope.MODEL,
    "30003": RefusalScope.MODEL,
    "30001": RefusalScope.ACCOUNT,
    "50505": RefusalScope.VENDOR,
}

# https://www.volcengine.com/docs/82379/1299023 (error codes). Limits are an account's, for each
# model, or an endpoint's, which is a model.
VOLCENGINE: Refusals = {
    **OPENAI,
    **dict.fromkeys(("AuthenticationError", "InvalidAPIKey", "MissingHeader"), RefusalScope.KEY),
    "AccountOverdueError": RefusalScope.ACCOUNT,
    "OperationDenied.ServiceOverdue": RefusalScope.ACCOUNT,
    "InvalidAccountStatus": RefusalScope.ACCOUNT,
    "InvalidSubscription": RefusalScope.ACCOUNT,
    "OperationDenied.ServiceNotOpen": RefusalScope.MODEL,
    "AccessDenied": RefusalScope.MODEL,
    "ModelNotOpen": RefusalScope.MODEL,
    "UnsupportedModel": RefusalScope.MODEL,
    "InvalidEndpoint.ClosedEndpoint": RefusalScope.MODEL,
    "InvalidEndpoint.NotFound": RefusalScope.MODEL,
    "InvalidEndpointOrModel.NotFound": RefusalScope.MODEL,
    "InvalidEndpointOrModel.ModelIDAccessDisabled": RefusalScope.MODEL,
    "RateLimitExceeded.EndpointRPMExceeded": RefusalScope.MODEL,
    "RateLimitExceeded.EndpointTPMExceeded": RefusalScope.MODEL,
    "RateLimitExceeded.EndpointFlexTPMExceeded": RefusalScope.MODEL,
    "ModelAccountRpmRateLimitExceeded": RefusalScope.MODEL,
    "ModelAccountTpmRateLimitExceeded": RefusalScope.MODEL,
    "APIAccountRpmRateLimitExceeded": RefusalScope.KEY,
    "AccountRateLimitExceeded": RefusalScope.KEY,
    "QuotaExceeded": RefusalScope.MODEL,
    "SetLimitExceeded": RefusalScope.MODEL,
    "InflightBatchsizeExceeded": RefusalScope.MODEL,
    "RequestBurstTooFast": RefusalScope.VENDOR,
    "ServerOverloaded": RefusalScope.VENDOR,
    "InternalServiceError": RefusalScope.VENDOR,
    "InputTextRiskDetection": RefusalScope.REQUEST,
    "InputImageRiskDetection": RefusalScope.REQUEST,
    "OutputTextRiskDetection": RefusalScope.REQUEST,
    "SensitiveContentDetected": RefusalScope.REQUEST,
    "InputTextSensitiveContentDetected": RefusalScope.REQUEST,
    "OutputTextSensitiveContentDetected": RefusalScope.REQUEST,
}

# https://cloud.baidu.com/doc/qianfan-api/s/Om9b4yj3w (error codes). A 401 may be about the model.
# Limits are an account's, for each model, except those of an app (`appid`) and of the cluster.
QIANFAN: Refusals = {
    **OPENAI,
    "invalid_iam_token": RefusalScope.KEY,
    "invalid_appid": RefusalScope.KEY,
    "account_overdue": RefusalScope.ACCOUNT,
    "400 invalid_model": RefusalScope.REQUEST,  # none was named
    "invalid_model": RefusalScope.MODEL,
    "model_offline": RefusalScope.MODEL,
    "no_parameter_permission": RefusalScope.MODEL,
    "rpm_rate_limit_exceeded": RefusalScope.MODEL,
    "tpm_rate_limit_exceeded": RefusalScope.MODEL,
    "input_tpm_rate_limit_exceeded": RefusalScope.MODEL,
    "output_tpm_rate_limit_exceeded": RefusalScope.MODEL,
    "preemptible_rate_limit_exceeded": RefusalScope.MODEL,
    "Offline_batch_reasoning_refused": RefusalScope.MODEL,
    "user_rate_limit_exceeded": RefusalScope.KEY,
    "cluster_rate_limit_exceeded": RefusalScope.VENDOR,
    "cluster_rpm_rate_limit_exceeded": RefusalScope.VENDOR,
    "cluster_tpm_rate_limit_exceeded": RefusalScope.VENDOR,
    "image_url_unsafe": RefusalScope.REQUEST,
    "system_unsafe": RefusalScope.REQUEST,
    "user_setting_unsafe": RefusalScope.REQUEST,
    "functions_unsafe": RefusalScope.REQUEST,
}

# https://platform.stepfun.ai/docs/en/api-reference/error-codes: 402: no balance, 451: the content
# of the request or of the answer failed a review.
STEPFUN: Refusals = {**OPENAI, "402": RefusalScope.ACCOUNT, "451": RefusalScope.REQUEST}

# https://cloud.tencent.com/document/product/1729/111007: a limit of concurrent requests, which an
# account and its sub-accounts share. (The page does not list codes.)
HUNYUAN: Refusals = {**OPENAI, "429": RefusalScope.KEY}

# The codes of Spark as in langchain4j (`SparkResponseErrorCode`) and other clients; the vendor's
# own page could not be read. A key is for one model.
SPARK: Refusals = {
    **OPENAI,
    "11500": RefusalScope.KEY,
    "10007": RefusalScope.KEY,  # the user's previous request is not answered yet
    "10015": RefusalScope.ACCOUNT,  # the app is blocked
    **dict.fromkeys(("10016", "11200", "11201", "11202", "11203"), RefusalScope.MODEL),
    **dict.fromkeys(("10003", "10004", "10005", "10163", "10907"), RefusalScope.REQUEST),
    **dict.fromkeys(("10013", "10014", "10019"), RefusalScope.REQUEST),  # a review of the content
    **dict.fromkeys(("10008", "10009", "10010", "10011", "10012"), RefusalScope.VENDOR),
    **dict.fromkeys(("10110", "10222"), RefusalScope.VENDOR),
}
