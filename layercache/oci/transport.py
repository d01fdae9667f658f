"""HTTP to registries: authorization, redirects and retries, on Python's own client.

No library is used: the protocol needs only a handful of requests, and its rules would have to be
added to any library: https unless the host is this machine or named insecure, `Authorization`
never sent to another host, no redirect from https to http, bounded answers.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlencode, urljoin

from layercache.errors import SourceError, Unreachable, UsageError
from layercache.http.client import Address, Response, masked, parse_address, reason, send
from layercache.http.headers import challenges, retry_after
from layercache.oci.complaints import complaint
from layercache.oci.credentials import Credential, Credentials
from layercache.oci.hosts import RegistryHosts
from layercache.oci.manifests import decode
from layercache.oci.references import DOCKER_HUB
from layercache.oci.streams import read_bounded

__all__ = ["Response", "Transport", "Waits"]

_HUB_HOST: Final = "registry-1.docker.io"
_ATTEMPTS: Final = 5
_REDIRECTS: Final = 6
_TOKEN_LIMIT: Final = 1 << 20
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_MAX_WAIT: Final = 30.0
_LOCAL: Final = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.ASCII)
_BROKEN: Final = (OSError, http.client.HTTPException)


class Transport:
    """Requests to registries, with their tokens. Safe for threads.

    `insecure` names hosts (with port) that may be contacted over http or with an unverifiable
    certificate; `timeout` is the seconds of silence after which an attempt is abandoned; `hosts`
    is what this machine knows about registries (by default its configuration files).
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        insecure: Iterable[str] = (),
        timeout: float = 30.0,
        attempts: int = _ATTEMPTS,
        hosts: RegistryHosts | None = None,
    ) -> None:
        self._credentials = credentials if credentials is not None else Credentials()
        self._insecure = frozenset(insecure)
        self._timeout = timeout
        self.attempts = attempts
        """How often a request that fails on its way is sent."""
        self.hosts = hosts if hosts is not None else RegistryHosts()
        self._lock = threading.Lock()
        self._schemes: dict[str, str] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def waits(self) -> Waits:
        """The pauses between the attempts of one piece of work."""
        return Waits(self._timeout)

    def _unchecked(self, host: str) -> bool:
        return host in self._insecure or self.hosts.insecure(host)

    def _context(self, address: Address) -> ssl.SSLContext | None:
        """How the certificate of `address` is checked, independent of the redirect that led
        there.
        """
        if address.scheme != "https":
            return None
        named = re.sub(r"^https?://", "", address.url).partition("/")[0].partition("?")[0]
        with self._lock:
            context = self._contexts.get(named)
            if context is None:
                context = ssl.create_default_context()
                self.hosts.load_certificates(named, context)
                if self._unchecked(named):
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                self._contexts[named] = context
        return context

    # -- requests ---------------------------------------------------------------------------

    def request(
        self,
        method: str,
        host: str,
        path: str,
        *,
        repository: str,
        actions: str = "pull",
        reads: str | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | Iterable[bytes] | None = None,
        retry: bool = True,
    ) -> Response:
        """The final answer to a request for `path` (below /v2/, or a whole URL) at `host`.

        A token is requested for `repository` and `actions`, and for pulls of the repository
        `reads`. Any status below 500 except 401, 403, 408 and 429 is returned. Raises `Unreachable`
        if no answer came or the registry can't answer now, `SourceError` if it refuses. A body
        that is an iterator is sent once: what would be retried (`retry`), or sent again with a new
        token, is `Unreachable`.
        """
        scope = f"repository:{repository}:{actions}"
        if reads is not None:
            scope += f" repository:{reads}:pull"
        base = _parsed(f"{self._base(host)}/v2/", host)
        address = _parsed(path if ":" in path.partition("/")[0] else f"{base.url}{path}", host)
        if address.scheme == "http" and base.scheme == "https":
            raise SourceError(f"{host} redirects from https to http; this is refused")
        whole = data is None or isinstance(data, bytes)
        retry = retry and whole
        authorized = False
        waits = self.waits()
        shown = f"{method} {masked(address.url)}"
        for attempt in range(self.attempts):
            sent = dict(headers or {})
            token = self._tokens.get((host, scope))
            if token is not None and address.origin == base.origin:
                sent["Authorization"] = token
            try:
                answer = self._follow(method, address, sent, data, host)
            except _BROKEN as error:
                if not retry or attempt + 1 == self.attempts or _final(error):
                    kind = SourceError if _untrusted(error) else Unreachable
                    raise kind(f"{shown}: {_reason(error)}") from error
                waits.pause(attempt, None)
                continue
            if answer.status == 401 and not authorized:
                authorized = True
                values = answer.headers.get_all("WWW-Authenticate") or []
                said = complaint(answer)
                answer.close()
                if answer.address.origin != base.origin:
                    # Its challenge could direct the registry's password to any host.
                    raise SourceError(
                        f"{host} leads to {answer.address.host}, which wants authorization of "
                        "its own: refused; credentials are for the registry that was asked"
                    )
                self._authorize(host, base, repository, scope, values, said)
                if not whole:
                    again = Unreachable(f"{host} wants authorization in the middle of an upload")
                    again.retry_after = 0.0  # the token is there now
                    raise again
                continue
            if answer.status in {401, 403}:
                said = complaint(answer)
                answer.close()
                raise SourceError(
                    f"{host} refuses access to {repository} ({actions}, status {answer.status}): "
                    f"log in with docker login or podman login, or check the name{said}"
                )
            if answer.status < 500 and answer.status not in _AGAIN:
                return answer
            wanted = retry_after(answer.headers.get("Retry-After"))
            failure = Unreachable(f"{shown}: status {answer.status}{complaint(answer)}")
            failure.retry_after = wanted
            answer.close()
            if answer.status not in _AGAIN or not retry or attempt + 1 == self.attempts:
                raise failure
            if not waits.pause(attempt, wanted):
                raise failure
        raise Unreachable(f"{shown}: gave up after {self.attempts} tries")

    def _follow(
        self,
        method: str,
        address: Address,
        headers: dict[str, str],
        data: bytes | Iterable[bytes] | None,
        host: str,
        *,
        secret: bool = False,
    ) -> Response:
        """One attempt; redirects are followed without the headers meant for the first host only.

        `secret`: the body is secret too, and is sent to no other host.
        """
        start = address
        for _ in range(_REDIRECTS):
            answer = self._send(method, address, headers, data)
            if answer.status not in _MOVED:
                return answer
            target = answer.headers.get("Location", "")
            answer.close()
            address = _parsed(_joined(address.url, target), host, what="redirects to")
            if start.scheme == "https" and address.scheme == "http":
                raise SourceError(f"{host} redirects from https to http; this is refused")
            if address.origin != start.origin:
                headers = {k: v for k, v in headers.items() if k != "Authorization"}
                if secret:
                    raise SourceError(f"{host} redirects a login to another place: refused")
            again = answer.status in (307, 308) and isinstance(data, bytes | None)
            if method not in ("GET", "HEAD") and not again:
                raise SourceError(f"{host} redirects a {method}, which can't be sent again")
        raise SourceError(f"{host} redirects more than {_REDIRECTS} times")

    def _send(
        self,
        method: str,
        address: Address,
        headers: Mapping[str, str],
        data: bytes | Iterable[bytes] | None,
    ) -> Response:
        context = self._context(address)
        return send(method, address, headers, data, timeout=self._timeout, context=context)

    def _base(self, host: str) -> str:
        """Scheme and address; http only for this machine or a host named insecure."""
        address = _HUB_HOST if host == DOCKER_HUB else host
        with self._lock:
            scheme = self._schemes.get(host)
        if scheme is None:
            scheme = "https"
            plain = _LOCAL.fullmatch(host) or self._unchecked(host)
            if plain and not self._speaks_tls(host):
                scheme = "http"
            with self._lock:
                self._schemes[host] = scheme
        return f"{scheme}://{address}"

    def _speaks_tls(self, host: str) -> bool:
        try:
            self._send("GET", _parsed(f"https://{host}/v2/", host), {}, None).close()
        except ssl.SSLCertVerificationError:
            return True
        except (ssl.SSLError, ConnectionResetError, http.client.HTTPException):
            return False  # an answer that isn't TLS
        except OSError:
            return True  # reported by the request
        return True

    # -- authorization ----------------------------------------------------------------------

    def _authorize(
        self,
        host: str,
        base: Address,
        repository: str,
        scope: str,
        values: Iterable[str],
        said: str,
    ) -> None:
        """Satisfy the challenge of a 401 (distribution, "token authentication")."""
        asked = {c.scheme: c.parameters for c in reversed(challenges(values))}
        credential = self._credentials.get(host, repository)
        if (fields := asked.get("bearer")) is None:
            if "basic" not in asked:
                raise SourceError(
                    f"{host} asks for a kind of authorization that is not supported{said}"
                )
            if credential is None or credential.identity:
                raise SourceError(f"{host} wants a user name and a password: log in first")
            self._tokens[host, scope] = credential.basic
            return
        try:
            realm = parse_address(fields.get("realm", ""))
        except UsageError as error:
            raise SourceError(
                f"{host} asks to fetch tokens from an address that is not safe: {error}"
            ) from None
        if realm.scheme != "https" and base.scheme == "https":
            raise SourceError(f"{host} asks to fetch tokens from an address that is not safe")
        if credential is not None and not self._trusted(base) and realm.host != base.host:
            # Anyone on the network path may have written this challenge.
            raise SourceError(
                f"{host} is spoken to without a certificate that was verified, and wants its "
                f"password sent to {realm.host}: refused"
            )
        service = fields.get("service", "")
        wanted = " ".join(dict.fromkeys(f"{fields.get('scope', '')} {scope}".split()))
        self._tokens[host, scope] = "Bearer " + self._token(
            host, realm, service, wanted, credential
        )

    def _trusted(self, base: Address) -> bool:
        """Whether the registry's answers are known to be authentic."""
        context = self._context(base)
        return context is not None and context.verify_mode == ssl.CERT_REQUIRED

    def _token(
        self, host: str, realm: Address, service: str, scope: str, credential: Credential | None
    ) -> str:
        headers: dict[str, str] = {}
        data = None
        query: dict[str, object] = {"service": service} if service else {}
        if credential is not None and credential.identity:
            form = {
                **query,
                "scope": scope,
                "grant_type": "refresh_token",
                "refresh_token": credential.secret,
                "client_id": "layercache",
            }
            data = urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            address = realm
        else:
            joint = "&" if "?" in realm.url else "?"
            query["scope"] = scope.split()
            address = _parsed(realm.url + joint + urlencode(query, doseq=True), host)
            if credential is not None:
                headers["Authorization"] = credential.basic
        waits = self.waits()
        method = "POST" if data else "GET"
        for attempt in range(self.attempts):
            try:
                answer = self._follow(method, address, headers, data, host, secret=data is not None)
            except _BROKEN as error:
                if attempt + 1 == self.attempts or _final(error):
                    kind = SourceError if _untrusted(error) else Unreachable
                    raise kind(f"token for {host}: {_reason(error)}") from error
                waits.pause(attempt, None)
                continue
            if answer.status in _AGAIN and attempt + 1 < self.attempts:
                answer.close()
                if waits.pause(attempt, retry_after(answer.headers.get("Retry-After"))):
                    continue
            break
        if answer.status != 200:
            said = complaint(answer)
            answer.close()
            if answer.status >= 500 or answer.status in _AGAIN:
                raise Unreachable(f"token for {host}: status {answer.status}{said}")
            what = "the credentials that are stored" if credential else "access without login"
            raise SourceError(f"{host} does not accept {what} (status {answer.status}){said}")
        value = decode(
            read_bounded(answer.body, _TOKEN_LIMIT, what=f"token of {host}"),
            what=f"token of {host}",
        )
        token = value.get("token") or value.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,32768}", token):
            raise SourceError(f"{host} gave no token")
        return token


def _final(error: BaseException) -> bool:
    """Whether a retry is pointless: a certificate error, an unknown name, a refused connection."""
    import socket

    reason = getattr(error, "reason", error)
    final = ssl.SSLCertVerificationError | socket.gaierror | ConnectionRefusedError | ValueError
    return isinstance(reason, final)


def _untrusted(error: BaseException) -> bool:
    """Whether a server answered and is not the one that was meant."""
    return isinstance(error, ssl.SSLCertVerificationError)


def _reason(error: BaseException) -> str:
    if _untrusted(error):
        return (
            f"{reason(error)}: put the certificate of its authority into "
            "/etc/containers/certs.d/HOST:PORT/ca.crt, or name the file in SSL_CERT_FILE"
        )
    return reason(error)


def _parsed(url: str, host: str, what: str = "leads to") -> Address:
    """The address `url` that `host` returned; raises `SourceError`."""
    try:
        return parse_address(url)
    except UsageError as error:
        raise SourceError(f"{host} {what} an address that is not opened: {error}") from None


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        return target


class Waits:
    """The pauses between the attempts of one request, with a bound on each and on their sum."""

    def __init__(self, timeout: float) -> None:
        self._left = min(2 * timeout, 2 * _MAX_WAIT)

    def pause(self, attempt: int, wanted: float | None) -> bool:
        """Wait before the next attempt; False if the server wants a longer pause than is left."""
        seconds = max(0.25 * 2.0**attempt, wanted or 0.0)
        if seconds > min(_MAX_WAIT, self._left):
            if wanted is not None and wanted >= seconds:
                return False
            seconds = max(0.0, min(_MAX_WAIT, self._left))
        self._left -= seconds
        time.sleep(seconds)
        return True
