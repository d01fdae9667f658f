"""The testing kit: unit tests of cache behaviour that run nothing, and suites for plug-ins.

Imports everything but `cli`; no other package imports it. Start at `layers` (tests of a recipe;
`pytest_plugin` provides it as a fixture), then at the suite of your plug point: `execution`,
`instructions`, `keys`, `walks`, `storage`. `executors`, `commands` and `base_images` run in memory,
`oracle` builds without a cache, `laws` compares edit histories with it, `wrong` holds
implementations that the suites must reject.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.testing.base_images import MemoryImage, MemoryImages
    from layercache.testing.clocks import VirtualClock
    from layercache.testing.commands import MemoryShell
    from layercache.testing.execution import ExecutorSuite, GuardedTree
    from layercache.testing.executors import (
        Call,
        CountingExecutor,
        FailingExecutor,
        MemoryExecutor,
        ScriptedExecutor,
        SlowExecutor,
        UnstableExecutor,
        command_text,
    )
    from layercache.testing.faults import FAULTS, CountingBackend, FaultyBackend, SloppyBackend
    from layercache.testing.images import MadeImage, busybox_layer, make_layout, tar_of
    from layercache.testing.instructions import InstructionSuite
    from layercache.testing.keys import KeyStrategySuite
    from layercache.testing.laws import LawBroken, check_history
    from layercache.testing.layers import Build, Layers
    from layercache.testing.observing import RecordingObserver, RecordingWalker
    from layercache.testing.storage import BackendSuite, StoreSuite, make_record
    from layercache.testing.walks import WalkerSuite

__all__ = [
    "FAULTS",
    "BackendSuite",
    "Build",
    "Call",
    "CountingBackend",
    "CountingExecutor",
    "ExecutorSuite",
    "FailingExecutor",
    "FaultyBackend",
    "GuardedTree",
    "InstructionSuite",
    "KeyStrategySuite",
    "LawBroken",
    "Layers",
    "MadeImage",
    "MemoryExecutor",
    "MemoryImage",
    "MemoryImages",
    "MemoryShell",
    "RecordingObserver",
    "RecordingWalker",
    "ScriptedExecutor",
    "SloppyBackend",
    "SlowExecutor",
    "StoreSuite",
    "UnstableExecutor",
    "VirtualClock",
    "WalkerSuite",
    "busybox_layer",
    "check_history",
    "command_text",
    "make_layout",
    "make_record",
    "tar_of",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "base_images": "MemoryImage MemoryImages",
            "clocks": "VirtualClock",
            "commands": "MemoryShell",
            "execution": "ExecutorSuite GuardedTree",
            "executors": (
                "Call CountingExecutor FailingExecutor MemoryExecutor ScriptedExecutor "
                "SlowExecutor UnstableExecutor command_text"
            ),
            "faults": "FAULTS CountingBackend FaultyBackend SloppyBackend",
            "images": "MadeImage busybox_layer make_layout tar_of",
            "instructions": "InstructionSuite",
            "keys": "KeyStrategySuite",
            "laws": "LawBroken check_history",
            "layers": "Build Layers",
            "observing": "RecordingObserver RecordingWalker",
            "storage": "BackendSuite StoreSuite make_record",
            "walks": "WalkerSuite",
        },
    )
