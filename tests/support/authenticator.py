"""A device with passkeys, without a browser: what it answers to the options of a page.

https://www.w3.org/TR/webauthn-2/#sctn-attestation and #sctn-authenticator-data
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Held:
    """A passkey on the device."""

    id: bytes
    handle: str
    key: ec.EllipticCurvePrivateKey
    count: int = 0


@dataclass
class Authenticator:
    """The device. A test changes `origin`, `flags` or a count to have it answer what is wrong."""

    origin: str
    flags: int = PRESENT | VERIFIED
    held: list[Held] = field(default_factory=list)

    def create(self, options: dict[str, Any]) -> str:
        """Make a passkey; returns the credential as JSON."""
        made = Held(
            secrets.token_bytes(32), options["user"]["id"], ec.generate_private_key(ec.SECP256R1())
        )
        self.held.append(made)
        numbers = made.key.public_key().public_numbers()
        x, y = (each.to_bytes(32, "big") for each in (numbers.x, numbers.y))
        key = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        data = self.data(options["rp"]["id"], made, ATTESTED)
        data += bytes(16) + len(made.id).to_bytes(2, "big") + made.id + key
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self.client("webauthn.create", options)
        response = {"clientDataJSON": encoded(client), "attestationObject": encoded(attestation)}
        return self.credential(made, response)

    def sign(self, options: dict[str, Any], held: Held | None = None) -> str:
        """Sign a challenge with a passkey; returns the credential as JSON."""
        held = held or self.held[-1]
        held.count += 1
        data = self.data(options["rpId"], held, 0)
        client = self.client("webauthn.get", options)
        signature = held.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": encoded(client),
            "authenticatorData": encoded(data),
            "signature": encoded(signature),
            "userHandle": held.handle,
        }
        return self.credential(held, response)

    def data(self, site: str, held: Held, flags: int) -> bytes:
        head = hashlib.sha256(site.encode()).digest() + bytes([self.flags | flags])
        return head + held.count.to_bytes(4, "big")

    def client(self, kind: str, options: dict[str, Any]) -> bytes:
        found = {"type": kind, "challenge": options["challenge"], "origin": self.origin}
        return json.dumps(found).encode()

    def credential(self, held: Held, response: dict[str, str]) -> str:
        id = encoded(held.id)
        return json.dumps({"id": id, "rawId": id, "type": "public-key", "response": response})
