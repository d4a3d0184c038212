"""Every error text that goes over the wire, in Redis 7.0's words where Redis has them.

A text is what follows the `-` of a RESP error. Texts with a fact in them are functions.
A client's own bytes that come back in a text are decoded with surrogateescape, so that they leave as they came.
"""

from __future__ import annotations

WORD_SHOWN_BYTES_MAX = 128  # Redis prints no more of a name, and of all arguments together

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
INVALID_CURSOR = "ERR invalid cursor"
CURSOR_OF_ANOTHER_VERSION = "ERR the cursor is of another version of the dataset: start the scan again with cursor 0"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
PROTOCOL_VERSION = "ERR Protocol version is not an integer or out of range"
NO_PROTOCOL = "NOPROTO unsupported protocol version"
WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."  # noqa: S105 -- Redis' text, not a secret
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"  # noqa: S105
)
CLIENT_NAME = "ERR Client names cannot contain spaces, newlines or special characters."
SELECT_IN_CLUSTER = "ERR SELECT is not allowed in cluster mode"
CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
SLOT_UNSERVED = "CLUSTERDOWN Hash slot not served"
MIN_MAX_NOT_FLOAT = "ERR min or max is not a float"
MIN_MAX_NOT_LEX = "ERR min or max not valid string range item"
LIMIT_WITHOUT_RANGE = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
LEX_WITH_SCORES = "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
GETKEYS_UNKNOWN = "ERR Invalid command specified"
GETKEYS_ARITY = "ERR Invalid number of arguments specified for command"
GETKEYS_NO_KEYS = "ERR The command has no key arguments"
CLIENTS_MAX = "ERR max number of clients reached"
INTERNAL = "ERR internal error, see this shard's log"
OUT_OF_INT_RANGE = "ERR value is out of range, value must between -2147483648 and 2147483647"
CLIENT_ID = "ERR Invalid client ID"
KEY_TOO_LONG = "ERR key is longer than this server stores"


def unknown_command(words: list[bytes]) -> str:
    """The command does not exist."""
    shown = b""
    for word in words[1:]:
        if len(shown) >= WORD_SHOWN_BYTES_MAX:
            break
        shown += b"'%b' " % _cut(word, WORD_SHOWN_BYTES_MAX - len(shown))
    return f"ERR unknown command '{_shown(words[0])}', with args beginning with: {shown.decode(errors='surrogateescape')}"


def unknown_subcommand(words: list[bytes]) -> str:
    """The container exists, its subcommand does not."""
    return f"ERR unknown subcommand '{_shown(words[1])}'. Try {_shown(words[0].upper())} HELP."


def wrong_arity(name: str) -> str:
    """Too few or too many words; `name` is `command` or `container|subcommand`."""
    return f"ERR wrong number of arguments for '{name}' command"


def invalid_expiry(name: str) -> str:
    """An expiry that is not in the future, or beyond 64 bits."""
    return f"ERR invalid expire time in '{name}' command"


def hello_syntax(option: bytes) -> str:
    """HELLO got an option that it does not know."""
    return f"ERR Syntax error in HELLO option '{_shown(option)}'"


def client_type(word: bytes) -> str:
    """CLIENT LIST TYPE got a type that does not exist."""
    return f"ERR Unknown client type '{_shown(word)}'"


def setinfo_option(word: bytes) -> str:
    """CLIENT SETINFO got an attribute that does not exist."""
    return f"ERR Unrecognized option '{_shown(word)}'"


def setinfo_value(name: bytes) -> str:
    """CLIENT SETINFO got a value that would break CLIENT LIST."""
    return f"ERR {_shown(name)} cannot contain spaces, newlines or special characters."


def moved(slot: int, host: str, port: int) -> str:
    """Another shard owns the slot."""
    return f"MOVED {slot} {host}:{port}"


def protocol_error(what: str) -> str:
    """The client does not speak RESP."""
    return f"ERR Protocol error: {what}"


def read_only(dataset: str, prefix: str) -> str:
    """A client wrote to a key that a dataset owns."""
    return (
        f"READONLY keys under '{prefix}' belong to dataset '{dataset}', which is loaded in bulk and read-only for clients: "
        "load a new version of it, or write to keys outside of this prefix"
    )


def unavailable(dataset: str, version: str, why: str) -> str:
    """The active version of a dataset can't be opened on this shard."""
    return f"LOADING dataset '{dataset}' can't be read: its version {version} {why}; it is served again once a version is activated"


def slot_not_loaded(dataset: str, version: str, slot: int) -> str:
    """The shard owns the slot, and the active version was made before it did."""
    return (
        f"LOADING slot {slot} of dataset '{dataset}' is not loaded here yet: version {version} is being made again for this shard's slots"
    )


def _shown(word: bytes) -> str:
    return _cut(word, WORD_SHOWN_BYTES_MAX).decode(errors="surrogateescape")


def _cut(word: bytes, limit: int) -> bytes:
    """A word as C's %s prints it: up to a zero byte."""
    return word.partition(b"\0")[0][:limit]
