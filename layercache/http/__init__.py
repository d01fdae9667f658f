"""HTTP as a client that trusts no server: bounded heads, bounded time, no redirects of its own."""
