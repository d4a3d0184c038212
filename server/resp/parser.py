"""Bytes in, commands out, for one client connection. No I/O.

Rules:
- Whatever the bytes are, nothing is raised: after bytes that break the protocol, `error` holds Redis' text and the parser stays silent.
- A command is a non-empty list of words. Empty lines, `*0` and `*-1` are no commands.
- `_Strict` is the authority on what is valid; it is Redis' own parser in behaviour, the two bytes after a bulk included, which nobody
  checks. It keeps the bytes of one unfinished command, and never searches a byte twice for the end of a line.
- Of a guarded connection, one that has not authenticated, each command is taken by itself, under Redis' limits for such; what comes behind
  it waits in the buffer until `more` is called, because the command may lift them.
- The fast path takes a chunk apart at its line ends with one `split`, and accepts a command only if header, lengths and words agree with
  their canonical spelling; a word that holds CR LF, an inline command or anything else that is odd makes them disagree. What it does not
  accept goes to `_Strict` from that command on, so both can't differ.

hiredis, made for replies, is not used: it takes status lines and sets for words and lists, allocates an array as large as a header says,
can't say whether it stands within an array, and with guards against all that it was no faster than `split` (1.2 µs against 2.9 µs for a
single GET, equal within noise from 16 commands on).
"""

from __future__ import annotations

from dataclasses import dataclass

from server.resp.inline import split_words

Command = list[bytes]

FAST_WORDS_MAX = 1_024  # longer commands and bulks go the strict way, where the parser is not what costs
FAST_BULK_BYTES_MAX = 8_192
ALIKE_LINES_MIN = 40  # of eight commands of two words: fewer are quicker taken one by one than by columns, and so are longer ones
ALIKE_WORDS_MAX = 4
INT64_DIGITS_MAX = 20
GUARDED_WORDS_MAX = 10  # Redis' limits for who has not authenticated
GUARDED_BULK_BYTES_MAX = 16_384

_HEADERS = {b"*%d" % count: 2 * count + 1 for count in range(1, FAST_WORDS_MAX + 1)}
_TWO_WORDS, _THREE_WORDS = 5, 7  # the lines of such a command
_LENGTHS = [b"$%d" % length for length in range(FAST_BULK_BYTES_MAX + 1)]
_length = _LENGTHS.__getitem__


@dataclass(slots=True)
class Limits:
    """What one client may send. Defaults are Redis' (proto-max-bulk-len, PROTO_INLINE_MAX_SIZE, client-query-buffer-limit).

    They may change while parsers use them. The fast path does not look at them: they make sense only above its own, smaller limits.
    """

    words_max: int = 1_048_576
    bulk_bytes_max: int = 512 << 20
    line_bytes_max: int = 64 << 10
    command_bytes_max: int = 1 << 30


class Parser:
    """The parser of one connection: call `feed` with every chunk, then look at `error`, the protocol error that ended its input, in Redis'
    words.
    """

    def __init__(self, limits: Limits | None = None, *, guarded: bool = False) -> None:
        self._strict = _Strict(limits or Limits())
        self._strict.guarded = guarded
        self._quick = not guarded  # the next chunk may go the fast way
        self.error: str | None = None

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished command are kept."""
        return self._strict.pending_bytes

    def feed(self, chunk: bytes) -> list[Command]:
        """The commands that `chunk` completes, in order."""
        if self._quick:
            return self._fast(chunk)
        strict = self._strict
        if strict.error is not None:
            return []
        strict.append(chunk)
        command = strict.next_command()
        commands = [] if command is None else [command]
        if commands and not strict.guarded:
            commands += self._fast(strict.take_rest())
        self._settle()
        return commands

    def guard(self, *, on: bool) -> None:
        """Whether the client has still to authenticate."""
        self._strict.guarded = on
        self._settle()

    def more(self) -> list[Command]:
        """What waits behind the last command of a guarded connection: the next one, or, once it is released, all."""
        strict = self._strict
        if strict.guarded:
            command = strict.next_command()
            commands = [] if command is None else [command]
        else:
            commands = strict.drain(b"")
        self._settle()
        return commands

    def _settle(self) -> None:
        strict = self._strict
        self.error = strict.error
        self._quick = strict.error is None and not strict.pending and not strict.guarded

    def _fast(self, chunk: bytes) -> list[Command]:
        lines = chunk.split(b"\r\n")
        end = len(lines) - 1
        commands = []
        at = 0
        try:
            if end == _TWO_WORDS and lines[0] == b"*2" and not lines[end]:  # a read of one key, alone: as below, without the lists
                _, name_length, name, key_length, key, _ = lines
                if name_length == _LENGTHS[len(name)] and key_length == _LENGTHS[len(key)]:
                    return [[name, key]]
            elif end == _THREE_WORDS and lines[0] == b"*3" and not lines[end]:  # and a write
                _, name_length, name, key_length, key, value_length, value, _ = lines
                if name_length == _LENGTHS[len(name)] and key_length == _LENGTHS[len(key)] and value_length == _LENGTHS[len(value)]:
                    return [[name, key, value]]
            if end >= ALIKE_LINES_MIN and (alike := _alike(lines, end)) is not None:
                return alike
            while at < end:
                after = at + _HEADERS[lines[at]]
                words = lines[at + 2 : after : 2]
                if after > end or lines[at + 1 : after : 2] != [_LENGTHS[len(word)] for word in words]:
                    break
                commands.append(words)
                at = after
        except (KeyError, IndexError):
            pass  # not canonical, or beyond the fast path's limits: the strict parser decides
        if at < end or lines[end]:
            commands += self._strict.drain(b"\r\n".join(lines[at:]) if at else chunk)
            self._settle()
        return commands


def _alike(lines: list[bytes], end: int) -> list[Command] | None:
    """The commands of `end` lines, and no rest, if they are many of as few words as the first one, as in most pipelines; None if they are
    not, or not as the fast path wants them. It takes them by columns, without a turn for each.
    """
    header = lines[0]
    height = _HEADERS.get(header, 0)
    if not 0 < height <= 2 * ALIKE_WORDS_MAX + 1 or lines[end] or lines[:end:height].count(header) * height != end:
        return None
    columns = [lines[at:end:height] for at in range(2, height, 2)]
    try:
        for place, words in enumerate(columns):
            if lines[2 * place + 1 : end : height] != list(map(_length, map(len, words))):
                return None
    except IndexError:  # a word is longer
        return None
    return list(map(list, zip(*columns, strict=True)))


class _Strict:
    def __init__(self, limits: Limits) -> None:
        self.error: str | None = None
        self.guarded = False
        self._limits = limits
        self._buffer = bytearray()
        self._at = 0  # everything before is parsed
        self._searched = 0  # no line end between _at and here
        self._words: Command = []
        self._words_left = 0
        self._bulk_bytes = -1  # length of the bulk that comes next; -1 while its header is not read
        self._command_bytes = 0

    @property
    def pending(self) -> bool:
        return self._words_left > 0 or self._at < len(self._buffer)

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer) - self._at + self._command_bytes

    def append(self, chunk: bytes) -> None:
        if self._at:
            del self._buffer[: self._at]
            self._searched = max(0, self._searched - self._at)
            self._at = 0
        self._buffer += chunk

    def take_rest(self) -> bytes:
        rest = bytes(memoryview(self._buffer)[self._at :])
        self._buffer = bytearray()
        self._at = self._searched = 0
        return rest

    def drain(self, chunk: bytes) -> list[Command]:
        self.append(chunk)
        commands = []
        while (command := self.next_command()) is not None:
            commands.append(command)
        if self._at == len(self._buffer):
            self.take_rest()
        return commands

    def next_command(self) -> Command | None:
        """The next whole command; None if more bytes are needed, or `error` is set."""
        while self.error is None:
            if self._words_left:
                if not self._read_words():
                    return None
                words, self._words, self._command_bytes = self._words, [], 0
                return words
            if self._at >= len(self._buffer):
                return None
            if self._buffer[self._at] == ord("*"):
                if not self._read_header():
                    return None
            else:
                line = self._inline_line()
                if line is None:
                    return None
                inline = split_words(line)
                if inline is None:
                    self.error = "unbalanced quotes in request"
                elif inline:
                    return inline
        return None

    def _read_header(self) -> bool:
        line = self._line("too big mbulk count string")
        if line is None:
            return False
        count = _integer(line)
        if count is None or count > self._limits.words_max:
            self.error = "invalid multibulk length"
            return False
        if self.guarded and count > GUARDED_WORDS_MAX:
            self.error = "unauthenticated multibulk length"
            return False
        self._words_left = max(count, 0)
        return True

    def _read_words(self) -> bool:
        while self._words_left:
            if self._bulk_bytes < 0 and not self._read_length():
                return False
            end = self._at + self._bulk_bytes
            if len(self._buffer) < end + 2:
                return False
            self._words.append(bytes(memoryview(self._buffer)[self._at : end]))
            self._command_bytes += self._bulk_bytes
            self._at = self._searched = end + 2
            self._bulk_bytes = -1
            self._words_left -= 1
        return True

    def _read_length(self) -> bool:
        first = self._at
        line = self._line("too big bulk count string", first_byte=b"$")
        if line is None:
            return False
        length = _integer(line)
        if length is None or not 0 <= length <= self._limits.bulk_bytes_max:
            self.error = "invalid bulk length"
            return False
        if self.guarded and length > GUARDED_BULK_BYTES_MAX:
            self.error = "unauthenticated bulk length"
            return False
        if self._command_bytes + length > self._limits.command_bytes_max:
            self.error = "too big request"
            return False
        self._command_bytes += self._at - first
        self._bulk_bytes = length
        return True

    def _line(self, too_long: str, first_byte: bytes = b"*") -> bytes | None:
        """The line at `_at` without its first byte, up to CR; skips CR and whatever follows it, as Redis does."""
        end = self._find(b"\r")
        if (len(self._buffer) if end < 0 else end) - self._at > self._limits.line_bytes_max:
            self.error = too_long
            return None
        if end < 0 or end + 2 > len(self._buffer):
            return None
        found = self._buffer[self._at : self._at + 1]
        if found != first_byte:
            self.error = f"expected '$', got '{found.decode(errors='surrogateescape')}'"
            return None
        line = bytes(memoryview(self._buffer)[self._at + 1 : end])
        self._at = self._searched = end + 2
        return line

    def _inline_line(self) -> bytes | None:
        end = self._find(b"\n")
        length = (len(self._buffer) if end < 0 else end) - self._at
        if length > self._limits.line_bytes_max:
            self.error = "too big inline request"
            return None
        if end < 0:
            return None
        line = bytes(memoryview(self._buffer)[self._at : end])
        self._at = self._searched = end + 1
        return line.removesuffix(b"\r")

    def _find(self, wanted: bytes) -> int:
        """Where `wanted` next stands; negative if it does not, or a zero byte stands before it, where C's strchr ends."""
        start = max(self._at, self._searched)
        end = self._buffer.find(wanted, start)
        if end < 0:
            self._searched = len(self._buffer)
            return -1
        if self._buffer.find(b"\0", self._at, end) >= 0:
            return -1
        self._searched = end
        return end


def _integer(text: bytes) -> int | None:
    """Redis' string2ll: a canonical 64-bit integer."""
    if not text or len(text) > INT64_DIGITS_MAX:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    if b"%d" % number != text or not -(1 << 63) <= number < 1 << 63:
        return None
    return number
