"""All inputs of a build, as trees: contexts, states of the store, fetched sources.

One object per build; each subject is opened once. Safe for threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

from layercache.errors import CorruptObject, NotFound, SourceError
from layercache.model.descriptors import MAX_UNPACKED_SIZE, Layer, State
from layercache.model.digests import ChainID, Digest, Fingerprint, sha256
from layercache.model.framing import frame
from layercache.model.instruction import Source, Value
from layercache.model.selectors import Everything, Files, Observed, Selector
from layercache.model.sources import ContextSource, UrlSource
from layercache.model.tree import Closes, Tree
from layercache.store.codec import pack, unpack
from layercache.trees.listing import Selects
from layercache.trees.selection import fingerprint

if TYPE_CHECKING:
    from layercache._os.allowance import UnpackAllowance
    from layercache.inputs.observed import Values
    from layercache.layers.state_tree import StateTree
    from layercache.model.layer_index import LayerIndex
    from layercache.model.observations import Observations
    from layercache.store.parts import Cache
    from layercache.store.selectors_seen import KnownSelectors

__all__ = ["Inputs", "selector_digest"]

_RULES = "2"
"""Version of the rules for accounts; facts derived by other rules are not reused."""


def _index_name(layer: Layer) -> str:
    """What the index is named by: the bytes of which it was made, where there are some.

    So what somebody else says of a layer's archive is compared with that archive.
    """
    return layer.diff_id or layer.tree


@runtime_checkable
class OneFile(Protocol):
    """Optional: a tree that is one fetched file, with the digest of its bytes."""

    @property
    def blob(self) -> Digest: ...


def selector_digest(selector: Selector) -> str:
    """A stable name for a selector: hex BLAKE3 of everything that determines its selection.

    For `Files` this is more than its definition, which leaves out the directories of patterns: for
    two files with one name, a key counts only the content, but here they must be distinguished.
    """
    import attrs
    from blake3 import blake3

    value: Value = tuple((field.label, field.value) for field in selector.definition())
    if isinstance(selector, Files):
        value = (value, attrs.astuple(selector, recurse=False))
    context = "layercache 2026-11 selector name 2, selection digest 1, order 1"
    if isinstance(selector, Files) and not selector.named:
        context = "layercache 2026-11 selector name 2, mount digest 1, order 1"
    return blake3(frame(value), derive_key_context=context).hexdigest()


class Inputs:
    """The trees behind the subjects of one build.

    `contexts` makes the tree of a context on first use; `remote` the tree of any other source
    (by default those that `layercache.inputs.fetch` supports);
    `fetch` brings the bytes of a base image's layer into the store (True if it could).
    `max_unpacked_size` bounds the bytes that are unpacked and fetched.
    `write`: store derived facts (facts about states, indexes) for later builds.
    """

    def __init__(
        self,
        store: Cache,
        contexts: Mapping[str, Callable[[], Tree]],
        remote: Callable[[Source], Tree] | None = None,
        fetch: Callable[[Layer], bool] | None = None,
        *,
        write: bool = True,
        max_unpacked_size: int = MAX_UNPACKED_SIZE,
    ) -> None:
        self._store = store
        self._max_unpacked_size = max_unpacked_size
        self._allowance: UnpackAllowance | None = None
        self._contexts = contexts
        self._remote = remote
        self._fetch = fetch
        self._write = write
        self._lock = threading.RLock()
        self._sources: dict[Source, Tree] = {}
        self._given: dict[Source, State] = {}
        self._states: dict[ChainID, StateTree] = {}
        self._indexes: dict[str, LayerIndex] = {}
        self._layers: dict[Digest, Layer] = {}

    @functools.cached_property
    def known(self) -> KnownSelectors:
        """What the store knows of steps without their parent."""
        from layercache.store.selectors_seen import KnownSelectors

        return KnownSelectors(self._store.derived, self._store.blobs)

    @property
    def allowance(self) -> UnpackAllowance:
        """The bound on what the build unpacks and fetches; in another process one of its own."""
        if self._allowance is None:
            from layercache._os.allowance import UnpackAllowance

            with self._lock:
                self._allowance = self._allowance or UnpackAllowance(self._max_unpacked_size)
        return self._allowance

    def elsewhere(self, given: Mapping[Source, State]) -> Inputs:
        """The form of this object for another process: sources become states that hold the parts
        that are read, and base layers must be in the store. Can be pickled.
        """
        found = Inputs(self._store, {})
        found._given = dict(given)
        return found

    def __getstate__(self) -> dict[str, object]:
        return {"store": self._store, "given": self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], {})  # type: ignore[misc]
        self._given = state["given"]

    def fetch(self, state: State) -> None:
        """Store the layers of a base image for processes that can't fetch them."""
        for layer in state.layers:
            if self._fetch is not None and not self._store.blobs.has(layer.descriptor):
                self._fetch(layer)

    def tree(self, subject: State | Source) -> Tree:
        """The subject as a tree; raises `SourceError`, `NotFound` or `CorruptObject`."""
        if isinstance(subject, State):
            return self._state_tree(subject)
        if subject in self._given:
            return self._state_tree(self._given[subject])
        with self._lock:
            tree = self._sources.get(subject)
            if tree is None:
                tree = self._sources[subject] = self._open(subject)
            return tree

    def _open(self, source: Source) -> Tree:
        if isinstance(source, ContextSource):
            maker = self._contexts.get(source.context)
            if maker is None:
                named = f" named {source.context!r}" if source.context else ""
                raise SourceError(
                    f"the recipe reads a build context{named}, but none was given: "
                    "pass context=… (or CONTEXT on the command line)"
                )
            return maker()
        if self._remote is not None:
            return self._remote(source)
        from layercache.inputs.fetch import open_remote

        return open_remote(source, self._store, allowance=self.allowance)

    def fingerprint(self, subject: State | Source, selector: Selector) -> Fingerprint:
        """The fingerprint of the part of `subject` that `selector` picks; facts about states are
        stored.
        """
        if isinstance(subject, State):
            name = selector_digest(selector)
            known = self._store.facts.get(subject.chain_id, name)
            if known is not None:
                return known
            found = self._fingerprint(subject, selector)
            if self._write:
                self._store.facts.put(subject.chain_id, name, found)
            return found
        return self._fingerprint(subject, selector)

    def proves(self, subject: State | Source, selector: Selector, found: Fingerprint) -> bool:
        """Whether `selector` picks `found` from `subject`, checked here if only a remote cache
        claimed it. Called before a result is stored under a key made of it.

        Raises `SourceError`, `NotFound` or `CorruptObject`.
        """
        if not isinstance(subject, State):
            return True
        name = selector_digest(selector)
        if not self._store.facts.believes(subject.chain_id, name):
            return True
        seen = self._fingerprint(subject, selector)
        self._store.facts.put(subject.chain_id, name, seen)
        return seen == found

    def _fingerprint(self, subject: State | Source, selector: Selector) -> Fingerprint:
        if isinstance(subject, UrlSource) and subject.checksum is not None:
            # The checksum identifies the file, so no request is made (observed rule 11.3).
            return Fingerprint(subject.checksum)
        if isinstance(selector, Observed):
            return self.values(subject, self.known.observations(selector)).fingerprint
        tree = self.tree(subject)
        if isinstance(subject, UrlSource) and isinstance(tree, OneFile):
            # As with a checksum: whoever adds one to a recipe pins what is there.
            return Fingerprint(tree.blob)
        if isinstance(selector, Everything):
            return Fingerprint(tree.digest(b"").hex())
        if not isinstance(selector, Files):
            raise SourceError(f"{subject} can't be read by the selector {selector.name!r}")
        if isinstance(subject, State):
            if not selector.named:
                from layercache.trees.mount_digest import mount_fingerprint

                return mount_fingerprint(tree, selector)
            from layercache.trees.order import ordered_fingerprint

            return ordered_fingerprint(tree, selector)
        if isinstance(tree, Selects):
            return tree.fingerprint(selector)
        return fingerprint(tree, selector)

    def values(self, subject: State | Source, observations: Observations) -> Values:
        """The values of the observations in `subject`; raises the errors of `tree`."""
        from layercache.inputs.observed import values_of

        return values_of(observations, self.tree(subject), self._derive)

    def _derive(self, kind: str, text: str, tree: Tree) -> Value:
        """See `layers.accounts_derive`; the result is stored, so that a machine without the layers
        need not fetch one to resolve a user.
        """
        from layercache.layers.accounts_derive import account_files, derive

        name = sha256(frame((_RULES, kind, text, *account_files(tree))))
        kept = self._store.derived.get("accounts", name)
        if kept is not None:
            try:
                found: Value = unpack(kept)
                return found
            except CorruptObject:
                pass  # made again, and replaced
        value = derive(kind, text, tree)
        if self._write:
            self._store.derived.put("accounts", name, pack(value))
        return value

    # -- states -----------------------------------------------------------------------------

    def _state_tree(self, state: State) -> StateTree:
        from layercache.layers.state_tree import StateTree

        with self._lock:
            tree = self._states.get(state.chain_id)
            if tree is None:
                layers = state.layers
                self._layers.update({layer.descriptor.digest: layer for layer in layers})
                tree = StateTree(
                    [self.index(layer) for layer in layers],
                    lambda number, offset, size: self._content(layers[number], offset, size),
                )
                self._states[state.chain_id] = tree
            return tree

    def forget_states(self) -> None:
        """Open states again after a layer's recorded blob turned out to be wrong. A state is
        identified by its content, so the correct layers give the same name.
        """
        with self._lock:
            self._states.clear()
            self._layers.clear()

    def _content(self, layer: Layer, offset: int, size: int) -> BinaryIO:
        try:
            return self._store.blobs.open_range(layer.descriptor, offset, size)
        except (NotFound, CorruptObject):
            if not self.heal(layer):
                raise
            return self._store.blobs.open_range(layer.descriptor, offset, size)

    def index(self, layer: Layer) -> LayerIndex:
        """The index of a layer, made from its bytes once and kept beside the store.

        Raises `CorruptObject` where it is not what identifies the layer.
        """
        name = _index_name(layer)
        with self._lock:
            index = self._indexes.get(name)
            if index is None:
                index = self._indexes[name] = self._known_index(layer, name)
        if layer.tree and index.tree != layer.tree:
            # Somebody recorded the archive of one layer for another.
            self._store.blobs.distrust(layer.descriptor.digest)
            raise CorruptObject(
                f"the layer {layer.tree} is recorded with the archive of another, {index.tree}"
            )
        return index

    def _known_index(self, layer: Layer, name: str) -> LayerIndex:
        from layercache.model.layer_index import LayerIndex

        kept = self._store.derived.get("index", name)
        if kept is not None:
            try:
                return LayerIndex.decode(kept)
            except CorruptObject:
                pass  # made again, and replaced
        index = self._read_index(layer)
        if self._write:
            self._store.derived.put("index", name, index.encode())
        return index

    def _read_index(self, layer: Layer) -> LayerIndex:
        """The index from the layer's bytes. Damaged bytes can look like a hostile archive, so they
        are verified before the archive is blamed.
        """
        from layercache.layers.reader import index_layer

        try:
            with self.blob(layer) as content:
                return index_layer(content)
        except (CorruptObject, SourceError) as error:
            if self._store.blobs.intact(layer.descriptor):
                raise
            if not self.heal(layer):
                raise CorruptObject(f"layer {layer.id} is damaged: {error}") from error
        with self.blob(layer) as content:
            return index_layer(content)

    def heal(self, layer: Layer) -> bool:
        """Fetch a layer again whose bytes are missing or damaged; False if only the step that made
        it can repair it, and for a plan, which fetches nothing.
        """
        return self._write and self._fetch is not None and self._fetch(layer)

    def blob(self, layer: Layer) -> BinaryIO:
        """The verified bytes of a layer, fetched first if it is a base image's."""
        try:
            return self._store.blobs.open(layer.descriptor.digest)
        except (NotFound, CorruptObject):
            if not self.heal(layer):
                raise
            return self._store.blobs.open(layer.descriptor.digest)

    def keep_index(self, layer: Layer, index: LayerIndex) -> None:
        """Store the index that was made while the layer was written."""
        with self._lock:
            name = _index_name(layer)
            if name not in self._indexes:
                self._indexes[name] = index
                self._store.derived.put("index", name, index.encode())

    def close(self) -> None:
        """Close the trees; a scanned context saves its knowledge for the next build."""
        with self._lock:
            for tree in self._sources.values():
                if isinstance(tree, Closes):
                    tree.close()
            self._sources.clear()

    def open(self, digest: Digest) -> BinaryIO:
        """The verified bytes of a blob; a missing layer of a base image is fetched again."""
        with self._lock:
            layer = self._layers.get(digest)
        return self._store.blobs.open(digest) if layer is None else self.blob(layer)
