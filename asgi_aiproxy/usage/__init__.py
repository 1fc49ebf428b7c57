"""Usage records of exchanges, the sinks that receive them, and the ledger that sums them up."""

from __future__ import annotations
