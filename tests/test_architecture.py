"""Import directions, module size, names and documented parameters."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import asgi_aiproxy

ROOT = Path(asgi_aiproxy.__file__).parent
REPOSITORY = Path(__file__).parents[1]
FILES = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)
PACKAGE = "asgi_aiproxy"

# A unit is a module or a folder of the package. Which other units it may import:
PURE = {
    "_headers",
    "_json",
    "errors",
    "inspection",
    "multipart",
    "messages",
    "framing",
    "dialects",
    "operations",
    "translate",
    "patterns",
    "retry_after",
}


def names(text: str) -> set[str]:
    return set(text.split())


BELOW_ALL = {"_concealed", "_lazy"}  # every unit may import them
MAY: dict[str, set[str]] = {
    # pure: what can be decided without I/O
    "_json": set(),
    "_headers": set(),
    "_lazy": set(),
    "_concealed": set(),
    "_control_headers": {"errors"},
    "errors": set(),
    "retry_after": set(),
    "patterns": set(),
    "messages": set(),
    "framing": {"errors"},
    "inspection": {"errors"},
    "multipart": {"errors", "inspection"},
    "request_limits": {"errors"},
    "dialects": {"_json", "errors", "framing", "inspection", "messages"},
    "operations": {"_json", "dialects", "errors", "framing", "inspection", "messages"},
    "translate": {"dialects", "errors", "framing", "messages"},
    # parts, each usable alone
    "_background_tasks": set(),
    "_slices": set(),
    "_turns": set(),
    "_retry_queue": {"_background_tasks"},
    "_cancellation": {"errors"},
    "_asgi": {"_cancellation", "_control_headers", "_headers", "errors"},
    "_request_id": {"_asgi"},
    "stores": {"_background_tasks", "errors"},
    "keys": {"_background_tasks", "errors", "patterns", "retry_after", "stores"},
    "ip_ranges": {"errors"},
    "principal": {"errors", "ip_ranges", "patterns"},
    "prices": {"_background_tasks", "_json", "dialects", "errors", "messages", "patterns"},
    "usage": {
        "_background_tasks",
        "_retry_queue",
        "_slices",
        "errors",
        "messages",
        "prices",
        "stores",
    },
    "logs": {"usage"},
    "credentials": {"_asgi", "_control_headers", "principal"},
    "upstream": {"_headers", "errors"},
    "providers": {
        "_background_tasks",
        "_json",
        "dialects",
        "errors",
        "inspection",
        "keys",
        "messages",
        "operations",
        "stores",
        "upstream",
    },
    "accounts": {"errors", "ip_ranges", "principal", "stores"},
    "quotas": {
        "_background_tasks",
        "_retry_queue",
        "errors",
        "exchange",
        "messages",
        "prices",
        "principal",
        "stores",
        "usage",
    },
    # from a request to its answer
    "exchange": names(
        "_asgi _cancellation _control_headers _json _request_id credentials dialects "
        "errors framing inspection keys messages operations prices principal providers "
        "request_limits retry_after translate upstream usage"
    ),
    "responses_state": names(
        "_background_tasks _asgi _cancellation _json _request_id dialects errors exchange "
        "framing keys messages principal providers stores"
    ),
    "emulation": {"_json", "errors", "messages", "providers"},
    "hooks": {"_asgi", "_background_tasks", "_json", "credentials", "errors", "exchange"}
    | {"emulation", "messages", "patterns", "principal", "providers", "usage"},
    "model_list": {"_cancellation", "dialects", "errors", "keys", "providers", "upstream"},
    "multipart_forwarder": names(
        "_asgi _cancellation dialects errors multipart operations providers"
    ),
    # apps and middlewares
    "shim": names(
        "_asgi _cancellation _control_headers _headers _json _request_id credentials "
        "dialects errors exchange hooks inspection model_list multipart_forwarder "
        "keys operations principal providers request_limits responses_state shim_services "
        "typed_methods upstream usage"
    ),
    "shim_services": names(
        "_asgi dialects exchange model_list model_requests principal responses_state "
        "vendor_resources"
    ),
    "passthrough": {"_asgi", "_cancellation", "_control_headers", "_headers", "_json"}
    | {"_request_id", "credentials", "dialects", "errors", "exchange", "framing"}
    | {"hooks", "inspection", "keys", "messages", "multipart", "prices"}
    | {"principal", "providers", "stores", "upstream", "usage"},
    "router": {
        "_asgi",
        "_cancellation",
        "_request_id",
        "dialects",
        "errors",
        "exchange",
        "keys",
        "passthrough",
        "patterns",
        "providers",
        "shim",
    },
    "middleware": names(
        "_background_tasks _asgi _cancellation _control_headers _request_id _turns accounts "
        "credentials dialects errors exchange ip_ranges keys operations patterns prices principal "
        "providers quotas retry_after stores upstream"
    ),
    # what an operator can do, and its front end over HTTP
    "services": names(
        "_background_tasks _cancellation _json _retry_queue _slices accounts dialects errors "
        "exchange ip_ranges keys messages patterns prices principal providers quotas stores "
        "upstream usage"
    ),
    "admin": names(
        "_asgi _background_tasks _cancellation _json _request_id _slices _turns accounts "
        "credentials dialects errors exchange ip_ranges keys middleware prices principal providers "
        "services stores upstream usage"
    ),
    "compat": {"_asgi", "_background_tasks", "_cancellation", "_control_headers", "_headers"}
    | {"_json", "accounts"}
    | {"credentials", "dialects", "errors", "framing", "hooks", "ip_ranges", "keys", "messages"}
    | {"exchange", "middleware", "passthrough", "prices", "principal", "providers", "router"}
    | {"services", "shim", "stores", "upstream", "usage", "vendor_resources"},
    "console": names(
        "_asgi _cancellation _request_id _slices accounts admin connect credentials errors "
        "inprocess ip_ranges middleware principal services stores"
    ),
    "importer": names(
        "accounts compat config connect errors hooks ip_ranges keys principal stores"
    ),
    "hosting": {"_asgi", "errors"},
    "model_requests": names("_asgi _request_id dialects exchange model_list principal providers"),
    "batch_budgets": {"_asgi", "_json", "dialects", "errors", "messages", "prices"},
    "open_batches": names(
        "_asgi _background_tasks _control_headers _json batch_budgets exchange messages stores "
        "usage"
    ),
    "vendor_resources": names(
        "_asgi _control_headers _json _request_id batch_budgets credentials dialects errors "
        "exchange keys open_batches passthrough prices principal providers stores usage"
    ),
    "inprocess": {"_asgi", "credentials", "principal"},
    "typed_calls": names("_asgi _json dialects errors inprocess messages operations principal"),
    "typed_methods": {"_asgi", "messages", "operations", "typed_calls"},
    "telemetry": {
        "_asgi",
        "_background_tasks",
        "_cancellation",
        "errors",
        "hooks",
        "keys",
        "middleware",
        "prices",
        "providers",
        "stores",
        "usage",
    },
    # assembly
    "config": names(
        "_asgi accounts admin compat console emulation errors exchange hooks hosting ip_ranges "
        "keys logs "
        "middleware prices principal providers quotas request_limits responses_state router "
        "services shim stores upstream telemetry usage"
    ),
    "serving": {"_asgi", "config", "errors", "logs", "middleware", "stores"},
    # the other side: clients of a gateway
    "connect": {"_json", "dialects", "errors", "messages", "upstream"},
    "cli": {
        "config",
        "connect",
        "dialects",
        "model_list",
        "errors",
        "importer",
        "exchange",
        "keys",
        "principal",
        "providers",
        "services",
        "stores",
        "upstream",
    },
    "__main__": {"cli", "config", "errors", "logs", "serving"},
    # The test kit has its own implementation of the vendors' formats: it tests the rest.
    "testing": PURE | {"_asgi", "_cancellation"},
}

# Third-party packages, by the only modules that may import them; msgspec may be used anywhere.
THIRD: dict[str, set[str]] = {
    "accounts.passwords": {"argon2", "bcrypt"},
    "accounts.totp": {"pyotp", "segno"},
    "admin.live_tail": {"sse_starlette"},
    "config.accounts_settings": {"pydantic"},
    "admin.routing": {"starlette"},
    "config.compat_settings": {"pydantic", "pydantic_settings"},
    "console.rendering": {"jinja2"},
    "console.site": {"markdown_it"},
    "config.administration": {"pydantic"},
    "config.console_settings": {"pydantic"},
    "config.error_messages": {"pydantic"},
    "importer.yaml_files": {"yaml"},
    "config.accounting_settings": {"pydantic"},
    "config.limit_settings": {"pydantic"},
    "config.provider_settings": {"pydantic", "pydantic_settings"},
    "config.settings": {"pydantic", "pydantic_settings"},
    "config.values": {"pydantic"},
    "serving": {"uvicorn"},
    "passthrough.websocket": {"websockets"},
    "passthrough.websocket_connect": {"websockets"},
    "config.jwt_settings": {"pydantic"},
    "keys.encryption": {"cryptography"},
    "middleware.jwt": {"cryptography", "jwt"},
    "middleware.jwks": {"jwt"},
    "prices.price_list": {"genai_prices"},
    "prices.updates": {"genai_prices"},
    "providers.aws_credentials": {"botocore"},
    "providers.coze_credentials": {"jwt"},
    "providers.google_credentials": {"google"},
    "upstream.http1": {"httptools"},
    "upstream.reqwest": {"pyreqwest"},
    "services.bounded_responses": {"httpx2"},
    "services.identity_providers": {"authlib", "httpx2"},
    "services.oidc": {"authlib", "joserfc"},
    "services.passkeys": {"webauthn"},
    "stores.redis.connection": {"redis"},
    "upstream.httpx": {"httpx"},
    "upstream.connect": {"certifi"},
    "emulation.schema": {"jsonschema_rs"},
    "hooks.bounded_regex": {"regex"},
    "telemetry.histogram": {"prometheus_client"},
    "telemetry.metrics": {"prometheus_client"},
    "telemetry.tracing": {"opentelemetry"},
    "testing.plugin": {"pytest"},
    "testing.provider": {"anyio"},
    "testing.received": {"anyio"},
    "testing.server": {"anyio", "uvicorn"},
}

# Modules of the standard library that do I/O or wait.
WORLD = {"asyncio", "http", "logging", "os", "pathlib", "select", "selectors", "signal"}
WORLD |= {"socket", "ssl", "subprocess", "tempfile", "threading", "io"}


def name_of(path: Path) -> str:
    """A module's name below the package; the package's own is empty."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def unit_of(module: str) -> str:
    return module.partition(".")[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a module."""
    return tuple(ast.walk(tree(path)))


def only_for_types(path: Path) -> set[ast.AST]:
    """The nodes below `if TYPE_CHECKING:`."""
    return {
        inner
        for node in nodes(path)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(path: Path) -> Iterator[str]:
    """All modules that a file imports when it runs, by their full names."""
    skipped = only_for_types(path)
    for node in nodes(path):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else str(node.module)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def is_module(name: str) -> bool:
    if not name.startswith(PACKAGE):
        return False
    path = ROOT.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def ours(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their names below the package."""
    found = {name.removeprefix(PACKAGE).removeprefix(".") for name in imports(path)
             if name.partition(".")[0] == PACKAGE}  # fmt: skip
    return found - {""}


def wrong(rule: Callable[[Path], object]) -> dict[str, object]:
    """The modules that break a rule, and what breaks it."""
    return {name_of(path): found for path in FILES if name_of(path) and (found := rule(path))}


# ── imports ──────────────────────────────────────────────────────────────────


def test_a_module_imports_only_what_is_below_it() -> None:
    def not_below(path: Path) -> set[str]:
        unit = unit_of(name_of(path))
        assert unit in MAY, f"{unit} has no place in this test's table yet"
        return {name for name in ours(path) if unit_of(name) not in MAY[unit] | {unit} | BELOW_ALL}

    assert wrong(not_below) == {}


def test_the_layers_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY):
        ready = {unit for unit, below in MAY.items() if unit not in done and below <= done}
        assert ready, f"a cycle among {set(MAY) - done}"
        done |= ready


def test_other_packages_are_imported_in_one_place_each() -> None:
    def foreign(path: Path) -> set[str]:
        found = {module.partition(".")[0] for module in imports(path)}
        known = THIRD.get(name_of(path), set())
        return found - {*sys.stdlib_module_names, PACKAGE, "msgspec"} - known

    assert wrong(foreign) == {}


def test_pure_modules_do_no_io() -> None:
    def io_modules(path: Path) -> set[str]:
        found = {module.partition(".")[0] for module in imports(path)}
        return found & WORLD if unit_of(name_of(path)) in PURE else set()

    assert wrong(io_modules) == {}


def test_no_dialect_imports_another() -> None:
    shared = {
        "base",
        "model_facts",
        "_blocks",
        "_carriers",
        "_claude",
        "_event_stream",
        "_json_schema",
        "_media",
        "_open_blocks",
        "_parsing",
        "_unsupported",
    }
    # Legacy completions are chat completions under another name.
    # OpenAI's two chat APIs have the same error format.
    # What passes through is read in any vendor's format.
    reasons = {
        "openai_completions": {"openai_chat"},
        "openai_responses": {"openai_chat"},
        "usage_extraction": {
            "anthropic",
            "bedrock",
            "cohere",
            "coze",
            "gemini",
            "json_scan",
            "ollama",
            "openai_chat",
        },
    }

    def others(path: Path) -> set[str]:
        unit, _, rest = name_of(path).partition(".")
        if unit != "dialects" or not rest:
            return set()
        dialect = rest.partition(".")[0]
        found = {name for name in ours(path) if unit_of(name) == "dialects"}
        # (The package itself counts: it contains all of them.)
        known = {name.partition(".")[2].partition(".")[0] for name in found}
        own = set() if dialect in shared else {dialect} | reasons.get(dialect, set())
        return known - shared - own

    assert wrong(others) == {}


# What is known of a vendor stands in the tables of these packages, which the others read.
VENDOR_HOMES = {"dialects", "operations", "providers", "testing"}
VENDORS = re.compile(
    r"openai|anthropic|claude|gemini|google|x-goog|vertex|mistral|groq|cohere|coze|bedrock|amazon"
    r"|amzn|azure|apim|deepseek|\bxai\b|moonshot|kimi|ollama|perplexity|openrouter|together"
    r"|fireworks|dashscope|qwen|zhipu|minimax|cerebras|hugging|nvidia|gpt-|grok",
    re.IGNORECASE,
)
NAMES_VENDORS = {
    "": "the names of the client APIs, which users mount",
    "shim": "the names of the client APIs, which users mount",
    "compat": "paths and models of earlier gateways",
    "config": "names of providers in settings",
    "importer": "the names in the configurations of earlier gateways",
    "connect": "writes the settings of the vendors' own clients",
    "credentials": "where the vendors' clients put their token; imported by everything",
    "prices": "servers without list prices, by the name of the provider",
}


def test_vendors_are_known_in_dialects_and_providers_only() -> None:
    def named(path: Path) -> set[str]:
        unit = unit_of(name_of(path)) if name_of(path) else ""
        if unit in VENDOR_HOMES or unit in NAMES_VENDORS:
            return set()
        found: set[str] = set()
        for node in nodes(path):
            match node:
                case ast.Constant(value=str(text)) if not set(text) & set(" \n"):
                    found.add(text)  # (Text with spaces is for people: docstrings, examples.)
                case ast.Constant(value=bytes(data)) if b" " not in data:
                    found.add(data.decode("latin-1"))
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
        return {text for text in found if VENDORS.search(text)}

    assert wrong(named) == {}


def test_the_environment_is_read_for_settings_only() -> None:
    def reads(path: Path) -> bool:
        return any(
            (isinstance(node, ast.ImportFrom) and node.module == "os")
            or (
                isinstance(node, ast.Attribute)
                and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")
            )
            for node in nodes(path)
        )

    assert set(wrong(reads)) == {"config.settings", "config.values"}


# ── size ─────────────────────────────────────────────────────────────────────

LINES = 480
TEST_LINES = 800
DEBTS: dict[str, int] = {}


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_a_module_is_short() -> None:
    def longer(path: Path) -> int:
        count = lines(path)
        return count if count > DEBTS.get(name_of(path), LINES) else 0

    assert wrong(longer) == {}
    assert sorted(map(lines, FILES))[len(FILES) // 2] <= 180


TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


def test_a_test_module_is_short() -> None:
    found = {str(path.relative_to(REPOSITORY)): lines(path) for path in TESTS}
    assert {name: count for name, count in found.items() if count > TEST_LINES} == {}


# ── names ────────────────────────────────────────────────────────────────────

PACKAGES = [path for path in FILES if path.name == "__init__.py" and "__all__" in path.read_text()]


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: name_of(path) or PACKAGE)
def test_all_is_sorted_and_complete(path: Path) -> None:
    module = importlib.import_module(f"{PACKAGE}.{name_of(path)}".rstrip("."))
    names = module.__all__
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=rank)
    for name in names:
        assert getattr(module, name) is not None
        assert not name.startswith("_")
    imported = {
        alias.asname or alias.name
        for node in tree(path).body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE)
        for alias in node.names
    }
    public = {name for name in imported if not name.startswith("_")}
    assert public - {"on_first_use"} <= set(names)


@pytest.mark.parametrize("path", [p for p in FILES if "\n__getattr__, " in p.read_text()])
def test_lazy_names_are_defined_where_their_package_says(path: Path) -> None:
    package = importlib.import_module(f"{PACKAGE}.{name_of(path)}".rstrip("."))
    for name, home in package._HOME.items():
        assert not (path.parent / f"{name}.py").exists(), "a module hides the name"
        module = importlib.import_module(f"{package.__name__}.{home}")
        assert getattr(package, name) is getattr(module, name)
    nodes = [node for node in only_for_types(path) if isinstance(node, ast.ImportFrom)]
    typed = {alias.name for node in nodes for alias in node.names}
    assert typed == set(package._HOME) <= set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        package.Nothing  # noqa: B018


# ── classes, private members, documentation ──────────────────────────────────

# One name, two classes, each clear where it is used. Not counted: what a dialect calls after its
# vendor or after `messages`, and private classes.
SAME_CLASS_NAME: set[str] = {
    "Account",
    "Budget",
    "Connection",
    "Decoder",
    "Exchange",
    "Health",
    "Page",
    "Route",
}
# Modules that use private members of a class in another module of their package, and how often.
PRIVATE_ACCESS: dict[str, int] = {}
# Public names whose docstrings do not yet name all parameters.
PARAMETERS_NOT_DOCUMENTED: set[str] = {
    "accounts.groups.Account",
    "accounts.token.Token",
    "accounts.token_verifier.stored_tokens",
    "accounts.vouchers.Voucher",
    "admin.billing.Billing",
    "dialects.base.ProviderRequest",
    "keys.health.HealthChange",
    "keys.health.classify_response",
    "keys.key_state.KeyStatus",
    "keys.lease.Lease",
    "passthrough.proxy.PassthroughProxy",
    "prices.price.Price",
    "prices.price.Rates",
    "prices.price.Tier",
    "prices.token_estimate.SentRequest",
    "providers.azure_openai.azure",
    "providers.base.bearer",
    "providers.self_hosted.openai_compatible",
    "shim.AIShim",
    "shim.AnthropicShim",
    "shim.GeminiShim",
    "shim.OpenAIShim",
    "shim.Shim",
    "stores.base.BudgetReservation",
    "stores.base.ConcurrencySlot",
    "stores.base.NotOnHold",
    "stores.base.RateLimit",
    "stores.redis.store.RedisStore",
    "testing.answers.Answer",
    "testing.faults.Fault",
    "testing.received.ReceivedRequest",
    "testing.server.serve",
    "testing.server.serve_in_thread",
    "upstream.base.UpstreamRequest",
    "upstream.base.check_timeouts",
    "upstream.default_transport",
    "upstream.reqwest.ReqwestTransport",
    "upstream.socket_transport.SocketTransport",
    "usage.ledger.Ledger",
    "usage.log.log_usage",
    "usage.record.UsageRecord",
    "usage.sinks.JSONLinesSink",
}
# Parameters that mean the same everywhere, and are there for tests.
KNOWN_PARAMETERS = {"args", "kwargs", "clock", "random"}


def defined_names(path: Path) -> Iterator[str]:
    """What a module defines: functions, classes, parameters, variables, attributes."""
    for node in nodes(path):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def above(found: dict[str, list[str]], allowed: dict[str, int]) -> dict[str, list[str]]:
    """What is found more often than allowed."""
    return {name: hits for name, hits in found.items() if len(hits) > allowed.get(name, 0)}


def test_no_class_name_is_used_twice() -> None:
    homes: dict[str, set[str]] = {}
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                unit = unit_of(name_of(path))
                home = "dialects" if unit in ("dialects", "messages") else name_of(path)
                homes.setdefault(node.name, set()).add(home)
    twice = {name for name, modules in homes.items() if len(modules) > 1}
    assert twice - SAME_CLASS_NAME == set()


def test_private_members_are_used_in_their_own_module() -> None:
    def foreign(path: Path) -> list[str]:
        own = {name for name in defined_names(path) if name.startswith("_")}
        return [
            ast.unparse(node)
            for node in nodes(path)
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
            and node.attr not in own
        ]

    assert above({name_of(path): foreign(path) for path in FILES}, PRIVATE_ACCESS) == {}


def test_private_names_are_not_imported() -> None:
    def private(path: Path) -> set[str]:
        return {
            f"{node.module}.{alias.name}"
            for node in nodes(path)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE)
            for alias in node.names
            if alias.name.startswith("_")
            and not alias.name.startswith("__")
            and not is_module(f"{node.module}.{alias.name}")
        }

    assert wrong(private) == {}


def public_objects() -> Iterator[tuple[str, object]]:
    """The classes and functions in `__all__` of the package and its packages, once each."""
    seen: set[str] = set()
    for path in PACKAGES:
        module = importlib.import_module(f"{PACKAGE}.{name_of(path)}".rstrip("."))
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            full = f"{value.__module__.removeprefix(f'{PACKAGE}.')}.{value.__qualname__}"
            if full not in seen:
                seen.add(full)
                yield full, value


def test_public_names_are_documented_with_their_parameters() -> None:
    missing: dict[str, list[str]] = {}
    for name, value in public_objects():
        texts = [inspect.getdoc(base) or "" for base in getattr(value, "__mro__", (value,))[:-1]]
        text = "\n".join(texts or [inspect.getdoc(value) or ""])
        assert text.strip(), f"{name} has no docstring"
        special = isinstance(value, type) and issubclass(value, enum.Enum | BaseException)
        if special or getattr(value, "_is_protocol", False):
            continue
        parameters = inspect.signature(value).parameters  # type: ignore[arg-type]
        found = [
            parameter
            for parameter in parameters
            if not parameter.startswith("_")
            and parameter not in KNOWN_PARAMETERS
            and not re.search(rf"\b{parameter}\b", text)
        ]
        if found and name not in PARAMETERS_NOT_DOCUMENTED:
            missing[name] = found
    assert missing == {}


def test_the_architecture_page_names_only_files_that_exist() -> None:
    for page in (REPOSITORY / "docs" / "architecture.md", REPOSITORY / "CONTRIBUTING.md"):
        named = re.findall(r"(?<![\w/.<>-])([\w/]+(?:\.py|/))(?![\w<])", page.read_text("utf-8"))
        assert len(named) > 10
        for name in set(named):
            inner = name.rstrip("/")
            found = [] if "/" in inner else [*ROOT.rglob(inner)]
            places = [ROOT / name, REPOSITORY / name, *found]
            assert any(place.exists() for place in places), f"{page.name}: {name}"
