"""Images: OpenAI's API for every vendor that makes them."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.hooks import Call
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations import FluxImages
from asgi_aiproxy.providers import (
    BFL,
    GEMINI,
    OPENAI,
    TOGETHER,
    XAI,
    Provider,
    bedrock,
    comfyui,
    gradio,
    vertex,
)
from asgi_aiproxy.testing import serve
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams
from tests.support.strict_vendor import NUMBER, Endpoint, StrictVendor

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n\x00\x01"
B64 = base64.b64encode(PNG).decode()
EDITED = b"\xff\xd8\xffedit"
RATIOS = {"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
BEDROCK_RATIOS = {"1:1", "16:9", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"}


def gemini(body: Any, request: Any) -> Any:
    parts = [{"text": "Here."}, {"inlineData": {"mimeType": "image/png", "data": B64}}]
    counts = {"promptTokenCount": 9, "candidatesTokenCount": 1290, "totalTokenCount": 1299}
    content = {"role": "model", "parts": parts}
    return {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": counts}


def imagen(body: Any, request: Any) -> Any:
    one = {"bytesBase64Encoded": B64, "mimeType": "image/png", "prompt": "A grey cat"}
    return {"predictions": [one] * body["parameters"]["sampleCount"]}


def stability(body: Any, request: Any) -> Any:
    return {"seeds": [1], "finish_reasons": [None], "images": [B64]}


def nova(body: Any, request: Any) -> Any:
    return {"images": [B64] * body["imageGenerationConfig"]["numberOfImages"]}


INLINE = {"mimeType": str, "data": str}
GEMINI_BODY = {
    "contents": [{"role": str, "parts": [{"text": str, "inlineData": INLINE}]}],
    "generationConfig": {
        "responseModalities": [{"TEXT", "IMAGE"}],
        "imageConfig": {"aspectRatio": RATIOS, "imageSize": {"1K", "2K", "4K"}},
    },
}
IMAGEN_BODY = {
    "instances": [{"prompt": str}],
    "parameters": {
        "sampleCount": {1, 2, 3, 4},
        "aspectRatio": {"1:1", "3:4", "4:3", "9:16", "16:9"},
        "sampleImageSize": {"1K", "2K"},
        "outputOptions": {"mimeType": {"image/png", "image/jpeg"}, "compressionQuality": int},
        "personGeneration": str,
    },
}
STABILITY_BODY = {"prompt": str, "negative_prompt": str, "aspect_ratio": BEDROCK_RATIOS,
                  "mode": {"text-to-image", "image-to-image"}, "image": str, "strength": NUMBER,
                  "seed": int, "output_format": {"png", "jpeg"}}  # fmt: skip
NOVA_BODY = {
    "taskType": {"TEXT_IMAGE", "IMAGE_VARIATION"},
    "textToImageParams": {"text": str, "negativeText": str},
    "imageVariationParams": {"text": str, "negativeText": str, "images": [str]},
    "imageGenerationConfig": {"numberOfImages": int, "width": int, "height": int, "seed": int,
                              "quality": {"standard", "premium"}, "cfgScale": NUMBER},
}  # fmt: skip
PLACE = "/v1/projects/my-project/locations/global/publishers/google/models"
ROWS: dict[str, tuple[Provider, str, Endpoint]] = {
    "gemini": (GEMINI, "gemini-2.5-flash-image",
               Endpoint("/v1beta/models/gemini-2.5-flash-image:generateContent", GEMINI_BODY,
                        gemini)),
    "imagen": (GEMINI, "imagen-4.0-generate-001",
               Endpoint("/v1beta/models/imagen-4.0-generate-001:predict", IMAGEN_BODY, imagen)),
    "vertex": (vertex("my-project"), "imagen-4.0-generate-001",
               Endpoint(f"{PLACE}/imagen-4.0-generate-001:predict", IMAGEN_BODY, imagen)),
    "stability": (bedrock("us-west-2"), "stability.sd3-5-large-v1:0",
                  Endpoint(r"/model/stability\.sd3-5-large-v1%3A0/invoke", STABILITY_BODY,
                           stability, ("prompt",))),
    "nova": (bedrock("us-east-1"), "amazon.nova-canvas-v1:0",
             Endpoint(r"/model/amazon\.nova-canvas-v1%3A0/invoke", NOVA_BODY, nova)),
}  # fmt: skip
every_vendor = pytest.mark.parametrize("name", ROWS)


def app_of(name: str, records: list[UsageRecord] | None = None) -> tuple[OpenAIShim, StrictVendor]:
    async def keep(record: UsageRecord) -> None:
        (records if records is not None else []).append(record)

    provider, _, endpoint = ROWS[name]
    vendor = StrictVendor([endpoint])
    app = OpenAIShim(provider.using("ya29.k"), transport=vendor.transport, record=keep)
    return app, vendor


async def draw(app: Any, model: str = "m", **members: Any) -> Any:
    body = {"model": model, "prompt": "A cat", **members}
    return await asgi.request(app, "POST", "/v1/images/generations", body)


@every_vendor
async def test_images_are_made_in_the_requested_number_and_ratio(name: str) -> None:
    records: list[UsageRecord] = []
    app, vendor = app_of(name, records)
    async with app:
        answer = await draw(app, ROWS[name][1], n=3, size="1024x1024", quality="auto")
    assert answer.status == 200, answer.body
    found = answer.json
    assert [each["b64_json"] for each in found["data"]] == [B64] * 3
    assert found["output_format"] == "png"
    assert answer.header("aiproxy-ignored") is None
    (record,) = records
    assert record.usage is not None
    assert record.usage.images == 3
    if name == "gemini":
        assert (record.usage.input, record.usage.image_output) == (27, 3870)
        assert found["usage"]["output_tokens"] == 3870
    assert len(vendor.requests) == (3 if name in ("gemini", "stability") else 1)


@pytest.mark.parametrize(
    ("name", "size", "ratio"),
    [
        ("gemini", "1536x1024", "3:2"),
        ("gemini", "1024x1792", "9:16"),
        ("imagen", "1792x1024", "16:9"),
        ("stability", "1024x1536", "2:3"),
    ],
)
async def test_a_size_becomes_the_nearest_ratio(name: str, size: str, ratio: str) -> None:
    app, vendor = app_of(name)
    assert (await draw(app, ROWS[name][1], size=size)).status == 200
    assert f'"{ratio}"' in json.dumps(vendor.bodies[0])


@every_vendor
async def test_openais_sdk_reads_images_as_urls_and_as_events(name: str) -> None:
    app, _ = app_of(name)
    async with (
        serve(app) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="t", max_retries=0) as client,
    ):
        model = ROWS[name][1]
        found = await client.images.generate(model=model, prompt="A cat", response_format="url")
        assert found.data is not None
        assert found.data[0].url == f"data:image/png;base64,{B64}"
        stream = await client.images.generate(model=model, prompt="A cat", stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.completed"]
    assert events[0].b64_json == B64


def edit_form(*images: bytes, **fields: str) -> bytes:
    text = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ).encode()
    for image in images:
        text += b'--b\r\nContent-Disposition: form-data; name="image[]"; filename="a.png"\r\n'
        text += b"Content-Type: image/png\r\n\r\n" + image + b"\r\n"
    return text + b"--b--\r\n"


async def edit(app: Any, *images: bytes, **fields: str) -> Any:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    body = edit_form(*images, **{"model": "m", "prompt": "Add a hat", **fields})
    return await asgi.request(app, "POST", "/v1/images/edits", body, headers=headers)


@pytest.mark.parametrize("name", ["gemini", "stability", "nova"])
async def test_images_are_edited(name: str) -> None:
    app, vendor = app_of(name)
    answer = await edit(app, EDITED, model=ROWS[name][1])
    assert answer.status == 200, answer.body
    assert answer.json["data"][0]["b64_json"] == B64
    assert base64.b64encode(EDITED).decode() in json.dumps(vendor.bodies[0])


async def test_images_are_edited_by_a_json_body() -> None:
    app, vendor = app_of("gemini")
    url = "data:image/png;base64," + base64.b64encode(EDITED).decode()
    body = {"model": ROWS["gemini"][1], "prompt": "Hat", "images": [{"image_url": url}]}
    headers = {"content-type": "application/json"}
    answer = await asgi.request(app, "POST", "/v1/images/edits", body, headers=headers)
    assert answer.status == 200, answer.body
    assert len(vendor.bodies[0]["contents"][0]["parts"]) == 2


@pytest.mark.parametrize(
    ("name", "members", "param"),
    [
        ("gemini", {"prompt": None}, "prompt"),
        ("gemini", {"n": 11}, "n"),
        ("gemini", {"n": "two"}, "n"),
        ("gemini", {"size": "large"}, "size"),
        ("gemini", {"size": "1000x100"}, "size"),
        ("gemini", {"output_format": "png"}, "output_format"),
        ("imagen", {"n": 5}, "n"),
        ("imagen", {"output_format": "webp"}, "output_format"),
        ("imagen", {"response_format": "file"}, "response_format"),
        ("stability", {"output_format": "webp"}, "output_format"),
        ("stability", {"output_format": "gif"}, "output_format"),
        ("nova", {"n": 6}, "n"),
    ],
)
async def test_what_a_vendor_cannot_make_is_refused_by_name(
    name: str, members: dict[str, Any], param: str
) -> None:
    app, vendor = app_of(name)
    answer = await draw(app, ROWS[name][1], **members)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert vendor.requests == []


async def test_edits_that_a_vendor_lacks_are_refused_by_name() -> None:
    app, _ = app_of("imagen")
    answer = await edit(app, EDITED, model=ROWS["imagen"][1])
    assert (answer.status, answer.json["error"]["param"]) == (400, "image")
    app, _ = app_of("stability")
    answer = await edit(app, EDITED, EDITED, model=ROWS["stability"][1])
    assert (answer.status, answer.json["error"]["param"]) == (400, "image")
    app, _ = app_of("gemini")
    answer = await edit(app, model=ROWS["gemini"][1])
    assert (answer.status, answer.json["error"]["param"]) == (400, "image")


async def test_members_without_an_effect_elsewhere_are_named() -> None:
    app, _ = app_of("gemini")
    model = ROWS["gemini"][1]
    answer = await draw(app, model, quality="high", style="vivid", background="auto")
    assert answer.header("aiproxy-ignored") == "quality, style"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("imagen", b'{"predictions":[{"raiFilteredReason":"Not allowed."}]}'),
        ("stability", b'{"finish_reasons":["Filter reason: prompt"],"images":[]}'),
        ("nova", b'{"images":[],"error":"Blocked."}'),
    ],
)
async def test_a_filtered_image_is_the_requests_fault(name: str, body: bytes) -> None:
    provider, model, _ = ROWS[name]
    app = OpenAIShim(provider.using("ya29.k"), transport=Upstream(answers(body)).transport)
    answer = await draw(app, model)
    assert answer.status == 400
    assert answer.json["error"]["code"] == "content_policy_violation"


async def test_partial_images_of_openai_pass_as_they_arrive_and_their_usage_is_read() -> None:
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    partial = b'event: image_generation.partial_image\ndata: {"b64_json":"AA=="}\n\n'
    usage = b'{"input_tokens":10,"output_tokens":1056,"total_tokens":1066}'
    done = b'event: image_generation.completed\ndata: {"type":"image_generation.completed",'
    done += b'"b64_json":"' + b"A" * 50_000 + b'","usage":' + usage + b"}\n\n"
    upstream = Upstream(streams(partial, done))
    app = OpenAIShim(OPENAI.using("k"), transport=upstream.transport, record=keep)
    async with app:
        answer = await draw(app, "gpt-image-1", stream=True, partial_images=1)
    assert answer.body == partial + done
    assert upstream.bodies[0]["partial_images"] == 1
    assert records[0].usage == Usage(input=10, output=1056, images=1)


# jobs


class Jobs:
    """Black Forest Labs: a job that is ready after `polls`."""

    def __init__(self, status: str = "Ready", polls: int = 2) -> None:
        self.polls = polls
        self.status = status
        self.left = polls
        body = {"prompt": str, "width": int, "height": int, "output_format": {"png", "jpeg"},
                "seed": int, "prompt_upsampling": bool, "safety_tolerance": int,
                "input_image": str, "input_image_2": str}  # fmt: skip
        self.vendor = StrictVendor(
            [
                Endpoint("/v1/flux-2-pro", body, self.submit, ("prompt",)),
                Endpoint("/v1/get_result", {}, self.poll, method="GET", query=("id",)),
                Endpoint("/image.png", {}, self.image, method="GET", query=("sig",)),
            ]
        )
        self.where = "https://api.us.bfl.ai/v1/get_result?id=7"

    def submit(self, body: Any, request: Any) -> Any:
        return {"id": "7", "polling_url": self.where}

    def poll(self, body: Any, request: Any) -> Any:
        assert request.headers["x-key"] == "k"
        if self.left:
            self.left -= 1
            return {"id": "7", "status": "Pending", "result": None}
        url = "https://delivery.bfl.example/image.png?sig=1"
        return {"id": "7", "status": self.status, "result": {"sample": url}}

    def image(self, body: Any, request: Any) -> Any:
        assert "x-key" not in request.headers
        return "image/png", PNG

    def app(self, records: list[UsageRecord] | None = None) -> OpenAIShim:
        async def keep(record: UsageRecord) -> None:
            (records if records is not None else []).append(record)

        provider = BFL.using("k", operations=(FluxImages(poll_seconds=0),))
        return OpenAIShim(provider, transport=self.vendor.transport, record=keep, attempts=1)


async def test_a_job_is_submitted_polled_and_its_image_fetched() -> None:
    jobs, records = Jobs(), list[UsageRecord]()
    app = jobs.app(records)
    async with app:
        answer = await draw(app, "flux-2-pro", size="1024x768", seed=3, quality="high")
    assert answer.json["data"] == [{"b64_json": B64}]
    assert answer.header("aiproxy-ignored") == "quality"
    assert jobs.vendor.bodies[0] == {
        "prompt": "A cat",
        "output_format": "png",
        "width": 1024,
        "height": 768,
        "seed": 3,
    }
    assert [request.url.path for request in jobs.vendor.requests] == [
        *("/v1/flux-2-pro", "/v1/get_result", "/v1/get_result", "/v1/get_result", "/image.png")
    ]
    assert records[0].usage == Usage(images=1)
    assert records[0].attempts == 1


async def test_the_address_of_an_image_is_passed_on_to_clients_that_want_it() -> None:
    jobs = Jobs(polls=0)
    answer = await draw(jobs.app(), "flux-2-pro", response_format="url")
    assert answer.json["data"] == [{"url": "https://delivery.bfl.example/image.png?sig=1"}]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("Content Moderated", 400),
        ("Request Moderated", 400),
        ("Error", 502),
        ("Task not found", 502),
    ],
)
async def test_a_job_that_fails_is_an_error(status: str, code: int) -> None:
    assert (await draw(Jobs(status).app(), "flux-2-pro")).status == code


@pytest.mark.parametrize(
    "where",
    [
        *("https://evil.example/v1/get_result?id=7", "http://api.us.bfl.ai/v1/get_result?id=7"),
        *("file:///etc/passwd", "https://127.0.0.1/x", "nonsense", ""),
    ],
)
async def test_the_key_is_not_sent_to_an_address_that_is_not_the_vendors(where: str) -> None:
    jobs = Jobs()
    jobs.where = where
    answer = await draw(jobs.app(), "flux-2-pro")
    assert answer.status == 502
    assert len(jobs.vendor.requests) == 1


async def test_a_refusal_while_a_job_is_polled_costs_the_next_key() -> None:
    submitted = b'{"id":"7","polling_url":"https://api.bfl.ai/v1/get_result?id=7"}'
    ready = b'{"status":"Ready","result":{"sample":"https://d.bfl.ai/a.png"}}'
    upstream = Upstream(
        answers(submitted), refuses(429), answers(submitted), answers(ready), answers(PNG)
    )
    provider = BFL.using(["a", "b"], operations=(FluxImages(poll_seconds=0),))
    app = OpenAIShim(provider, transport=upstream.transport)
    assert (await draw(app, "flux-2-pro")).json["data"] == [{"b64_json": B64}]
    keys = [request.headers.get("x-key") for request in upstream.requests]
    assert keys in (["a", "a", "b", "b", None], ["b", "b", "a", "a", None])


# servers of one's own


async def test_a_comfyui_workflow_makes_images() -> None:
    polled: list[int] = []
    workflow = {
        "3": {"class_type": "KSampler", "inputs": {"seed": "{seed}", "steps": 20}},
        "5": {"class_type": "EmptyLatentImage",
              "inputs": {"width": "{width}", "height": "{height}", "batch_size": "{n}"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}"}},
    }  # fmt: skip

    def history(body: Any, request: Any) -> Any:
        polled.append(1)
        if len(polled) < 3:
            return {}
        files = [{"filename": f"{at}.png", "subfolder": "x", "type": "output"} for at in (1, 2)]
        return {"p1": {"status": {"status_str": "success"}, "outputs": {"9": {"images": files}}}}

    vendor = StrictVendor(
        [
            Endpoint("/prompt", {"prompt": dict}, lambda body, request: {"prompt_id": "p1"}),
            Endpoint("/history/p1", {}, history, method="GET"),
            Endpoint("/view", {}, lambda body, request: ("image/png", PNG), method="GET",
                     query=("filename", "subfolder", "type")),
        ]
    )  # fmt: skip
    app = OpenAIShim(comfyui(workflow, poll_seconds=0), transport=vendor.transport)
    answer = await draw(app, n=2, size="512x768", seed=5)
    assert answer.json["data"] == [{"b64_json": B64}, {"b64_json": B64}]
    sent = vendor.bodies[0]["prompt"]
    assert sent["6"]["inputs"] == {"text": "A cat"}
    assert sent["5"]["inputs"] == {"width": 512, "height": 768, "batch_size": 2}
    assert sent["3"]["inputs"] == {"seed": 5, "steps": 20}
    assert [r.url.params.get("filename") for r in vendor.requests[-2:]] == ["1.png", "2.png"]


async def test_a_comfyui_workflow_that_fails_is_an_error_and_lacks_are_named() -> None:
    failed = b'{"p1":{"status":{"status_str":"error"},"outputs":{}}}'
    upstream = Upstream(answers(b'{"prompt_id":"p1"}'), answers(failed))
    row = comfyui({"1": {"inputs": {"text": "{prompt}"}}}, poll_seconds=0)
    app = OpenAIShim(row, transport=upstream.transport, attempts=1)
    assert (await draw(app)).status == 502
    for members, param in (({"n": 2}, "n"), ({"size": "512x512"}, "size")):
        answer = await draw(app, **members)
        assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_a_gradio_app_makes_images() -> None:
    events = (
        b"event: generating\ndata: null\n\nevent: heartbeat\ndata: null\n\n"
        b'event: complete\ndata: [{"path": "/tmp/a.png", "url": '
        b'"http://127.0.0.1:7860/gradio_api/file=/tmp/a.png"}, 42]\n\n'
    )
    call = "/gradio_api/call/infer"
    vendor = StrictVendor(
        [
            Endpoint(call, {"data": list}, lambda body, request: {"event_id": "e1"}),
            Endpoint(f"{call}/e1", {}, lambda b, r: ("text/event-stream", events), method="GET"),
            Endpoint("/gradio_api/file=/tmp/a.png", {}, lambda b, r: ("image/png", PNG),
                     method="GET"),
        ]
    )  # fmt: skip
    row = gradio("/infer", ["{prompt}", "{negative_prompt}", "{style}", "{seed}", "{width}", 0.5])
    app = OpenAIShim(row, transport=vendor.transport)
    answer = await draw(app, seed=7, style="anime", quality="Euler a")
    assert answer.json["data"] == [{"b64_json": B64}]
    assert vendor.bodies[0] == {"data": ["A cat", "", "anime", 7, 1024, 0.5]}
    assert answer.header("aiproxy-ignored") == "quality"


async def test_a_gradio_app_that_fails_is_an_error() -> None:
    failed = answers(b"event: error\ndata: null\n\n")
    upstream = Upstream(answers(b'{"event_id":"e1"}'), failed)
    row = gradio("infer", ["{prompt}"])
    app = OpenAIShim(row, transport=upstream.transport, attempts=1)
    assert (await draw(app)).status == 502


async def test_headers_of_hooks_are_sent_with_every_request_of_a_job_that_has_the_key() -> None:
    async def add(call: Call) -> None:
        call.send_header("x-team", "red")

    jobs = Jobs()
    provider = BFL.using("k", operations=(FluxImages(poll_seconds=0),))
    app = OpenAIShim(provider, transport=jobs.vendor.transport, hooks=[add])
    assert (await draw(app, "flux-2-pro")).status == 200
    sent = [request.headers.get("x-team") for request in jobs.vendor.requests]
    assert sent == ["red", "red", "red", "red", None]  # the image is on another host


VARIATION = (
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n'
    b"content-type: image/png\r\n\r\nPNG\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    "provider", [GEMINI, XAI, TOGETHER, BFL, bedrock("us-east-1")], ids=lambda each: each.name
)
async def test_variations_are_refused_by_the_name_of_a_vendor_without_them(
    provider: Provider,
) -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(provider.using("k:s"), transport=upstream.transport)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await asgi.request(app, "POST", "/v1/images/variations", VARIATION, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (404, "unsupported_operation")
    assert (
        f"{provider.name!r} of model 'm' does not offer images.variations"
        in (answer.json["error"]["message"])
    )
    assert upstream.requests == []
