"""The command `explain`: what would happen to a request, and what happened to one."""

from __future__ import annotations

import argparse

from asgi_aiproxy.cli import output
from asgi_aiproxy.cli.context import CommandContext, run_command
from asgi_aiproxy.cli.options import Commands, add_command
from asgi_aiproxy.exchange.explain import Explanation, LimitReport, TargetReport
from asgi_aiproxy.services.budgets import MICRO
from asgi_aiproxy.services.explain import ExplainQuery, ExplainService, RequestQuery


def add(commands: Commands) -> None:
    """Add the command."""
    explain = add_command(
        commands, "explain", "explain what would happen to a request, or what happened", _explain
    )
    explain.add_argument("model", nargs="?", metavar="MODEL", help="the requested model")
    explain.add_argument("--request-id", metavar="ID", help="explain this finished request instead")
    explain.add_argument("--principal", default="", metavar="ID", help="id or name of a token")
    explain.add_argument("--size", type=_count, default=0, metavar="N", help="input tokens (0)")
    explain.add_argument("--output", type=_count, default=None, metavar="N",
                         help="most output tokens (those of the model)")  # fmt: skip
    explain.add_argument("--provider", default="", help="the provider that it requests")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def _explain(arguments: argparse.Namespace) -> int:
    if (arguments.model is None) == (arguments.request_id is None):
        output.print_error("asgi_aiproxy: explain needs either a MODEL or --request-id ID")
        return 2
    run = _request if arguments.model is None else _model
    return run_command(arguments, lambda context: run(arguments, context))


async def _request(arguments: argparse.Namespace, context: CommandContext) -> None:
    service = ExplainService(context.store, None)
    found = await service.explain_request(RequestQuery(id=arguments.request_id))
    if arguments.json:
        output.as_json(found)
        return
    print(f"{output.format_time(found.record.started)}  request {found.request_id}")
    print(found.cause)
    for step in found.steps:
        print(f"- {step}")


async def _model(arguments: argparse.Namespace, context: CommandContext) -> None:
    service = ExplainService(context.store, await context.explain(), callers=context.callers)
    found = await service.explain(
        ExplainQuery(
            model=arguments.model,
            principal=arguments.principal,
            size=arguments.size,
            output=arguments.output,
            provider=arguments.provider,
        )
    )
    if arguments.json:
        output.as_json(found)
        return
    _print_explanation(found)


def _print_explanation(found: Explanation) -> None:
    if found.refusal is None:
        names = " or ".join(target.provider for target in found.first_targets)
        print(f"It would be sent to {names}.")
    else:
        wait = found.refusal.retry_after
        again = f" Retry after {wait:g} s." if wait is not None else ""
        status, message = found.refusal.status, found.refusal.message
        print(f"It would be refused with HTTP {status}: {message}{again}")
    heads = ("PROVIDER", "MODEL", "PRIORITY", "WEIGHT", "USABLE", "AT MOST", "PROBLEM")
    output.table(heads, [_target_row(target) for target in found.targets], "No provider.")
    keys = [
        (target.provider, key.id, key.usable, key.health, key.wait, key.in_flight, key.reason)
        for target in found.targets
        for key in target.keys
    ]
    if keys:
        print()
        output.table(
            ("PROVIDER", "KEY", "USABLE", "HEALTH", "WAIT", "IN FLIGHT", "REASON"), keys, ""
        )
    if found.limits:
        print()
        limit_heads = ("LIMIT", "OF", "USED", "NEEDED", "REFUSES")
        output.table(limit_heads, [_limit_row(limit) for limit in found.limits], "")


def _target_row(target: TargetReport) -> tuple[object, ...]:
    cost = None if target.max_cost is None else output.format_usd(target.max_cost / MICRO)
    return (target.provider, target.model, target.priority, target.weight, target.usable, cost,
            target.problem or None)  # fmt: skip


def _limit_row(limit: LimitReport) -> tuple[object, ...]:
    amounts: tuple[object, ...] = (limit.limit, limit.used, limit.needed)
    if "usd" in limit.name:
        amounts = tuple(output.format_usd(each / MICRO) for each in (limit.limit, limit.used,
                                                                     limit.needed))  # fmt: skip
    return (limit.name, *amounts, limit.refuses)
