"""Configurations of coding agents and SDKs for a gateway, and checks of what they will request.

- `clients`: one table; each client's configuration is a pure function of the gateway's address,
  token and model;
- `config_files`: merge settings into a JSON or TOML file;
- `codex_models`: a list of models for Codex;
- `checks`: send a running gateway what the client will send, and report what is missing.
"""

from __future__ import annotations

from asgi_aiproxy.connect.checks import Finding, Report, check_gateway
from asgi_aiproxy.connect.clients import CLIENTS, Client, ConfigFile, GatewayAccess, Setup
from asgi_aiproxy.connect.config_files import merge_config

__all__ = [
    "CLIENTS",
    "Client",
    "ConfigFile",
    "Finding",
    "GatewayAccess",
    "Report",
    "Setup",
    "check_gateway",
    "merge_config",
]
