"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell starts background jobs with interrupts ignored, and what they start inherits it: tests
# that interrupt a build would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
