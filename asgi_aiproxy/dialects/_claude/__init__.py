"""What Claude models take, on every platform that serves them: Anthropic's own and Amazon Bedrock.

- `capabilities`: one table of models;
- `thinking`: reasoning options as parameters of a model;
- `json_schema`: the subset of JSON Schema in structured outputs and tools.
"""
