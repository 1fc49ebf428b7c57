"""Servers that make images by a workflow of their own, from settings: ComfyUI and Gradio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.providers import Provider, comfyui, gradio


def comfyui_from_file(
    workflow: str = "", *, base_url: str = "http://127.0.0.1:8188", name: str = "comfyui"
) -> Provider:
    """A ComfyUI server with the workflow in a JSON file.

    `workflow` is the path of the file, `base_url` the server, `name` the name of the provider.
    Raises ConfigurationError if the file is missing or is not a workflow.
    """
    if not workflow:
        raise ConfigurationError(
            "workflow is required: the path of a JSON file, from ComfyUI's Workflow, Export (API)."
        )
    try:
        found = json.loads(Path(workflow).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"workflow: {workflow} cannot be read: {error}") from None
    nodes = found.values() if isinstance(found, dict) else ()
    if not nodes or not all(isinstance(node, dict) and "class_type" in node for node in nodes):
        raise ConfigurationError(
            f"workflow: {workflow} is not a workflow in the format of ComfyUI's API: use Workflow, "
            "Export (API)."
        )
    return comfyui(found, base_url, name=name)


def gradio_from_settings(
    endpoint: str = "",
    inputs: Sequence[Any] = (),
    *,
    base_url: str = "http://127.0.0.1:7860",
    name: str = "gradio",
) -> Provider:
    """A Gradio app: the name of its `endpoint`, and the `inputs` that it takes.

    `base_url` is the server, `name` the name of the provider. Raises ConfigurationError if the
    endpoint is missing, or no input is the prompt.
    """
    if not endpoint:
        raise ConfigurationError("endpoint is required: the name of an endpoint of the Gradio app.")
    if "{prompt}" not in inputs:
        raise ConfigurationError("inputs: one of them must be '{prompt}'.")
    return gradio(endpoint, list(inputs), base_url, name=name)
