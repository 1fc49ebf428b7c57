"""What was used: records of exchanges, the sinks that take them, and the ledger that sums them."""

from __future__ import annotations
