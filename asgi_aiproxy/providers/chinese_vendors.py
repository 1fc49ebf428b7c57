"""Vendors in China with an OpenAI-compatible API, one `Provider` each, with what is peculiar to it.

Several have another address, with accounts of its own, for customers in China or outside of it.
"""

from __future__ import annotations

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.providers import chinese_refusal_codes as codes
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.message_format import drop_signatures, reasoning_required, vendor_format
from asgi_aiproxy.providers.operations import AUDIO, CHAT, EMBEDDINGS
from asgi_aiproxy.providers.transforms import (
    add_fields,
    chain,
    drop_fields,
    effort_as,
    effort_within,
    image_size_as,
    limit_field,
    old_role,
    only_chat,
    only_images,
    rename_fields,
    replace_value,
)

_IMAGE_GENERATIONS = frozenset({"images.generations"})

# https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope (Qwen; in
# China: base_url https://dashscope.aliyuncs.com/compatible-mode/v1). Thinking is a switch. Some
# thinking models only stream.
DASHSCOPE = Provider(
    name="dashscope",
    refusals=codes.DASHSCOPE,
    dialect=OPENAI_CHAT,
    base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=chain(
        vendor_format, effort_as(lambda effort: {"enable_thinking": effort != "none"})
    ),
)
# https://docs.z.ai/api-reference/llm/chat-completion (GLM; in China: base_url
# https://open.bigmodel.cn/api/paas/v4). Thinking is a switch; `tool_choice` is always auto; one
# stop word. Streams end with usage without a request for it.
ZAI = Provider(
    name="zai",
    refusals=codes.ZAI,
    dialect=OPENAI_CHAT,
    base_url="https://api.z.ai/api/paas/v4",
    native_operations=CHAT | EMBEDDINGS | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=chain(
        vendor_format,
        effort_as(lambda e: {"thinking": {"type": "disabled" if e == "none" else "enabled"}}),
        rename_fields(user="user_id"),
    ),
)
# https://platform.kimi.ai/docs/api/chat (in China: base_url https://api.moonshot.cn/v1).
# Temperatures end at 1.
MOONSHOT = Provider(
    name="moonshot",
    refusals=codes.MOONSHOT,
    dialect=OPENAI_CHAT,
    base_url="https://api.moonshot.ai/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=chain(
        vendor_format, limit_field("temperature", 0, 1), only_chat(reasoning_required)
    ),
)
# https://platform.minimax.io/docs/api-reference/text-openai-api (in China: base_url
# https://api.minimaxi.com/v1). Thoughts are in the text, within <think>, unless `reasoning_split`
# is set. Errors may come with status 200, in `base_resp`.
MINIMAX = Provider(
    name="minimax",
    refusals=codes.MINIMAX,
    dialect=OPENAI_CHAT,
    base_url="https://api.minimax.io/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=chain(
        vendor_format, add_fields(reasoning_split=True), limit_field("temperature", 0, 1)
    ),
)
# https://docs.siliconflow.com/en/api-reference/chat-completions (in China: base_url
# https://api.siliconflow.cn/v1). Thinking is a switch. Error codes are numbers.
SILICONFLOW = Provider(
    name="siliconflow",
    refusals=codes.SILICONFLOW,
    dialect=OPENAI_CHAT,
    base_url="https://api.siliconflow.com/v1",
    native_operations=CHAT | EMBEDDINGS | AUDIO | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=chain(
        vendor_format,
        effort_as(lambda effort: {"enable_thinking": effort != "none"}),
        image_size_as(lambda width, height: {"image_size": f"{width}x{height}"}),
        only_images(rename_fields(n="batch_size")),
        only_images(drop_fields("quality", "style", "response_format", "user")),
    ),
)
# https://www.volcengine.com/docs/82379/1494384 (Ark: Doubao; outside of China: base_url
# https://ark.ap-southeast.bytepluses.com/api/v3). A model is named by its name or by the id of an
# inference endpoint, `ep-...`. The lowest effort, "minimal", turns reasoning off.
VOLCENGINE = Provider(
    name="volcengine",
    refusals=codes.VOLCENGINE,
    dialect=OPENAI_CHAT,
    base_url="https://ark.cn-beijing.volces.com/api/v3",
    native_operations=CHAT | EMBEDDINGS | _IMAGE_GENERATIONS,
    strict_format=False,
    transform_request=chain(
        old_role,
        drop_signatures,
        replace_value("reasoning_effort", "none", "minimal"),
        effort_within("minimal", "low", "medium", "high"),
    ),
)
# https://cloud.baidu.com/doc/qianfan/s/rmh4stn9m (Qianfan, ERNIE; API keys begin with `bce-v3/`).
# Its limits are in headers with OpenAI's names.
QIANFAN = Provider(
    name="qianfan",
    refusals=codes.QIANFAN,
    dialect=OPENAI_CHAT,
    base_url="https://qianfan.baidubce.com/v2",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://cloud.tencent.com/document/product/1729/111007 (Hunyuan; its own members, such as
# `enable_enhancement`, are sent as they are). Newer models are at TokenHub, which has keys of its
# own: https://www.tencentcloud.com/document/product/1300/79733 (base_url
# https://tokenhub.tencentmaas.com/v1; outside of China
# https://tokenhub-intl.tencentcloudmaas.com/v1).
HUNYUAN = Provider(
    name="hunyuan",
    refusals=codes.HUNYUAN,
    dialect=OPENAI_CHAT,
    base_url="https://api.hunyuan.cloud.tencent.com/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# https://platform.stepfun.ai/docs/en/api-reference/chat/chat-completion-create (in China: base_url
# https://api.stepfun.com/v1). Reasoning is in `reasoning`; 451: the content failed a review.
STEPFUN = Provider(
    name="stepfun",
    refusals=codes.STEPFUN,
    dialect=OPENAI_CHAT,
    base_url="https://api.stepfun.ai/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
# https://www.xfyun.cn/doc/spark/HTTP%E8%B0%83%E7%94%A8%E6%96%87%E6%A1%A3.html (iFlytek's Spark). A
# key is the `APIPassword` of one model. X1.5 has an address that ends with /v2, X2 one with /x2.
SPARK = Provider(
    name="spark",
    refusals=codes.SPARK,
    dialect=OPENAI_CHAT,
    base_url="https://spark-api-open.xf-yun.com/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
# https://platform.baichuan-ai.com/docs/api could not be read: the address is as in one-api
# (`relay/channeltype/url.go`) and other gateways. Its error codes are not known.
BAICHUAN = Provider(
    name="baichuan",
    dialect=OPENAI_CHAT,
    base_url="https://api.baichuan-ai.com/v1",
    native_operations=CHAT | EMBEDDINGS,
    strict_format=False,
    transform_request=vendor_format,
)
# 01.AI, the models named Yi, for customers in China. No documentation was found: the address is as
# in one-api (`relay/channeltype/url.go`) and other gateways. Some clients removed it in 2025 for
# want of new models (aichat, pull request 1327); whether it is still served is not known.
LINGYIWANWU = Provider(
    name="lingyiwanwu",
    dialect=OPENAI_CHAT,
    base_url="https://api.lingyiwanwu.com/v1",
    native_operations=CHAT,
    strict_format=False,
    transform_request=vendor_format,
)
ROWS: tuple[Provider, ...] = (
    DASHSCOPE,
    ZAI,
    MOONSHOT,
    MINIMAX,
    SILICONFLOW,
    VOLCENGINE,
    QIANFAN,
    HUNYUAN,
    STEPFUN,
    SPARK,
    BAICHUAN,
    LINGYIWANWU,
)
