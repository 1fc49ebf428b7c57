"""ComfyUI and Gradio as providers of `serve`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.providers import make_providers
from asgi_aiproxy.config.settings import Settings

WORKFLOW = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}"}}}


def providers(text: str) -> dict[str, Any]:
    settings = Settings.model_validate(tomllib.loads(f"anonymous = true\n{text}"))
    return make_providers(settings, None)


def test_servers_of_images_are_configured(tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(WORKFLOW))
    found = providers(
        f"""
        [providers.comfyui]
        workflow = "{file}"
        [providers.painter]
        kind = "gradio"
        base_url = "http://127.0.0.1:7861"
        endpoint = "/infer"
        inputs = ["{{prompt}}", 7, true, "{{width}}"]
        """
    )
    assert found["comfyui"].base_url == "http://127.0.0.1:8188"
    assert found["painter"].base_url == "http://127.0.0.1:7861"
    assert [api.kind for row in found.values() for api in row.operations] == ["images", "images"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[providers.comfyui]", "workflow is required"),
        ('[providers.comfyui]\nworkflow = "/absent.json"', "cannot be read"),
        ("[providers.gradio]", "endpoint is required"),
        ('[providers.gradio]\nendpoint = "/a"', "one of them must be '{prompt}'"),
        ('[providers.openai]\nendpoint = "/a"', "only the kind 'gradio' takes it"),
    ],
)
def test_a_wrong_setting_is_reported_with_its_place(table: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        providers(table)
    assert words in str(caught.value)
    assert str(caught.value).startswith("providers.")


@pytest.mark.parametrize("content", ["[]", "{}", "nonsense", '{"nodes": [], "links": []}'])
def test_a_file_that_is_not_a_workflow_is_reported(tmp_path: Path, content: str) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"workflow: .*workflow\.json"):
        providers(f'[providers.comfyui]\nworkflow = "{file}"')
