"""Hot values: meta values read lately, by user key, so that they cost no look into RocksDB.

Rules:
- What is here is what a read would find: every write of a key drops it. Whatever changes many keys at once (an activation, a rollback, rows
  of an upsert) puts them in doubt: everything grows old by that, and a doubted key is not taken from the older generation. So other keys
  stay, nobody walks over all, and the readers beside a load do not go to the database for all that was hot. Where changes follow each
  other so fast that little was read between them, the older generation stays, with both doubts.
- Two generations: what is found in the older one moves to the younger one. Who needs room takes it from the older one, entry by entry, and
  when that is empty, the younger one takes its place. So what fits stays, what is read again outlives what is not, and nothing is ordered
  per read.
- While there is room, all that is read is kept; later one fetch in ADMITTED_OF, by chance. What is asked for often comes by again soon, and
  to keep what is not costs a read twice: its place, and the value that was there. Where next to nothing is asked for again, as in a walk
  over all keys, one in SPARINGLY_OF is enough to notice that this has changed.
- What goes as a whole is taken apart with later insertions, a few entries each: dropping a generation at once would hold the event loop.
- Values of a version that is about to be activated are prepared beside both, where no read sees them, and are the younger generation from
  the turn on in which all others of the dataset are in doubt. They have their room already, so that turn frees none.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from random import random

ABSENT = b""
"""What stands for a key that is not there: shorter than any meta value."""

ENTRY_OVERHEAD_BYTES = 200  # of two dictionary slots and two bytes objects of CPython, about
VALUE_BYTES_MAX = 16 << 10  # one larger value would push out hundreds of hot ones
DOUBTS_MAX = 8  # about the older generation: each look into it asks all of them
JOINED_KEYS_MAX = 1_000  # of the younger generation that go over into the older one at once: some 50 us
PREPARED_SHARE = 8  # one byte in so many: they push out others' hot values, before anybody has asked for them
ADMITTED_OF = 2  # from 4 on, what is newly asked for waits too long: under Zipf, fewer hits for the next 500,000 reads
SPARINGLY_OF = 32
HITS_WORTH_OF = 8  # a hit in so many reads, or to keep values costs more than they save
FETCHES_PER_LOOK = 10_000
DISMANTLED_PER_PUT = 4  # what was dropped is gone long before as much is remembered anew


class HotCache:
    """`young` is looked into by the engine itself, on the hottest path there is; everything else goes through the methods.

    Affects speed alone: `bytes_max`, what all that is kept takes together; 0 keeps nothing.
    """

    __slots__ = (
        "_admitted_of",
        "_bytes_max",
        "_dismantled",
        "_doubts",
        "_looked",
        "_old",
        "_old_bytes",
        "_prepared",
        "_prepared_bytes",
        "_young_bytes",
        "young",
    )

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.young: dict[bytes, bytes] = {}
        self._young_bytes = 0
        self._old: dict[bytes, bytes] = {}  # a key that is in both is read from the younger one
        self._old_bytes = 0
        self._doubts: list[Callable[[bytes], bool]] = []
        self._dismantled: list[dict[bytes, bytes]] = []
        self._prepared: dict[bytes, bytes] = {}
        self._prepared_bytes = 0
        self._admitted_of = ADMITTED_OF
        self._looked = 0, 0  # reads and fetches at the last look

    def __contains__(self, key: bytes) -> bool:
        return key in self.young or (key in self._old and not self._is_doubted(key))

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def recall(self, found: list[bytes | None], keys: list[bytes]) -> list[int]:
        """Where `found`, what the younger generation has of the keys, has None: put what the older one has; the places that stay None."""
        old = self._old
        places = [place for place, raw in enumerate(found) if raw is None]
        recalled = [place for place in places if keys[place] in old]
        if not recalled:
            return places
        for place in recalled:
            key = keys[place]
            raw = self.from_old(key)  # None if it is doubted, or came before among these keys
            found[place] = self.young.get(key) if raw is None else raw
        return [place for place in places if found[place] is None]

    def from_old(self, key: bytes) -> bytes | None:
        """What the older generation has of a key that the younger one lacks; it is young again. None if neither knows."""
        raw = self._old.pop(key, None)
        if raw is None:
            return None
        entry_bytes = _bytes_of(key, raw)
        self._old_bytes -= entry_bytes
        if self._doubts and self._is_doubted(key):
            return None
        self.young[key] = raw
        self._young_bytes += entry_bytes
        return raw

    def put(self, key: bytes, raw: bytes) -> bool:
        """Remember a value, or ABSENT; whether it was not too large."""
        self.drop(key)
        entry_bytes = _bytes_of(key, raw)
        if len(raw) > VALUE_BYTES_MAX or not self._make_room(entry_bytes):
            return False
        self.young[key] = raw
        self._young_bytes += entry_bytes
        if self._dismantled:
            self._dismantle()
        return True

    def admits(self, reads: int, fetches: int) -> bool:
        """Whether what was just read from a database is to be put here; so many `fetches` of all `reads` since the start were."""
        if fetches - self._looked[1] >= FETCHES_PER_LOOK:
            asked, fetched = reads - self._looked[0], fetches - self._looked[1]
            self._admitted_of = ADMITTED_OF if (asked - fetched) * HITS_WORTH_OF >= asked else SPARINGLY_OF
            self._looked = reads, fetches
        bytes_used = self._young_bytes + self._old_bytes + self._prepared_bytes
        return bytes_used + VALUE_BYTES_MAX < self._bytes_max or bool(self._doubts) or random() * self._admitted_of < 1

    def drop(self, key: bytes) -> None:
        """Forget one key."""
        raw = self.young.pop(key, None)
        if raw is not None:
            self._young_bytes -= _bytes_of(key, raw)
        raw = self._old.pop(key, None)
        if raw is not None:
            self._old_bytes -= _bytes_of(key, raw)

    def doubt(self, doubted: Callable[[bytes], bool]) -> None:
        """Forget the keys that `doubted` is true of, each when it is looked for."""
        if len(self.young) > min(len(self._old) // 4, JOINED_KEYS_MAX) or len(self._doubts) >= DOUBTS_MAX:
            self._dismantled.append(self._old)
            self._age()
        else:
            for key in self.young.keys() & self._old.keys():
                self._old_bytes -= _bytes_of(key, self._old[key])
            self._old.update(self.young)
            self._old_bytes += self._young_bytes
            self.young, self._young_bytes = {}, 0
        self._doubts.append(doubted)

    def hot_keys(self, keys_max: int) -> list[bytes]:
        """Some of the keys, those that were asked for often before others, as far as one can tell. One may come twice."""
        return list(islice(chain(self.young, self._old), keys_max))  # what is read often came to its generation first

    def prepare(self, key: bytes, raw: bytes) -> bool:
        """Have the value ready that a key will have after `renew`, if it is not too large; whether there is room for more."""
        if len(raw) > VALUE_BYTES_MAX or key in self._prepared:
            return True
        entry_bytes = _bytes_of(key, raw)
        if (self._prepared_bytes + entry_bytes) * PREPARED_SHARE > self._bytes_max or not self._make_room(entry_bytes):
            return False
        self._prepared[key] = raw
        self._prepared_bytes += entry_bytes
        if self._dismantled:
            self._dismantle()
        return True

    def renew(self) -> None:
        """What was prepared is what a read would find, from this turn on. Comes right after `doubt`, which leaves no young keys."""
        self.young, self._young_bytes = self._prepared, self._prepared_bytes
        self._prepared, self._prepared_bytes = {}, 0

    def forget_prepared(self) -> None:
        """There is no need for it any more."""
        if self._prepared:
            self._dismantled.append(self._prepared)
            self._prepared, self._prepared_bytes = {}, 0

    def clear(self) -> None:
        """Forget all that is read."""
        self._dismantled += (self._old, self.young)
        self.young, self._young_bytes = {}, 0
        self._age()

    def _age(self) -> None:
        """The younger generation takes the older one's place."""
        self._old, self._old_bytes, self._doubts = self.young, self._young_bytes, []
        self.young, self._young_bytes = {}, 0

    def _make_room(self, entry_bytes: int) -> bool:
        room_bytes = self._bytes_max - self._prepared_bytes - entry_bytes
        if room_bytes < 0:
            return False
        while self._young_bytes + self._old_bytes > room_bytes:
            if not self._old:
                self._age()
            key, raw = self._old.popitem()  # the last that came: what is read often came back to its generation first
            self._old_bytes -= _bytes_of(key, raw)
        return True

    def _is_doubted(self, key: bytes) -> bool:
        return any(doubted(key) for doubted in self._doubts)

    def _dismantle(self) -> None:
        going = self._dismantled[-1]
        for _ in range(min(DISMANTLED_PER_PUT, len(going))):
            going.popitem()
        if not going:
            self._dismantled.pop()


def _bytes_of(key: bytes, raw: bytes) -> int:
    return len(key) + len(raw) + ENTRY_OVERHEAD_BYTES
