"""The services of AWS, Coze and Google that give credentials which expire, and their chats."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.scripted_upstream import chat_answer

GEMINI_ANSWER = (
    b'{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":'
    b'"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}'
)
CONVERSE_ANSWER = (
    b'{"output":{"message":{"content":[{"text":"Hello"}]}},"stopReason":"end_turn","usage":{}}'
)
COZE_ANSWER = (
    b'event:conversation.message.completed\ndata:{"id":"1","conversation_id":"2","chat_id":"3",'
    b'"type":"answer","role":"assistant","content":"Hello","content_type":"text"}\n\n'
    b'event:conversation.chat.completed\ndata:{"id":"3","conversation_id":"2","status":"completed",'
    b'"usage":{"input_count":1,"output_count":2,"token_count":3}}\n\nevent:done\ndata:"[DONE]"\n\n'
)
STS_ANSWER = """<AssumeRoleWithWebIdentityResponse
  xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
  <AccessKeyId>{token}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
  <Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@dataclass
class Grants:
    """The credentials that a vendor gave: none for `stale`. The first one ends in 200 seconds, that
    is within the margin for its renewal; later ones in an hour.
    """

    requests: Counter[str] = field(default_factory=Counter)  # by key
    used: list[str] = field(default_factory=list)  # in chats

    def next(self, key: str) -> tuple[str, int] | None:
        """A token, and the seconds until it ends."""
        self.requests[key] += 1
        if key != "good":
            return None
        number = self.requests[key]
        return f"token{number}", 200 if number == 1 else 3600


class Vendors:
    """The services of AWS, Coze and Google that give credentials, their chats, and a vendor without
    such credentials.
    """

    def __init__(self) -> None:
        self.grants = {kind: Grants() for kind in ("aws", "coze", "google")}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        credential = dict(scope["headers"]).get(b"authorization", b"").decode()
        status, kind, answer = self._answer(scope["path"], body, credential)
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, path: str, body: bytes, credential: str) -> tuple[int, str, bytes]:
        match path.strip("/").split("/"):
            case ["sts"]:
                return self._sts(parse_qs(body.decode())["RoleArn"][0].rpartition("/")[2])
            case ["google", key]:
                return self._google(key)
            case ["api", *_]:
                return self._coze(json.loads(body)["refresh_token"])
            case ["model", *_]:  # AWS4-HMAC-SHA256 Credential=KEY/date/...
                self.grants["aws"].used.append(credential.partition("=")[2].partition("/")[0])
                return 200, "application/json", CONVERSE_ANSWER
            case ["v3", "chat"]:
                self.grants["coze"].used.append(credential.removeprefix("Bearer "))
                return 200, "text/event-stream", COZE_ANSWER
            case ["v1", "projects", *_] | ["v1beta1", "projects", *_]:
                self.grants["google"].used.append(credential.removeprefix("Bearer "))
                return 200, "application/json", GEMINI_ANSWER
        return 200, "application/json", chat_answer()

    def _sts(self, key: str) -> tuple[int, str, bytes]:
        granted = self.grants["aws"].next(key)
        if granted is None:
            error = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
            return 403, "text/xml", error.encode()
        token, seconds = granted
        ends = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
        return 200, "text/xml", STS_ANSWER.format(token=token, ends=ends).encode()

    def _google(self, key: str) -> tuple[int, str, bytes]:
        granted = self.grants["google"].next(key)
        if granted is None:
            return 400, "application/json", b'{"error":"invalid_grant"}'
        answer = {"access_token": granted[0], "expires_in": granted[1], "token_type": "Bearer"}
        return 200, "application/json", json.dumps(answer).encode()

    def _coze(self, refresh: str) -> tuple[int, str, bytes]:
        grants = self.grants["coze"]
        expected = f"refresh-{grants.requests['good']}"  # each is valid once
        granted = grants.next("good" if refresh == expected else refresh)
        if granted is None:
            return 401, "application/json", b'{"error_code":"invalid_grant"}'
        answer = {"access_token": granted[0], "expires_in": int(time.time()) + granted[1]}
        answer["refresh_token"] = f"refresh-{grants.requests['good']}"
        return 200, "application/json", json.dumps(answer).encode()


def keys_of(vendor: str, folder: Path) -> dict[str, dict[str, str]]:
    """The keys of each vendor, and the files of AWS in `folder`."""
    app = {"client_type": "web", "client_id": "app-1", "client_secret": "app-secret"}
    coze = {
        key: json.dumps({**app, "refresh_token": refresh, "coze_api_base": vendor})
        for key, refresh in (("good", "refresh-0"), ("stale", "stale"))
    }
    account = json.loads(service_account(""))
    google = {
        key: json.dumps({**account, "token_uri": f"{vendor}/google/{key}"})
        for key in ("good", "stale")
    }
    (folder / "identity").write_text("header.app-secret.signature")
    profiles = [
        f"[profile {key}]\nrole_arn = arn:aws:iam::1:role/{key}\n"
        f"web_identity_token_file = {folder / 'identity'}\n"
        for key in ("good", "stale")
    ]
    (folder / "config").write_text("\n".join(profiles))
    aws = {key: f"profile:{key}" for key in ("good", "stale")}
    return {"aws": aws, "coze": coze, "google": google}


def service_account(token_uri: str) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k",
        "private_key": pem,
        "client_email": "a@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    return json.dumps(account)
