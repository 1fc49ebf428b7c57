"""Batches whose results were not read yet, until each is settled and recorded. Theory of operation.

A batch that a caller creates is noted in a table of the store: its caller and key, and what its
budgets were charged. It is settled once, when its results pass through the gateway, or when it is
found to have ended without any: what it used replaces what was charged, the note is removed, and
one usage record is written. Several workers may see the same results. The store applies a
correction of a budget once, and it removes a note once: the worker that removed it writes the
record.

A caller may never read the results. So every worker looks at the notes every ten minutes, once it
has served a request for a file or a batch. A note that is older than the vendors' window of 24
hours, plus an hour, is claimed by one of them, which reads the batch and its results with the
batch's own key and settles it as if a caller had read them. If that is not possible it is tried
again every hour; after 30 days, when the vendors have deleted the results, the batch stays charged
as it was, and its record has no usage.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import getrandbits

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy._control_headers import KEY
from asgi_aiproxy.batch_budgets import ResultReader, Used, ended_without_results
from asgi_aiproxy.exchange.admission import BatchAdmission
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.messages import Usage, add_usage
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.usage.recorder import Recorder

logger = logging.getLogger("asgi_aiproxy")

OPERATION = "batches"  # of usage records
_TABLE = "batches"
_CHECK_SECONDS = 600.0
_WINDOW_SECONDS = 25 * 3600.0
_RETRY_SECONDS = 3600.0
_KEPT_SECONDS = 30 * 86_400.0
_PAGE = 100
_MAX_ANSWER = 16 * 1024 * 1024  # of a batch
_RATIO = 500_000  # millionths: vendors charge half the price
_MAX_NAME = 300  # characters of ids and models

# Sends a GET request for a path with the key of a batch; the answer goes to an ASGI `send`.
Fetch = Callable[["OpenBatch", str, Send], Awaitable[None]]
# The cost of calls in micro-dollars, at half the price; None if it is not known.
Cost = Callable[[Sequence[tuple[str, str, Usage]]], int | None]


class OpenBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A batch that is not settled.

    `path` is the collection that it is in; `started` and `due`, when it is looked at, are in Unix
    time. `receipt` is what its settlement needs.
    """

    provider: str
    id: str
    face: str
    path: str
    started: float = 0.0
    due: float = 0.0
    key_id: str = ""
    principal: str = ""
    account: str = ""
    group: str = ""
    request_id: str = ""
    receipt: str = ""

    @property
    def name(self) -> str:
        """Its name in the store."""
        return f"{self.provider}:{self.id[:_MAX_NAME]}"


_decode = msgspec.json.Decoder(OpenBatch).decode
_encode = msgspec.json.Encoder().encode


class OpenBatches:
    """Notes batches, settles them, and looks after those that are not read.

    `fetch` reads from the provider of a batch, `cost` prices a batch that no admission control
    prices, and `clock` is Unix time.
    """

    def __init__(
        self, recorder: Recorder, fetch: Fetch, cost: Cost, clock: Callable[[], float] = time.time
    ) -> None:
        self._recorder = recorder
        self._fetch = fetch
        self._cost = cost
        self._clock = clock
        self._stores: list[Store] = []
        self._admission: BatchAdmission | None = None
        self._task: asyncio.Task[None] | None = None

    def use(self, store: Store, admission: BatchAdmission | None) -> None:
        """Look after the batches in a store, too. `admission` settles what budgets are charged."""
        if admission is not None:
            self._admission = admission
        if store not in self._stores:
            self._stores.append(store)
        if self._task is None:
            self._task = start(
                repeat(self._step, what="settlement of batches"), what="settlement of batches"
            )

    async def aclose(self) -> None:
        """Stop looking after batches, and write what is still to be recorded."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._recorder.drain()

    async def add(self, store: Store, batch: OpenBatch) -> None:
        """Note a batch that was created."""
        now = self._clock()
        batch = msgspec.structs.replace(batch, started=now, due=now + _WINDOW_SECONDS)
        await store.put(_TABLE, batch.name, _encode(batch), expected=None)

    async def find(self, store: Store, provider: str, id: str) -> OpenBatch | None:
        """The batch with this id, or whose results are in the file with this id, if it is open."""
        name = f"{provider}:{id[:_MAX_NAME]}"
        of_file = await store.get_entry(f"batch-results:{name}")
        data = await store.get(_TABLE, of_file.decode() if of_file is not None else name)
        return _decode(data) if data is not None else None

    async def name_results(self, store: Store, batch: OpenBatch, file: str) -> None:
        """Note the file of a batch's results."""
        name = f"batch-results:{batch.provider}:{file[:_MAX_NAME]}"
        await store.set_entry(name, batch.name.encode(), seconds=_KEPT_SECONDS)

    async def settle(
        self,
        store: Store,
        batch: OpenBatch,
        used: Sequence[tuple[str, str, Usage]],
        admission: BatchAdmission | None = None,
    ) -> None:
        """Replace what was charged for a batch by what it used, and record it, both once."""
        admission = admission if admission is not None else self._admission
        if admission is not None and batch.receipt:
            costs = await admission.settle(batch.name, batch.receipt.encode(), used)
        else:
            costs = {"usd": self._cost(used)}
        if await store.drop(_TABLE, batch.name):
            usage = Usage()
            for _, _, each in used:
                usage = add_usage(usage, each) or usage
            models = ", ".join(dict.fromkeys(model for _, model, _ in used))[:_MAX_NAME]
            self._record(batch, models, usage, costs)

    def _record(
        self,
        batch: OpenBatch,
        model: str,
        usage: Usage | None,
        costs: Mapping[str, int | None],
    ) -> None:
        id = f"{getrandbits(128):032x}"
        record = UsageRecord(
            id=id,
            principal=batch.principal,
            account=batch.account,
            group=batch.group,
            face=batch.face,
            operation=OPERATION,
            provider=batch.provider,
            requested_model=model,
            upstream_model=model,
            model=model,
            key_id=batch.key_id,
            usage=usage,
            status=200,
            attempts=1,
            request_id=batch.request_id or id,
            started=batch.started,
            duration=max(self._clock() - batch.started, 0.0),
            cost=costs.get("usd"),
            units=costs.get("units"),
        )
        self._recorder.put(record)

    # batches that are not read

    async def _step(self) -> None:
        await asyncio.sleep(_CHECK_SECONDS)
        await self.check()

    async def check(self) -> None:
        """Settle the batches whose time is over."""
        for store in tuple(self._stores):
            after = ""
            while rows := await store.page(_TABLE, after, _PAGE):
                after = max(rows, key=str.encode)
                for data in rows.values():
                    batch = _decode(data)
                    if batch.due > self._clock():
                        continue
                    if await store.hold(_TABLE, batch.name, _CHECK_SECONDS):
                        await self._settle_unread(store, batch, data)

    async def _settle_unread(self, store: Store, batch: OpenBatch, data: bytes) -> None:
        """Read a batch and its results, and settle it; if that is not possible, later."""
        try:
            await self._read(store, batch)
        except Exception:
            logger.warning("batch %s could not be read", batch.id, exc_info=True)
        if await store.get(_TABLE, batch.name) is None:
            return
        now = self._clock()
        if now - batch.started > _KEPT_SECONDS:
            if await store.drop(_TABLE, batch.name):
                self._record(batch, "", None, {})
            return
        later = msgspec.structs.replace(batch, due=now + _RETRY_SECONDS)
        await store.put(_TABLE, batch.name, _encode(later), expected=data)

    async def _read(self, store: Store, batch: OpenBatch) -> None:
        async def ended(used: Used) -> None:
            await self.settle(store, batch, used)

        reader = _ObjectReader()
        await self._fetch(batch, f"{batch.path}/{batch.id}", reader)
        found = reader.value()
        file = found.get("output_file_id")
        if ended_without_results(found):
            await self.settle(store, batch, ())
        elif isinstance(file, str) and file:
            files = batch.path.removesuffix("/batches") + "/files"
            path = f"{files}/{file}/content"
            await self._fetch(batch, path, ResultReader(_ignore, batch.provider, ended))
        elif found.get("processing_status") == "ended":
            path = f"{batch.path}/{batch.id}/results"
            await self._fetch(batch, path, ResultReader(_ignore, batch.provider, ended))


class BatchWatch:
    """An ASGI `send` that reads batches along: it notes a new one, and settles one that has ended
    without results.

    Only JSON is read, and held until it is complete. `made` is the batch that is created, without
    its id; `provider` is the name of the provider.
    """

    def __init__(
        self,
        send: Send,
        open: OpenBatches,
        store: Store,
        provider: str,
        *,
        admission: BatchAdmission | None = None,
        made: OpenBatch | None = None,
    ) -> None:
        self._send = send
        self._open = open
        self._store = store
        self._provider = provider
        self._admission = admission
        self._made = made
        self._start: Message | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._reads = False
        self._refused = False

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._refused = message["status"] >= 300
            self._reads = message["status"] < 300 and kind.startswith(b"application/json")
            self._start = message
            if not self._reads:
                await self._send(message)
            return
        if not self._reads:
            await self._send(message)
            return
        self._pieces.append(message.get("body", b""))
        self._size += len(self._pieces[-1])
        complete = not message.get("more_body", False)
        if not complete and self._size <= _MAX_ANSWER:
            return
        self._reads = False
        body, self._pieces = b"".join(self._pieces), []
        assert self._start is not None  # noqa: S101 (ASGI's order)
        if complete:
            key_id = dict(self._start["headers"]).get(KEY.encode(), b"").decode("latin-1")
            await self._note_or_settle(body, key_id)
        await self._send(self._start)
        await self._send({**message, "body": body})

    async def _note_or_settle(self, body: bytes, key_id: str) -> None:
        answer = _object(body)
        id = answer.get("id")
        if not isinstance(id, str) or not id:
            return
        if self._made is not None:
            made, self._made = self._made, None
            await self._open.add(self._store, msgspec.structs.replace(made, id=id, key_id=key_id))
            return
        batch = await self._open.find(self._store, self._provider, id)
        if batch is None or batch.id != id:
            return
        if ended_without_results(answer):
            await self._open.settle(self._store, batch, (), self._admission)
        elif isinstance(file := answer.get("output_file_id"), str):
            await self._open.name_results(self._store, batch, file)

    async def aclose(self) -> None:
        """Give back what was charged for a batch that was refused.

        Without a response, such as when the client has left, the provider may have created it, so
        it stays charged.
        """
        made, self._made = self._made, None
        admission = self._admission
        if made is None or not made.receipt or admission is None or not admission.limited:
            return
        if not self._refused:
            logger.warning(
                "request %s: a batch may have been created; it stays charged", made.request_id
            )
            return
        name = f"{getrandbits(128):032x}"
        await admission.settle(name, made.receipt.encode(), ())


class _ObjectReader:
    """An ASGI `send` that keeps a JSON object."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._accepted = False

    async def __call__(self, message: Message) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            self._accepted = message["status"] == 200
        else:
            self._pieces.append(message.get("body", b""))

    def value(self) -> Mapping[str, object]:
        """The object; empty if there is none."""
        return _object(b"".join(self._pieces)) if self._accepted else {}


def _object(data: bytes) -> Mapping[str, object]:
    try:
        found = _json.loads(data) if data else {}
    except _json.NotJSONError:
        return {}
    return found if isinstance(found, dict) else {}


def batch_cost(receipts: Receipts, used: Sequence[tuple[str, str, Usage]]) -> int | None:
    """What the calls of a batch cost in micro-dollars; None if a model has no price."""
    pricing = receipts.prices
    if pricing is None:
        return None
    costs = [pricing.cost(provider, model, usage, _RATIO) for provider, model, usage in used]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


async def _ignore(message: Message) -> None:
    """An ASGI `send` without a client."""
