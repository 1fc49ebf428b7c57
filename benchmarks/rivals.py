"""Other gateways, if installed: measured with the same mock and load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import wire
from benchmarks.rounds import Bench
from benchmarks.servers import HOST, Server, Servers


def start_litellm(
    bench: Bench, servers: Servers, *, openai: Sequence[str], anthropic: Sequence[str]
) -> Server:
    """LiteLLM's proxy in its own virtual environment, without a database."""
    targets = {name: (f"openai/{name}", f"{bench.upstream.url}/v1") for name in openai}
    targets |= {name: (f"anthropic/{name}", bench.upstream.url) for name in anthropic}
    config = bench.tools.folder / "litellm.yaml"  # JSON is YAML
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": model, "api_base": base, "api_key": "sk-one"},
        }
        for name, (model, base) in targets.items()
    ]
    general = {"master_key": wire.TOKEN}
    config.write_text(json.dumps({"model_list": models, "general_settings": general}))
    program = Path(bench.litellm) / "bin" / "litellm"

    def command(_: str, port: int) -> list[str]:
        where = ["--host", HOST, "--port", str(port), "--num_workers", "1"]
        return [str(program), "--config", str(config), *where]

    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": ""}
    return servers.start(command, "", env=env)
