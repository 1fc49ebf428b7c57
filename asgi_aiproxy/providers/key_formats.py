"""The formats of API keys and other secrets, by the prefixes that their vendors document."""

from __future__ import annotations

# A name for people, and a regular expression; none matches more than 250 characters.
KEY_FORMATS = (
    ("API key", r"sk-(?:ant-|proj-|svcacct-|or-)?[A-Za-z0-9_-]{20,200}"),
    ("API key", r"AIza[A-Za-z0-9_-]{35}"),
    ("API key", r"(?:gsk|xai|r8|hf|pplx|fw)[_-][A-Za-z0-9]{20,120}"),
    ("AWS access key", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    ("GitHub token", r"(?:gh[pousr]_[A-Za-z0-9]{36,200}|github_pat_[A-Za-z0-9_]{40,200})"),
    ("GitLab token", r"glpat-[A-Za-z0-9_-]{20,100}"),
    ("Slack token", r"xox[abposr]-[A-Za-z0-9-]{10,200}"),
    ("Stripe key", r"[sr]k_(?:live|test)_[A-Za-z0-9]{20,200}"),
    ("private key", r"-----BEGIN (?:[A-Z]{2,12} ){0,3}PRIVATE KEY-----"),
    ("JSON Web Token", r"eyJ[A-Za-z0-9_-]{10,100}\.eyJ[A-Za-z0-9_-]{10,100}"),
)
