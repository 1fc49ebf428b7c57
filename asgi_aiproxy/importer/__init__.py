"""Import the configuration of earlier gateways.

`sources` finds out what a file is. `yaml_files`, `adapter_yaml`, `lists` and `oneapi_tables` read
it into a `Plan`, `oneapi_rows` writes the rows of One API, and `apply` writes a plan: settings into
`aiproxy.toml`, secrets into the store. A plan is complete before anything is written.
"""

from __future__ import annotations
