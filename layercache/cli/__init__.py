"""The command line: a thin layer over the public API, with the names of `docker buildx build`.

Imports every package except `testing`. Start at `options` (the arguments), then `build` and
`cache` (the commands).
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence

from layercache.errors import LayerCacheError

__all__ = ["main", "script"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status and never raises for a user's mistakes.

    0 success; 1 the build failed, or `verify` left damage; 2 bad usage, a bad Dockerfile or flag,
    or no usable executor; 130 interrupted.
    """
    try:
        from layercache.cli.options import parse

        command, options = parse(sys.argv[1:] if arguments is None else list(arguments))
        return command(options)
    except KeyboardInterrupt:
        print("layercache: interrupted", file=sys.stderr)
        from layercache.cli.status import INTERRUPTED

        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output is gone; keep the interpreter from complaining at exit.
        sys.stdout = None
        from layercache.cli.status import FAILED

        return FAILED
    except (LayerCacheError, OSError) as raised:
        from layercache.cli.status import of_the_system, status_of

        error = raised if isinstance(raised, LayerCacheError) else of_the_system(raised)
        from layercache.reports.visible import visible

        print(f"layercache: {visible(str(error))}", file=sys.stderr)
        return status_of(error)


def _end_as_interrupted() -> None:
    """Treat a termination signal like Ctrl-C: running work is stopped and resources are
    released.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def script() -> None:
    """Entry point of the `layercache` script."""
    _end_as_interrupted()
    # A build makes many small values that all stay: searching them for cycles every 700
    # allocations takes a tenth of a build that reuses everything.
    gc.set_threshold(50_000)
    status = main()
    if threading.active_count() > 1 or "concurrent.futures.thread" in sys.modules:
        sys.exit(status)  # the normal exit waits for them
    # Shutting down the interpreter takes as long as deciding a build, so exit directly.
    atexit._run_exitfuncs()  # noqa: SLF001 - nothing public does it
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        sys.exit(status)  # the normal exit meets the error again and reports it
    os._exit(status)
