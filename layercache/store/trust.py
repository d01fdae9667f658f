"""Authentication of records with a keyed digest, for each trust domain.

Anyone who holds a domain's secret can write for it and check it. Another scheme (asymmetric
signatures, a key service) is another `Verifier` (`layercache.store.codec`).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

from blake3 import blake3

from layercache.errors import UsageError
from layercache.store.codec import Verifier

__all__ = ["KeyedVerifier", "ScopedVerifier", "Verifier"]

_CONTEXT: Final = "layercache 2026-11 trust domain 1: "
_SCOPE: Final = "layercache 2026-11 signed message in a scope 1"
_SHORTEST: Final = 16


class KeyedVerifier:
    """Signs for `domain` with `secret` (at least 16 bytes, random) and accepts that domain.

    `accept` are further domains, by name, whose writing counts too. A writer that is trusted
    less gets another domain, and its own namespace, and is accepted by nobody who must not.
    """

    def __init__(
        self, secret: bytes, domain: str = "default", accept: Mapping[str, bytes] | None = None
    ) -> None:
        self.domain = domain
        self._keys = {name: _key(name, key) for name, key in (accept or {}).items()}
        self._keys[domain] = _key(domain, secret)

    def __repr__(self) -> str:
        return f"KeyedVerifier({self.domain!r}, accepts {sorted(self._keys)})"

    def sign(self, message: bytes) -> bytes:
        """The name of the domain, NUL, a BLAKE3 MAC of 32 bytes."""
        mac = blake3(message, key=self._keys[self.domain]).digest()
        return self.domain.encode() + b"\0" + mac

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether an accepted domain signed `message`."""
        name, separator, mac = signature.partition(b"\0")
        key = self._keys.get(name.decode("utf-8", "replace"))
        if not separator or key is None:
            return False
        return hmac.compare_digest(blake3(message, key=key).digest(), mac)


class ScopedVerifier:
    """`verifier`, for what is written in one namespace under one salt (`scope`) only.

    What was signed there and is copied to another namespace, or is met under a new salt, was
    written by nobody who is trusted.
    """

    def __init__(self, verifier: Verifier, scope: str) -> None:
        self._verifier = verifier
        self._scope = scope

    def __repr__(self) -> str:
        return f"ScopedVerifier({self._verifier!r}, {self._scope!r})"

    def sign(self, message: bytes) -> bytes:
        """The signature of the message in this scope."""
        return self._verifier.sign(self._scoped(message))

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether a trusted writer signed `message` in this scope."""
        return self._verifier.verify(self._scoped(message), signature)

    def _scoped(self, message: bytes) -> bytes:
        # The message is a digest of one length, so nothing is ambiguous.
        return blake3(message + self._scope.encode(), derive_key_context=_SCOPE).digest()


def _key(domain: str, secret: bytes) -> bytes:
    if len(secret) < _SHORTEST:
        raise UsageError(f"the secret of trust domain {domain!r} needs at least 16 random bytes")
    if "\0" in domain or not domain:
        raise UsageError(f"not a name for a trust domain: {domain!r}")
    return blake3(secret, derive_key_context=_CONTEXT + domain).digest()
