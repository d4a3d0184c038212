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
NOT_A_FLOAT = "ERR value is not a valid float"
HASH_NOT_AN_INTEGER = "ERR hash value is not an integer"
HASH_NOT_A_FLOAT = "ERR hash value is not a float"
NAN_OR_INFINITY = "ERR value is NaN or Infinity"
INCREMENT_OVERFLOW = "ERR increment or decrement would overflow"
DECREMENT_OVERFLOW = "ERR decrement would overflow"
INCREMENT_NOT_FINITE = "ERR increment would produce NaN or Infinity"
OFFSET_OUT_OF_RANGE = "ERR offset is out of range"
STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
EXPIRE_NX_WITH_OTHERS = "ERR NX and XX, GT or LT options at the same time are not compatible"
EXPIRE_GT_WITH_LT = "ERR GT and LT options at the same time are not compatible"
NESTED_MULTI = "ERR MULTI calls can not be nested"
EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI"
DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI"
WATCH_WITHIN_MULTI = "ERR WATCH inside MULTI is not allowed"
NOT_IN_TRANSACTION = "ERR Command not allowed inside a transaction"
EXEC_ABORTED = "EXECABORT Transaction discarded because of previous errors."
NO_AUTH = "NOAUTH Authentication required."
HELLO_NO_AUTH = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used "
    "to authenticate the client and select the RESP protocol version at the same time"
)
NO_SUCH_CLIENT = "ERR No such client"
KILL_ID = "ERR client-id should be greater than 0"
PAUSE_MODE = "ERR CLIENT PAUSE mode must be WRITE or ALL"
TIMEOUT_NOT_INTEGER = "ERR timeout is not an integer or out of range"
TIMEOUT_NEGATIVE = "ERR timeout is negative"
UNBLOCK_REASON = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"
CACHING_WITHOUT_TRACKING = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
NO_TRACKING = "ERR client tracking is not supported by this server: there are no invalidation messages"
TRACKING_PREFIX = "ERR PREFIX option requires BCAST mode to be enabled"
SLOWLOG_COUNT = "ERR count should be greater than or equal to -1"
NO_SHUTDOWN = "ERR No shutdown in progress."
NO_REWRITE = (
    "ERR Rewriting config file is not supported by this server: its settings file is yours, and CONFIG SET lasts until the shard ends"
)
NO_SNAPSHOT = "ERR this server writes no RDB files: every acknowledged write is in RocksDB's write-ahead log (see appendfsync)"
NO_AOF_REWRITE = "ERR this server has no append-only file to rewrite: RocksDB's write-ahead log is cut by its flushes"
NO_DEBUG = (
    'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, '
    "otherwise you need to set this option in the configuration file, and then restart the server."
)
PROTOCOL_VERSION = "ERR Protocol version is not an integer or out of range"
NO_PROTOCOL = "NOPROTO unsupported protocol version"
WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."  # noqa: S105 -- Redis' text, not a secret
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"  # noqa: S105
)
CLIENT_NAME = "ERR Client names cannot contain spaces, newlines or special characters."
SELECT_IN_CLUSTER = "ERR SELECT is not allowed in cluster mode"
CLUSTER_DISABLED = "ERR This instance has cluster support disabled"
INVALID_SLOT = "ERR Invalid slot"
INVALID_SLOT_OR_COUNT = "ERR Invalid slot or number of keys"
NOT_A_MASTER = "ERR The specified node is not a master"
DB_OUT_OF_RANGE = "ERR DB index is out of range"
CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
SLOT_UNSERVED = "CLUSTERDOWN Hash slot not served"
MIN_MAX_NOT_FLOAT = "ERR min or max is not a float"
MIN_MAX_NOT_LEX = "ERR min or max not valid string range item"
LIMIT_WITHOUT_RANGE = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
LEX_WITH_SCORES = "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
XX_WITH_NX = "ERR XX and NX options at the same time are not compatible"
GT_LT_WITH_NX = "ERR GT, LT, and/or NX options at the same time are not compatible"
INCR_OF_MANY = "ERR INCR option supports a single increment-element pair"
SCORE_IS_NAN = "ERR resulting score is not a number (NaN)"
NOT_POSITIVE = "ERR value is out of range, must be positive"
OUT_OF_RANGE = "ERR value is out of range"
OUT_OF_SYMMETRIC_RANGE = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
MEMBER_TOO_LONG = "ERR member is longer than this server stores"
GETKEYS_UNKNOWN = "ERR Invalid command specified"
GETKEYS_ARITY = "ERR Invalid number of arguments specified for command"
GETKEYS_NO_KEYS = "ERR The command has no key arguments"
CLIENTS_MAX = "ERR max number of clients reached"
INTERNAL = "ERR internal error, see this shard's log"
OUT_OF_INT_RANGE = "ERR value is out of range, value must between -2147483648 and 2147483647"
CLIENT_ID = "ERR Invalid client ID"
NO_SUCH_KEY = "ERR no such key"
FREQUENCY_UNTRACKED = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. "
    "Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
)
IDLE_TIME_UNTRACKED = "ERR idle times are not tracked by this server, which evicts nothing"
FIELD_TOO_LONG = "ERR field is longer than this server stores"
REPLY_TOO_LONG = "ERR the reply would be longer than client-output-buffer-limit allows: ask for fewer at once"
KEY_TOO_LONG = "ERR key is longer than this server stores"


def exec_refused(why: str) -> str:
    """EXEC itself is wrong; the transaction is gone."""
    return f"EXECABORT Transaction discarded because of: {why.removeprefix('ERR ')}"


OBJECT_HELP = """\
OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:
ENCODING <key>
    Return the kind of internal representation used in order to store the value
    associated with a <key>.
FREQ <key>
    Return the access frequency index of the <key>. The returned integer is
    proportional to the logarithm of the recent access frequency of the key.
IDLETIME <key>
    Return the idle time of the <key>, that is the approximated number of
    seconds elapsed since the last access to the key.
REFCOUNT <key>
    Return the number of references of the value associated with the specified
    <key>.
HELP
    Prints this help."""
MEMORY_HELP = """\
MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:
USAGE <key> [SAMPLES <count>]
    Return memory in bytes used by <key> and its value. Nested values are
    sampled up to <count> times (default: 5, 0 means sample all).
HELP
    Prints this help."""


def write_failed(why: str) -> str:
    """What clients write can't be kept; reads go on."""
    return f"MISCONF Errors writing to the write-ahead log: {why}"


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


def expire_option(option: bytes) -> str:
    """EXPIRE got a condition that it does not know."""
    return f"ERR Unsupported option {_shown(option)}"


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


def subcommand_usage(container: str, name: bytes) -> str:
    """A subcommand got more or fewer words than it takes."""
    return f"ERR unknown subcommand or wrong number of arguments for '{_shown(name)}'. Try {container} HELP."


def no_such_user(name: bytes) -> str:
    """CLIENT KILL USER named a user that does not exist."""
    return f"ERR No such user '{_shown(name)}'"


def no_latency_samples(event: bytes) -> str:
    """LATENCY GRAPH of an event that was never seen."""
    return f"ERR No samples available for event '{_shown(event)}'"


def config_unknown(name: bytes) -> str:
    """CONFIG SET named a parameter that does not exist."""
    return f"ERR Unknown option or number of arguments for CONFIG SET - '{_shown(name)}'"


def config_refused(name: bytes, why: str) -> str:
    """CONFIG SET gave a parameter a value that it does not take."""
    return f"ERR CONFIG SET failed (possibly related to argument '{_shown(name)}') - {why}"


def moved(slot: int, host: str, port: int) -> str:
    """Another shard owns the slot."""
    return f"MOVED {slot} {host}:{port}"


def protocol_error(what: str) -> str:
    """The client does not speak RESP."""
    return f"ERR Protocol error: {what}"


def read_only(dataset: str, prefix: str) -> str:
    """A client wrote to a key that a dataset owns."""
    return (
        f"NOPERM keys under '{prefix}' belong to dataset '{dataset}', which is loaded in bulk and read-only for clients: "
        "load a new version of it, or write to keys outside of this prefix"
    )


def replicated(shard: str) -> str:
    """A client wrote to a slot that has replicas."""
    return (
        f"NOPERM the slots of shard '{shard}' have replicas, and clients' writes don't reach those yet: "
        "load the keys as a dataset, or write to slots without replicas"
    )


def unknown_node(word: bytes) -> str:
    """No shard of the topology has this id."""
    return f"ERR Unknown node {_shown(word)}"


def topology_only(subcommand: bytes) -> str:
    """A client wanted to change the cluster."""
    return (
        f"ERR CLUSTER {_shown(subcommand.upper())} is not supported: the topology is one document, changed by `redkv cluster apply`; "
        "shards follow it by themselves"
    )


def read_only_datasets(command: str, datasets: list[str]) -> str:
    """A client wanted to remove all keys."""
    return (
        f"NOPERM {command} would remove keys of {', '.join(map(repr, datasets))}, loaded in bulk and read-only for clients: "
        "drop these datasets first, or remove the live keys alone, by SCAN and UNLINK"
    )


def unavailable(dataset: str, version: str, why: str) -> str:
    """The active version of a dataset can't be opened on this shard."""
    return f"LOADING dataset '{dataset}' can't be read: its version {version} {why}; it is served again once a version is activated"


def not_loaded(dataset: str, version: str) -> str:
    """Clients shall read a version of a dataset of which this shard has none."""
    return f"LOADING dataset '{dataset}' is not loaded here yet: version {version} is on its way to this shard"


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
