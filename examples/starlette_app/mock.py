"""Mock vendors in a process of their own: python -m examples.starlette_app.mock [--port N]"""

from __future__ import annotations

import argparse

import uvicorn

from asgi_aiproxy.testing import Answer, MockProvider


def main() -> None:
    """Serve them until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve mocks of all vendors.")
    parser.add_argument("--port", type=int, default=9100)
    port = parser.parse_args().port
    app = MockProvider(Answer(text="Hello from a mock vendor."))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
