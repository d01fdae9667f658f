"""HTTP for untrusted servers: bounded response heads, bounded time, no automatic redirects.

Imports only `errors` and `_base`. Start at `client` (one request), then `headers`.
"""
