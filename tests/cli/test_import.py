"""`import`: the configuration of an earlier gateway is taken over, and each item is reported."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from asgi_aiproxy.__main__ import main
from asgi_aiproxy.config.settings import build, load
from asgi_aiproxy.testing import MockProvider, serve_in_thread
from tests.support import asgi_client as asgi

HI = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


class Import:
    """Runs `import` in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.config = folder / "aiproxy.toml"
        self._patch = monkeypatch
        for name in list(os.environ):
            if name.upper().startswith("AIPROXY_"):
                monkeypatch.delenv(name)

    def file(self, name: str, text: Any) -> Path:
        path = self.folder / name
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    def run(self, path: Path, *options: str) -> dict[str, Any]:
        """The report: `lines` by place, with the exit status."""
        out, err = io.StringIO(), io.StringIO()
        self._patch.setattr(sys, "stdout", out)
        self._patch.setattr(sys, "stderr", err)
        given = ["import", str(path), "--config", str(self.config), "--json", *options]
        status = main(given)
        self._patch.undo()
        if status == 2:
            return {"status": 2, "error": err.getvalue()}
        found = json.loads(out.getvalue())
        outcomes: dict[str, dict[str, str]] = {"taken": {}, "left": {}, "invalid": {}}
        for line in found["lines"]:
            outcomes[line["outcome"]][line["place"]] = line["text"]
        return {**found, **outcomes, "status": status}

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    return Import(tmp_path, monkeypatch)


C_YAML = """
port: ":8999"
https_info: {enable: false, pem_file: a, key_file: b}
hars_path: /x
proxy_url: http://127.0.0.1:1081
openai:
  api_keys:
    - {id: "1000001", val: sk-first}
    - {id: "1000002", val: sk-second}
    - {id: "1000003", val: ""}
  web_sessions: [{id: "1", val: eyJx}]
google_gemini:
  model: gemini-2.5-pro
  api_keys: [{id: "100001", val: gemini-secret, version: v1}]
arkose: {solve_api_url: http://x}
bing: {proxy_url: http://x}
coze:
  discord: {enable: true}
  api_chat:
    access_token: pat_common
    bots:
      - {bot_id: 73, user: "1"}
      - {bot_id: 74, user: "2", access_token: pat_own}
claude:
  api_version: "2023-06-01"
  web_sessions: [{val: sk-ant-sid01-x}]
  api_keys: [{id: "100001", val: a-key}]
"""


def test_c_yaml_becomes_a_configuration_and_encrypted_keys(importing: Import) -> None:
    report = importing.run(importing.file("c.yaml", C_YAML))
    assert report["status"] == 1
    assert list(report["invalid"]) == ["openai.api_keys[2]"]
    assert set(report["left"]) >= {"port", "https_info", "hars_path", "arkose", "bing",
                                   "coze.discord", "openai.web_sessions",
                                   "claude.web_sessions"}  # fmt: skip
    assert report["written"] == 6
    settings = tomllib.loads(importing.config.read_text())
    assert settings["compat"] == {"aiproxy": "/", "gemini_model": "gemini-2.5-pro"}
    assert settings["proxy"] == "http://127.0.0.1:1081"
    assert settings["anonymous"] is True
    assert "callers" in report["taken"]
    everything = b"".join(importing.contents()[n] for n in ("aiproxy.toml", "aiproxy.state"))
    for secret in (b"sk-first", b"gemini-secret", b"a-key", b"pat_own", b"pat_common", b"sid01"):
        assert secret not in everything
    mode = stat.S_IMODE((importing.folder / "aiproxy.sealing-key").stat().st_mode)
    assert mode == 0o600


@pytest.mark.anyio
async def test_the_imported_configuration_serves_the_same_clients(
    importing: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    mock = MockProvider()
    done = threading.Thread(target=lambda: importing.run(importing.file("c.yaml", C_YAML)))
    done.start()
    done.join()
    with serve_in_thread(mock) as url:
        text = importing.config.read_text().replace('proxy = "http://127.0.0.1:1081"', "")
        text = text.replace("[providers.openai]", f'[providers.openai]\nbase_url = "{url}/v1"')
        text = text.replace("[providers.gemini]", f'[providers.gemini]\nbase_url = "{url}"')
        importing.config.write_text(text)
        app = build(load(importing.config))
        async with asgi.lifespan(app):
            path = "/c/v1/chat/completions"
            answer = await asgi.request(app, "POST", path, HI, headers={"x-auth-id": "1000002"})
            assert (answer.status, answer.header("x-auth-id")) == (200, "1000002")
            assert mock.requests[-1].headers["authorization"] == "Bearer sk-second"
            await asgi.request(app, "POST", path, {**HI, "provider": "gemini"})
            assert mock.requests[-1].path.startswith("/v1/models/gpt-4")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", C_YAML),
        ("access_tokens.json", ["sk-one-token", {"token": "sk-two-token", "puid": "p"}]),
        ("api_keys.txt", "a-caller-key-of-24-chars\n\nanother-caller-key-of-2\n"),
        ("proxies.txt", "10.0.0.1:1080\n10.0.0.2:1080:u:p\n"),
    ],
)
def test_a_second_run_changes_nothing(importing: Import, name: str, text: Any) -> None:
    path = importing.file(name, text)
    importing.run(path)
    before = importing.contents()
    report = importing.run(path)
    assert (report["written"], report["configuration"]) == (0, False)
    assert importing.contents() == before


def test_lists_of_chatgpt_to_api(importing: Import) -> None:
    report = importing.run(importing.file("access_tokens.json", ["sk-one", "eyJhbGci", 7]))
    assert (list(report["taken"]), list(report["left"])) == (["[0]"], ["[1]"])
    assert list(report["invalid"]) == ["[2]"]
    report = importing.run(importing.file("api_keys.txt", "short\nlong-enough-for-a-token-1\n"))
    assert (list(report["invalid"]), list(report["taken"])) == (["line 1"], ["line 2"])
    report = importing.run(importing.file("proxies.txt", "1.2.3.4:80\nnot a proxy\n"))
    assert list(report["invalid"]) == ["line 2"]
    settings = tomllib.loads(importing.config.read_text())
    assert settings["compat"]["proxies"] == ["socks5://1.2.3.4:80"]
    assert settings["compat"]["chatgpt_to_api"] == "/"
    assert "long-enough" not in importing.config.read_text()
    load(importing.config)


def test_the_config_of_chatgpt_adapter(importing: Import) -> None:
    text = """
proxied: socks5://127.0.0.1:7890
custom-llm:
  - {prefix: custom, base-url: "https://own.example/v1", use-proxies: "true", tc: "true"}
  - {prefix: other, base-url: "not a url"}
interpreter: {base-url: "http://127.0.0.1:8000"}
claude: {cookies: [x]}
you: {cookies: [x]}
browser-less: {enabled: true}
"""
    report = importing.run(importing.file("config.yaml", text))
    assert list(report["invalid"]) == ["custom-llm[1]"]
    assert {"claude", "you", "browser-less"} <= set(report["left"])
    settings = load(importing.config)
    assert settings.providers["custom"].base_url == "https://own.example/v1"
    assert settings.providers["interpreter"].base_url == "http://127.0.0.1:8000/openai"
    assert settings.compat.chatgpt_adapter == "/"


def test_tools_markers_and_filters_of_chatgpt_adapter_go_on(importing: Import) -> None:
    text = r"""
flags: true
custom-llm:
  - {prefix: weak, base-url: "https://weak.example/v1", tc: "true"}
  - {prefix: own, base-url: "https://own.example/v1"}
toolCall: {id: search, enabled: true, tasks: true}
matcher:
  - {find: "<think>", end: "</think>", content: "(?s)<think>.*</think>:", desc: "Thinking"}
  - {find: "secret", len: "6", content: 'secret \w+:***'}
  - {find: "x", content: "(:y"}
  - match: "I do not engage"
    over: ":\n"
    regex: |
      "(?i)I do not engage .+:\n":""
  - {match: "y", regex: ""}
server-conn: {connTimeout: 5, idleConnTimeout: 0, responseHeaderTimeout: 90}
llm: {model: gpt-4, baseUrl: "http://127.0.0.1:8081", token: sk-llm}
unknown: 1
"""
    report = importing.run(importing.file("config.yaml", text))
    assert report["status"] == 1, report
    assert set(report["invalid"]) == {"matcher[2]", "matcher[4]"}
    assert {"flags", "toolCall", "matcher[0]", "matcher[1]", "matcher[3]"} <= set(report["taken"])
    assert set(report["left"]) == {"unknown"}
    settings = load(importing.config)
    weak = settings.providers["weak"].emulate
    assert weak is not None
    assert (weak.features, weak.default_tool, weak.tasks) == (["tools"], "search", True)
    assert settings.providers["own"].emulate is None
    assert settings.providers["rewriter"].base_url == "http://127.0.0.1:8081/v1"
    assert settings.compat.images.rewriter == "rewriter/gpt-4"
    assert b"sk-llm" not in b"".join(importing.contents().values()).replace(
        (importing.folder / "config.yaml").read_bytes(), b""
    )
    assert settings.markers
    assert [(rule.find, rule.len) for rule in settings.matchers[:2]] == [
        ("<think>", 5), ("secret", 6)]  # fmt: skip
    newer = settings.matchers[2]
    assert (newer.content, newer.end) == (r"(?i)I do not engage .+\:\n:", ":\n")
    assert (settings.timeouts.connect, settings.timeouts.first) == (5, 90)
    build(settings.model_copy(update={"store_file": None}))


def test_the_config_of_litellm(importing: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
model_list:
  - model_name: gpt
    litellm_params: {model: openai/gpt-5, api_key: os.environ/OPENAI_KEY_X}
  - model_name: gpt
    litellm_params: {model: azure/dep, api_base: "https://r.example", api_key: az, api_version: "1"}
  - model_name: local
    litellm_params: {model: openai/m, api_base: "http://127.0.0.1:9/v1", api_key: local-key}
  - model_name: bad
    litellm_params: {model: unheard/of}
  - {model_name: worse}
litellm_settings: {drop_params: true}
general_settings: {master_key: sk-1234}
"""
    report = importing.run(importing.file("config.yaml", text))
    assert set(report["invalid"]) == {"model_list[3]", "model_list[4]"}
    assert "general_settings.master_key" in report["left"]
    found = tomllib.loads(importing.config.read_text())
    assert found["routes"]["gpt"] == ["openai/gpt-5", "azure/dep"]
    assert found["providers"]["openai"]["keys"] == ["env:OPENAI_KEY_X"]
    (local,) = found["routes"]["local"]
    assert found["providers"][local.partition("/")[0]]["base_url"] == "http://127.0.0.1:9/v1"
    assert "local-key" not in importing.config.read_text()
    monkeypatch.setenv("OPENAI_KEY_X", "sk-x")
    build(load(importing.config).model_copy(update={"store_file": None}))


# ── One API ──────────────────────────────────────────────────────────────────


_OLD_HASH = bcrypt.hashpw(b"old-password", bcrypt.gensalt(4)).decode()


def database(path: Path, channels: list[tuple[Any, ...]]) -> None:
    with sqlite3.connect(path) as db:
        db.execute("create table channels (id integer, type integer, key text, status integer, "
                   "name text, weight integer, base_url text, models text, 'group' text, "
                   "model_mapping text, priority integer, used_quota integer)")  # fmt: skip
        db.executemany("insert into channels values (?,?,?,?,?,?,?,?,?,?,?,?)", channels)
        db.execute("create table users (id integer, username text, password text, role integer, "
                   "status integer, quota integer, used_quota integer, 'group' text, "
                   "access_token text, aff_code text, display_name text)")  # fmt: skip
        db.executemany("insert into users values (?,?,?,?,?,?,?,?,?,?,?)", [
            (1, "root", "$2a$10$x", 100, 1, 900, 5, "default", "r" * 32, "abcd", "Root"),
            (2, "alice", _OLD_HASH, 1, 1, 700_000, 7, "vip", "a" * 32, "efgh", "Alice"),
            (3, "", "", 1, 1, 0, 0, "", "", "", ""),
        ])  # fmt: skip
        db.execute("create table tokens (id integer, user_id integer, key text, status integer, "
                   "name text, expired_time integer, remain_quota integer, "
                   "unlimited_quota numeric, used_quota integer)")  # fmt: skip
        db.executemany("insert into tokens values (?,?,?,?,?,?,?,?,?)", [
            (4, 2, "T" * 48, 1, "mine", -1, 500_000, 0, 3),
            (5, 2, "short", 1, "bad", -1, 0, 1, 0),
            (6, 99, "U" * 48, 1, "lost", -1, 0, 1, 0),
        ])  # fmt: skip
        db.execute("create table redemptions (id integer, user_id integer, key text, status "
                   "integer, name text, quota integer, redeemed_time integer)")  # fmt: skip
        db.executemany("insert into redemptions values (?,?,?,?,?,?,?)", [
            (1, 1, "0123456789abcdef" * 2, 1, "open", 5000, 0),
            (2, 1, "fedcba9876543210" * 2, 3, "used", 5000, 1_700_000_000),
        ])  # fmt: skip
        db.execute("create table options (key text, value text)")
        db.executemany("insert into options values (?,?)", [
            ("Notice", "Hello"), ("GroupRatio", '{"default": 1, "vip": 0.5}'),
            ("SMTPToken", "mail-secret"), ("ModelRatio", "{broken"),
        ])  # fmt: skip
        db.execute("create table logs (id integer)")


def channel(id: int, **fields: Any) -> tuple[Any, ...]:
    row = {"id": id, "type": 1, "key": f"sk-channel-{id}", "status": 1, "name": f"c{id}",
           "weight": 0, "base_url": "", "models": "gpt-4", "group": "default,vip",
           "model_mapping": "", "priority": 0, "used_quota": 11}  # fmt: skip
    return tuple({**row, **fields}.values())


@pytest.mark.anyio
async def test_a_database_of_one_api_goes_on_with_the_same_tokens_and_codes(
    tmp_path: Path,
) -> None:
    import asyncio

    mock = MockProvider()
    with serve_in_thread(mock) as url, pytest.MonkeyPatch.context() as patch:
        importing = Import(tmp_path, patch)
        database(tmp_path / "one-api.db", [channel(3, base_url=url), channel(7, type=999)])
        path = tmp_path / "one-api.db"
        report = await asyncio.to_thread(importing.run, path)
        assert set(report["invalid"]) == {"channels 7", "users 3", "tokens 5", "tokens 6",
                                          "options ModelRatio"}  # fmt: skip
        assert "logs" in report["left"]
        state = (tmp_path / "aiproxy.state").read_bytes()
        for secret in (b"sk-channel-3", b"T" * 48, b"0123456789abcdef", b"mail-secret"):
            assert secret not in state
        assert _OLD_HASH.encode() in state
        before = importing.contents()
        again = await asyncio.to_thread(importing.run, path)
        assert (again["written"], again["configuration"]) == (0, False)
        assert importing.contents() == before

        app = build(load(importing.config))
        async with asgi.lifespan(app):
            key = {"authorization": "Bearer sk-" + "T" * 48}
            answer = await asgi.request(app, "POST", "/v1/chat/completions", HI, headers=key)
            assert answer.status == 200, answer.body
            assert mock.requests[-1].headers["authorization"] == "Bearer sk-channel-3"
            alice = {"authorization": "a" * 32}
            me = (await asgi.request(app, "GET", "/api/user/self", headers=alice)).json["data"]
            assert (me["username"], me["group"], me["aff_code"]) == ("alice", "vip", "efgh")
            assert 699_000 < me["quota"] <= 700_000
            body = {"key": "0123456789abcdef" * 2}
            paid = await asgi.request(app, "POST", "/api/user/topup", body, headers=alice)
            assert paid.json["data"] == 5000
            body = {"key": "fedcba9876543210" * 2}
            used = await asgi.request(app, "POST", "/api/user/topup", body, headers=alice)
            assert used.json["success"] is False
            body = {"username": "alice", "password": "old-password"}
            for _ in range(2):  # at the second sign-in the hash is a new one
                signed_in = await asgi.request(app, "POST", "/api/user/login", body)
                assert signed_in.json["success"], signed_in.body
                cookie = {"cookie": str(signed_in.header("set-cookie")).partition(";")[0]}
                me = (await asgi.request(app, "GET", "/api/user/self", headers=cookie)).json
                assert me["data"]["username"] == "alice"
            body["password"] = "old-passwort"
            assert not (await asgi.request(app, "POST", "/api/user/login", body)).json["success"]
            notice = await asgi.request(app, "GET", "/api/notice")
            assert notice.json["data"] == "Hello"
            assert _OLD_HASH.encode() not in (tmp_path / "aiproxy.state").read_bytes()
            root = {"authorization": (tmp_path / "aiproxy.admin-token").read_text().strip()}
            new = {"type": 1, "key": "sk-new", "name": "new", "models": "m", "group": "default"}
            await asgi.request(app, "POST", "/api/channel/", new, headers=root)
            rows = await asgi.request(app, "GET", "/api/channel/", headers=root)
            assert [row["id"] for row in rows.json["data"]] == [4, 3]
            assert rows.json["data"][1]["used_quota"] >= 11


def test_ten_thousand_channels_with_three_broken_ones(importing: Import) -> None:
    broken = {17: {"key": ""}, 5_000: {"model_mapping": "{"}, 9_999: {"type": 0}}
    rows = [channel(id, **broken.get(id, {})) for id in range(1, 10_001)]
    database(importing.folder / "one-api.db", rows)
    report = importing.run(importing.folder / "one-api.db")
    named = {place for place in report["invalid"] if place.startswith("channels")}
    assert named == {"channels 17", "channels 5000", "channels 9999"}
    assert sum(place.startswith("channels") for place in report["taken"]) == 9_997
    before = importing.contents()
    again = importing.run(importing.folder / "one-api.db")
    assert (again["written"], again["configuration"]) == (0, False)
    assert importing.contents() == before


def test_strict_and_dry_runs_write_nothing(importing: Import) -> None:
    database(importing.folder / "one-api.db", [channel(1), channel(2, key="")])
    before = importing.contents()
    for option in ("--strict", "--dry-run"):
        report = importing.run(importing.folder / "one-api.db", option)
        assert "channels 2" in report["invalid"]
        assert importing.contents() == before


def test_tables_as_json_and_csv(importing: Import) -> None:
    rows = [{"id": 1, "type": 1, "key": "sk-a", "models": "gpt-4", "group": "default",
             "base_url": "", "model_mapping": ""}]  # fmt: skip
    report = importing.run(importing.file("export.json", {"channels": rows}))
    assert "channels 1" in report["taken"]
    text = "id,type,key,models,group,base_url,model_mapping\n2,1,sk-b,gpt-4,default,,\n,1,x,,,,\n"
    report = importing.run(importing.file("channels.csv", text))
    assert "channels 2" in report["taken"]
    assert len(report["invalid"]) == 1


def test_an_existing_configuration_is_kept_and_extended(importing: Import) -> None:
    text = f"""# mine
store_file = "{importing.folder}/own.state"
sealing_keys = ["a passphrase that is long enough"]

[compat]
aiproxy = "/old"  # where clients expect it

[providers.openai]
base_url = "https://mirror.example/v1"
"""
    importing.config.write_text(text)
    report = importing.run(importing.file("c.yaml", C_YAML))
    assert {"compat.aiproxy", "callers"} <= set(report["left"])
    assert not load(importing.config).anonymous
    found = importing.config.read_text()
    assert found.startswith("# mine\n")
    assert 'aiproxy = "/old"  # where clients expect it' in found
    settings = load(importing.config)
    assert settings.compat.aiproxy == "/old"
    assert settings.providers["openai"].base_url == "https://mirror.example/v1"
    assert (importing.folder / "own.state").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "hello"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "unknown: 1"),
        ("config.yaml", "- 1"),
        ("access_tokens.json", "{"),
        ("tables.json", {"other": []}),
        ("table.csv", "a,b\n1,2\n"),
    ],
)
def test_a_file_that_is_not_recognized_is_refused(importing: Import, name: str, text: Any) -> None:
    before_config = importing.config.exists()
    report = importing.run(importing.file(name, text))
    assert report["status"] == 2
    assert "Traceback" not in report["error"]
    assert importing.config.exists() == before_config


def test_an_invalid_configuration_is_not_touched(importing: Import) -> None:
    importing.config.write_text("not toml [")
    report = importing.run(importing.file("proxies.txt", "1.2.3.4:80"))
    assert report["status"] == 2
    assert importing.config.read_text() == "not toml ["
