"""What an operator can do: manage tokens, keys, groups, accounts and vouchers, and read usage.

Each service is built from a store (or key pools), takes validated msgspec structs and returns
structs that hold no secret. The admin API (`admin/`) and the command line (`cli/`) are two front
ends of the same services, so a rule that is checked here holds for both. Services raise `APIError`,
which names the invalid field, and the errors of stores; `validation.to_api_error` converts those.
"""

from __future__ import annotations
