"""Platforms: `os/architecture[/variant]`, their usual spellings, and their compatibility.

The order of preference is that of `containerd/platforms` (`Only`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from layercache._base.classes import frozen
from layercache._base.regex import expression
from layercache.errors import UsageError

__all__ = ["Platform", "host_platform"]

_WORD = expression(r"[a-z0-9_.-]+", re.ASCII)
_VERSIONED = expression(r"v?(\d{1,2})(?:\.(\d))?", re.ASCII)

# What a single word may be (Go's names, `go tool dist list`).
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd",
    "openbsd", "plan9", "solaris", "wasip1", "windows", "zos",
})  # fmt: skip
_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
})  # fmt: skip


@frozen
class Platform:
    """Operating system, CPU architecture and variant, in the spelling of OCI (Go)."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`linux/arm64/v8`, `linux/amd64`, `arm64`; raises `UsageError`."""
        parts = text.strip().lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(_WORD.fullmatch(part) for part in parts):
            raise UsageError(f"not a platform: {text!r} (expected OS/ARCHITECTURE[/VARIANT])")
        if len(parts) == 1:
            if parts[0] in _SYSTEMS:
                return cls(parts[0], host_platform().architecture, host_platform().variant)
            if cls("linux", parts[0]).normalized().architecture not in _ARCHITECTURES:
                raise UsageError(f"not a platform: {text!r} names no system or architecture")
            parts = ["linux", parts[0]]
        return cls(*parts).normalized()

    @classmethod
    def from_oci(cls, value: Mapping[str, Any]) -> Platform | None:
        """The platform in a descriptor or an image configuration; None if it has none."""
        os, architecture = value.get("os"), value.get("architecture")
        variant = value.get("variant") or ""
        if not isinstance(os, str) or not isinstance(architecture, str) or not os:
            return None
        return cls(os, architecture, variant if isinstance(variant, str) else "").normalized()

    def normalized(self) -> Platform:
        """The canonical spelling: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`."""
        os, arch, variant = self.os.lower(), self.architecture.lower(), self.variant.lower()
        if os == "macos":
            os = "darwin"
        if arch in {"i386", "i486", "i586", "i686", "386"}:
            arch, variant = "386", ""
        elif arch in {"x86_64", "x86-64", "amd64"}:
            arch, variant = "amd64", "" if variant == "v1" else variant
        elif arch in {"aarch64", "arm64"}:
            arch, variant = "arm64", "" if variant in {"8", "v8"} else variant
        elif arch in {"armhf", "armv7l"}:
            arch, variant = "arm", "v7"
        elif arch in {"armel", "armv6l"}:
            arch, variant = "arm", "v6"
        elif arch == "arm":
            variant = "v" + (variant.removeprefix("v") or "7")
        return Platform(os, arch, variant)

    def rank(self, offered: Platform) -> int | None:
        """How well an image for `offered` serves this platform: 0 is best, None means not at
        all.
        """
        wanted, offered = self.normalized(), offered.normalized()
        if wanted.os != offered.os:
            return None
        for number, (arch, variant) in enumerate(wanted._served_by()):
            if (arch, variant) == (offered.architecture, offered.variant):
                return number
        return None

    def may_run(self, config: Mapping[str, Any]) -> bool:
        """Whether an image with this configuration serves this platform.

        Many configurations name no variant although their index does; the variant is then ignored.
        """
        offered = Platform.from_oci(config)
        if offered is None or self.rank(offered) is not None:
            return True
        known = {arch for arch, _ in self.normalized()._served_by()}
        alike = self.os == offered.os and offered.architecture in known
        return alike and not config.get("variant")

    def _served_by(self) -> list[tuple[str, str]]:
        """Architectures and variants that run here, the best first."""
        arch, variant = self.architecture, self.variant
        found = [(arch, variant)]
        version = _VERSIONED.fullmatch(variant)
        if arch == "amd64":
            if version:
                found += [(arch, f"v{n}") for n in range(int(version[1]) - 1, 1, -1)]
            if variant:
                found.append((arch, ""))
            found.append(("386", ""))
        elif arch == "arm" and version:
            found += [(arch, f"v{n}") for n in range(int(version[1]) - 1, 4, -1)]
        elif arch == "arm64":
            major, minor = (int(version[1]), int(version[2] or 0)) if version else (8, 0)
            if major == 9:
                found += [(arch, f"v9.{n}") for n in range(minor - 1, 0, -1)]
                found += [(arch, "v9")] if minor else []
                major, minor = 8, minor + 6
            found += [(arch, f"v8.{n}") for n in range(minor - 1, 0, -1)]
            if variant:
                found.append((arch, ""))
            found += [("arm", f"v{n}") for n in (8, 7, 6, 5)]
        return found

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def host_platform() -> Platform:
    """The platform of this machine's kernel, for which Linux images are selected."""
    import os

    return Platform("linux", os.uname().machine).normalized()
