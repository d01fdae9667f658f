"""HTTP to registries: authorization, redirects, retries, on Python's own client.

No library is needed: the protocol is a handful of requests, and what matters are rules that a
library would have to be taught: https unless the host is this machine or named insecure,
`Authorization` never sent to another host, no step from https down to http, bounded answers.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from email.message import Message
from typing import Any, BinaryIO, Final, cast

from layercache.errors import SourceError
from layercache.oci.credentials import Credential, Credentials
from layercache.oci.manifests import decode
from layercache.oci.references import DOCKER_HUB
from layercache.oci.streams import read_bounded

__all__ = ["Response", "Transport"]

_HUB_HOST: Final = "registry-1.docker.io"
_ATTEMPTS: Final = 5
_REDIRECTS: Final = 6
_TOKEN_LIMIT: Final = 1 << 20
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_MAX_WAIT: Final = 30.0
_CHALLENGE: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LOCAL: Final = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.ASCII)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are followed by `Transport`, which decides what goes along."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Response:
    """An answer: status, headers and a body to be read and closed."""

    def __init__(self, status: int, headers: Message, body: BinaryIO, url: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.url = url

    def close(self) -> None:
        self.body.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Transport:
    """Requests to registries, with their tokens. Safe for threads.

    `insecure` names hosts (with port) that may be spoken to over http or with a certificate
    that can't be verified; `timeout` is seconds of silence before a try is given up.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        insecure: Iterable[str] = (),
        timeout: float = 30.0,
        attempts: int = _ATTEMPTS,
    ) -> None:
        self._credentials = credentials if credentials is not None else Credentials()
        self._insecure = frozenset(insecure)
        self._timeout = timeout
        self._attempts = attempts
        self._lock = threading.Lock()
        self._schemes: dict[str, str] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        self._openers: dict[tuple[bool, bool], urllib.request.OpenerDirector] = {}

    def _opener(self, address: str) -> urllib.request.OpenerDirector:
        """What opens URLs at `address` (host and port), wherever a redirect came from."""
        kind = (address in self._insecure, bool(_LOCAL.fullmatch(address)))
        with self._lock:
            opener = self._openers.get(kind)
            if opener is None:
                context = ssl.create_default_context()
                if kind[0]:
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                handlers = [_NoRedirects(), urllib.request.HTTPSHandler(context=context)]
                if kind[1]:
                    handlers.append(urllib.request.ProxyHandler({}))  # never for this machine
                opener = self._openers[kind] = urllib.request.build_opener(*handlers)
        return opener

    # -- requests ---------------------------------------------------------------------------

    def request(
        self,
        method: str,
        host: str,
        path: str,
        *,
        repository: str,
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        data: bytes | Iterable[bytes] | None = None,
        retry: bool = True,
    ) -> Response:
        """The final answer to a request for `path` (below /v2/, or a whole URL) at `host`.

        `repository` and `actions` are what a token is asked for. Any status below 500 but 401
        and 429 is returned; raises `SourceError` for the rest. A body that is an iterator is
        sent once, so such a request isn't tried again (`retry`).
        """
        scope = f"repository:{repository}:{actions}"
        url = path if "://" in path else f"{self._base(host)}/v2/{path}"
        if url.startswith("http:") and self._base(host).startswith("https:"):
            raise SourceError(f"{host} sends from https to an address with http: refused")
        retry = retry and (data is None or isinstance(data, bytes))
        authorized = False
        for attempt in range(self._attempts):
            sent = dict(headers or {})
            token = self._tokens.get((host, scope))
            if token is not None and self._same_registry(url, host):
                sent["Authorization"] = token
            try:
                answer = self._follow(method, url, sent, data, host)
            except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
                if not retry or attempt + 1 == self._attempts or _final(error):
                    raise SourceError(f"{method} {_shown(url)}: {_reason(error)}") from error
                _wait(attempt, None)
                continue
            if answer.status == 401 and not authorized:
                authorized = True
                challenge = answer.headers.get("WWW-Authenticate", "")
                answer.close()
                self._authorize(host, repository, scope, challenge)
                if data is not None and not isinstance(data, bytes):
                    raise SourceError(f"{host} wants authorization in the middle of an upload")
                continue
            if answer.status == 401 or answer.status == 403:
                answer.close()
                raise SourceError(
                    f"{host} refuses access to {repository} ({actions}, status {answer.status}): "
                    "log in with docker login or podman login, or check the name"
                )
            if answer.status in _AGAIN and retry and attempt + 1 < self._attempts:
                wanted = answer.headers.get("Retry-After")
                answer.close()
                _wait(attempt, wanted)
                continue
            if answer.status >= 500 or answer.status in _AGAIN:
                answer.close()
                raise SourceError(f"{method} {_shown(url)}: status {answer.status}")
            return answer
        raise SourceError(f"{method} {_shown(url)}: given up after {self._attempts} tries")

    def _follow(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        data: bytes | Iterable[bytes] | None,
        host: str,
    ) -> Response:
        """One try, redirects followed without what belongs to the first host only."""
        start = urllib.parse.urlsplit(url)
        for _ in range(_REDIRECTS):
            answer = self._send(method, url, headers, data)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            target = answer.headers.get("Location", "")
            answer.close()
            url = urllib.parse.urljoin(url, target)
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise SourceError(f"{host} redirects to something other than http: refused")
            if start.scheme == "https" and parts.scheme == "http":
                raise SourceError(f"{host} redirects from https to http: refused")
            if (parts.scheme, parts.netloc) != (start.scheme, start.netloc):
                headers = {k: v for k, v in headers.items() if k != "Authorization"}
        raise SourceError(f"{host} redirects more than {_REDIRECTS} times")

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | Iterable[bytes] | None,
    ) -> Response:
        request = urllib.request.Request(
            url, data=cast("bytes | None", data), headers=dict(headers), method=method
        )
        request.add_header("User-Agent", "layercache")
        opener = self._opener(urllib.parse.urlsplit(url).netloc)
        try:
            answer = opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            return Response(error.code, error.headers, cast(BinaryIO, error), url)
        return Response(answer.status, answer.headers, cast(BinaryIO, answer), url)

    def _same_registry(self, url: str, host: str) -> bool:
        return url.startswith(self._base(host) + "/")

    def _base(self, host: str) -> str:
        """Scheme and address; http only for this machine or a host named insecure."""
        address = _HUB_HOST if host == DOCKER_HUB else host
        with self._lock:
            scheme = self._schemes.get(host)
        if scheme is None:
            scheme = "https"
            if (_LOCAL.fullmatch(host) or host in self._insecure) and not self._speaks_tls(host):
                scheme = "http"
            with self._lock:
                self._schemes[host] = scheme
        return f"{scheme}://{address}"

    def _speaks_tls(self, host: str) -> bool:
        try:
            self._send("GET", f"https://{host}/v2/", {}, None).close()
        except urllib.error.URLError as error:
            # Only an answer that isn't TLS says so; anything else is reported by the request.
            reason = error.reason
            plain = isinstance(reason, ssl.SSLError) and not isinstance(
                reason, ssl.SSLCertVerificationError
            )
            return not (plain or isinstance(reason, ConnectionResetError))
        except (OSError, http.client.HTTPException):
            return False
        return True

    # -- authorization ----------------------------------------------------------------------

    def _authorize(self, host: str, repository: str, scope: str, challenge: str) -> None:
        """Obtain what the challenge of a 401 asks for (distribution, "token authentication")."""
        kind, _, rest = challenge.partition(" ")
        fields = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
        credential = self._credentials.get(host, repository)
        if kind.lower() == "basic":
            if credential is None or credential.identity:
                raise SourceError(f"{host} wants a user name and a password: log in first")
            self._tokens[host, scope] = credential.basic
            return
        realm = fields.get("realm", "")
        parts = urllib.parse.urlsplit(realm)
        if kind.lower() != "bearer" or not parts.netloc:
            raise SourceError(f"{host} asks for authorization in a way that is not known here")
        allowed = ("https", "http") if self._base(host).startswith("http:") else ("https",)
        if parts.scheme not in allowed or parts.username or parts.password:
            raise SourceError(f"{host} wants tokens fetched from an address that isn't safe")
        self._tokens[host, scope] = "Bearer " + self._token(
            host, realm, fields.get("service", ""), fields.get("scope") or scope, credential
        )

    def _token(
        self, host: str, realm: str, service: str, scope: str, credential: Credential | None
    ) -> str:
        headers: dict[str, str] = {}
        data = None
        query = {"service": service, "scope": scope} if service else {"scope": scope}
        if credential is not None and credential.identity:
            form = {
                **query,
                "grant_type": "refresh_token",
                "refresh_token": credential.secret,
                "client_id": "layercache",
            }
            data = urllib.parse.urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            url = realm
        else:
            joint = "&" if "?" in realm else "?"
            url = realm + joint + urllib.parse.urlencode(query)
            if credential is not None:
                headers["Authorization"] = credential.basic
        for attempt in range(self._attempts):
            try:
                answer = self._follow("POST" if data else "GET", url, headers, data, host)
            except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
                if attempt + 1 == self._attempts or _final(error):
                    raise SourceError(f"token for {host}: {_reason(error)}") from error
                _wait(attempt, None)
                continue
            if answer.status in _AGAIN and attempt + 1 < self._attempts:
                answer.close()
                _wait(attempt, answer.headers.get("Retry-After"))
                continue
            break
        if answer.status != 200:
            answer.close()
            what = "the credentials that are stored" if credential else "access without login"
            raise SourceError(f"{host} does not accept {what} (status {answer.status})")
        value = decode(
            read_bounded(answer.body, _TOKEN_LIMIT, what=f"token of {host}"),
            what=f"token of {host}",
        )
        token = value.get("token") or value.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise SourceError(f"{host} gave no token")
        return token


def _final(error: BaseException) -> bool:
    """Whether trying again is of no use: a certificate, no such name, nobody listening."""
    import socket

    reason = getattr(error, "reason", error)
    final = ssl.SSLCertVerificationError | socket.gaierror | ConnectionRefusedError | ValueError
    return isinstance(reason, final)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason) or type(reason).__name__


def _shown(url: str) -> str:
    """Without the query, which may carry a signature."""
    return url.partition("?")[0]


def _wait(attempt: int, wanted: str | None) -> None:
    seconds = 0.25 * 2.0**attempt
    if wanted is not None and wanted.isdigit() and len(wanted) < 6:
        seconds = max(seconds, float(wanted))
    time.sleep(min(seconds, _MAX_WAIT))
