"""The four kinds of small objects of a store: trails, facts, derived objects and references."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layercache.errors import CacheError, CorruptObject
from layercache.model.digests import Fingerprint
from layercache.store.codec import pack, unpack
from layercache.store.sealed_objects import SealedObjects, segment
from layercache.store.trails import Trail, decode_trail, encode_trail

__all__ = ["Derived", "Facts", "References", "Trails"]


class Trails:
    """Trails by target (`layercache.store.parts.TrailStore`)."""

    def __init__(self, objects: SealedObjects) -> None:
        self._objects = objects
        self._prefix = f"{objects.prefix}trails/"

    def name(self, target: str) -> str:
        """The object name of the trail of `target`."""
        return self._prefix + target

    def get(self, target: str) -> Trail | None:
        """The prediction for `target`; None if it is missing or does not verify."""
        name = self.name(target)
        data = self._objects.read(name)
        if data is None:
            return None
        try:
            return decode_trail(target, data, self._objects.verifier)
        except CorruptObject as error:
            self._objects.events.damaged(name, error)
            return None

    def all(self) -> list[Trail]:
        """Every trail that verifies. Costs a request for each where the backend is remote."""
        infos = self._objects.medium.list(self._prefix)
        names = [info.name.removeprefix(self._prefix) for info in infos]
        return [trail for name in sorted(names) if (trail := self.get(name)) is not None]

    def prefetch(
        self,
        names: Sequence[str],
        beginnings: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Do nothing: everything is here."""

    def put(self, trail: Trail) -> None:
        """Store `trail`; if it equals the stored one, only its stamp is renewed."""
        name = self.name(trail.target)
        data = encode_trail(trail, self._objects.verifier)
        if self._objects.read(name) == data:
            self.renew(trail.target)
        else:
            self._objects.write(name, data)

    def renew(self, target: str) -> None:
        """A build came out as its trail says: it is the last one by its stamp, where that can be
        renewed without writing. Retention goes by that, nothing else."""
        touches = self._objects.touches
        if touches is not None:
            try:
                touches.touch([self.name(target)])
            except CacheError:
                pass  # a cache that can't be written is read as it is


class Facts:
    """Fingerprints of selections (`layercache.store.parts.FactStore`)."""

    def __init__(self, objects: SealedObjects) -> None:
        self._objects = objects

    def get(self, subject: str, selector: str) -> Fingerprint | None:
        """The fingerprint of the selector with this digest on the state with this chain ID."""
        name = self._name(subject, selector)
        payload = self._objects.unsealed("fact", name, subject + " " + selector)
        return None if payload is None else Fingerprint(payload.decode("ascii", "replace"))

    def believes(self, subject: str, selector: str) -> bool:
        """False: what is here was seen here."""
        return False

    def put(self, subject: str, selector: str, fingerprint: Fingerprint) -> None:
        """Keep a selection fact."""
        data = self._objects.sealed("fact", subject + " " + selector, fingerprint.encode())
        self._objects.put(self._name(subject, selector), data)

    def _name(self, subject: str, selector: str) -> str:
        subject = subject.removeprefix("sha256:") or "scratch"
        return f"{self._objects.prefix}facts/{subject[:2]}/{subject}-{selector}"


class Derived:
    """Objects stored to avoid computing them again (`layercache.store.parts.DerivedStore`)."""

    def __init__(self, objects: SealedObjects) -> None:
        self._objects = objects

    def get(self, kind: str, name: str) -> bytes | None:
        """A derived object; None if it is missing or does not verify."""
        return self._objects.unsealed("derived", self._name(kind, name), kind + " " + name)

    def get_kinds(self, kinds: Sequence[str], name: str) -> dict[str, bytes]:
        """As `get` for several kinds at once; raises `CacheError`."""
        stored = {kind: self._name(kind, name) for kind in kinds}
        data = self._objects.read_many(list(stored.values()))
        opened = {
            kind: self._objects.opened("derived", at, kind + " " + name, data[at])
            for kind, at in stored.items()
            if at in data
        }
        return {kind: payload for kind, payload in opened.items() if payload is not None}

    def put(self, kind: str, name: str, payload: bytes) -> None:
        """Keep a derived object; `kind` is a word, `name` what it was computed from."""
        self._objects.put(*self.encoded(kind, name, payload))

    def encoded(self, kind: str, name: str, payload: bytes) -> tuple[str, bytes]:
        """What `put` writes, by name and bytes."""
        sealed = self._objects.sealed("derived", kind + " " + name, payload)
        return self._name(kind, name), sealed

    def get_beginning(self, names: Sequence[str]) -> str | None:
        """The target whose trail begins as the first of these names says that one has; raises
        `CacheError`."""
        kept = {self._name("beginnings", name): name for name in names}
        found = self._objects.read_many(list(kept)) if kept else {}
        for stored, name in kept.items():
            if stored in found:
                bound = "beginnings " + name
                target = self._objects.opened("derived", stored, bound, found[stored])
                if target is not None and target.isascii():
                    return target.decode("ascii")
                if target is not None:
                    error = CorruptObject("the name of a target is not ASCII text")
                    self._objects.events.damaged(stored, error)
        return None

    def beginning(self, name: str, target: str) -> tuple[str, bytes]:
        """The object, by name and bytes, that says that the trail of `target` begins so."""
        return self.encoded("beginnings", name, target.encode())

    def _name(self, kind: str, name: str) -> str:
        return f"{self._objects.prefix}{kind}/{name.replace(':', '-')}"


class References:
    """Named payloads, the roots that retention starts from: tags of images."""

    def __init__(self, objects: SealedObjects) -> None:
        self._objects = objects
        self._prefix = f"{objects.prefix}refs/"

    def name(self, name: str) -> str:
        """The object name of the reference `name`."""
        return self._prefix + segment(name)

    def all(self) -> dict[str, bytes]:
        """All references by name."""
        names = [info.name for info in self._objects.medium.list(self._prefix)]
        names += self._objects.staged(self._prefix)
        found = [self._read(name) for name in dict.fromkeys(names)]
        return dict(sorted(one for one in found if one is not None))

    def get(self, name: str) -> bytes | None:
        """The payload of the reference `name`."""
        found = self._read(self.name(name))
        return found[1] if found is not None and found[0] == name else None

    def put(self, name: str, payload: bytes) -> None:
        """Set the reference `name` to `payload`; acknowledged by `commit`.

        Raises `CacheError` if the backend does not accept it: the previous reference then stays.
        """
        objects, stored = self._objects, self.name(name)
        data = objects.sealed("reference", self._bound(stored), pack((name, payload)))
        if objects.read(stored) != data and not objects.write(stored, data, staged=True):
            raise CacheError(f"{name} can't be written in the cache {objects.backend!r}")

    def delete(self, name: str) -> bool:
        """Remove `name`; returns whether it existed. Raises `CacheError` on failure."""
        there = self.get(name) is not None
        self._objects.delete(self.name(name))
        return there

    def _bound(self, stored: str) -> str:
        return stored.removeprefix(self._objects.prefix)

    def _read(self, stored: str) -> tuple[str, bytes] | None:
        payload = self._objects.unsealed("reference", stored, self._bound(stored))
        if payload is None:
            return None
        try:
            return _reference(payload)
        except CorruptObject as error:
            self._objects.events.damaged(stored, error)
            return None


def _reference(payload: bytes) -> tuple[str, bytes]:
    value = unpack(payload)
    if type(value) is not tuple or [type(item) for item in value] != [str, bytes]:
        raise CorruptObject("a reference is malformed")
    return value
