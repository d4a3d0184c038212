"""Asking a Hive metastore whether partitions are there: one call of its Thrift interface.

Rules:
- No generated client: the one call, `get_partition_names_ps`, takes and returns nothing but strings, and is in every Hive since 0.7.
- Plain Thrift over TCP. A metastore behind SASL (Kerberos) is not asked; wait for an Asset there.
- Of several metastores the first that answers counts.
- A partition is written as Hive writes its name, with `%2F` for a `/` in a value.
- Values are asked for by their place, without their columns: so the columns of the answer are looked at, too.

::

    list<string> get_partition_names_ps(1: string db, 2: string table, 3: list<string> values, 4: i16 max)
        throws (1: MetaException {1: string message}, 2: NoSuchObjectException {1: string message})
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.Thrift import TApplicationException, TException, TMessageType, TType
from thrift.transport.TSocket import TSocket
from thrift.transport.TTransport import TBufferedTransport, TTransportException

from pipeline.format.errors import StoreUnavailableError, TableNotFoundError, UsageError

CALL = "get_partition_names_ps"
PORT = 9083
ANSWER_S_MAX = 20.0  # a metastore that needs longer for a list of names is in trouble
NAMES_MAX = 1000  # one is enough; the bound keeps an answer small if only the first of many partition columns is said
ANY_VALUE = ""  # of a column, in the question
_NO_SUCH_OBJECT = 2


def has_partition(uris: str, table: str, partition: str) -> bool:
    """Whether a table (`db.table`) has a partition (`ds=2026-11-22/country=de`, or the start of one).

    Raises:
        UsageError: an address or the partition is written wrong, or the table has other columns of partitions.
        TableNotFoundError: there is no such table.
        StoreUnavailableError: no metastore answers.
    """
    wanted = pairs_of(partition)
    database, _, name = table.partition(".")
    failures = []
    for uri in uris.split(","):
        try:
            names = _names(uri.strip(), database, name, [value for _, value in wanted], NAMES_MAX)
            others = [] if names else _names(uri.strip(), database, name, [ANY_VALUE], 1)
        except (TTransportException, OSError, EOFError) as failed:
            failures.append(f"{uri.strip()}: {failed}")
        else:
            check_columns(names + others, wanted, table)
            return any(pairs_of(found)[: len(wanted)] == wanted for found in names)
    raise StoreUnavailableError(f"no Hive metastore answers ({'; '.join(failures)}): look whether it runs", metastore_uris=uris)


def pairs_of(partition: str) -> list[tuple[str, str]]:
    """Columns and values of a partition's name.

    Raises:
        UsageError: it is none.
    """
    pairs = [part.partition("=") for part in partition.split("/")]
    if any(not column or not sign or not value for column, sign, value in pairs):
        raise UsageError(f"partition {partition!r} is none: write e.g. ds=2026-11-22 or ds=2026-11-22/country=de", partition=partition)
    return [(unquote(column).lower(), unquote(value)) for column, _, value in pairs]  # Hive's column names know no case


def check_columns(names: list[str], wanted: list[tuple[str, str]], table: str) -> None:
    """Refuse to wait for what can't come.

    Raises:
        UsageError: the partitions of the table, of which `names` are some, do not begin with the columns that are wanted.
    """
    columns = [column for column, _ in wanted]
    for found in ([column for column, _ in pairs_of(name)] for name in names):
        if found[: len(columns)] != columns:
            message = (
                f"table {table} is partitioned by {', '.join(found)}, in this order, not by {', '.join(columns)}: change the partition"
            )
            raise UsageError(message, table=table)


def _names(uri: str, database: str, table: str, values: list[str], names_max: int) -> list[str]:
    where = urlsplit(uri)
    if where.scheme != "thrift" or not where.hostname:
        raise UsageError(f"{uri!r} is no metastore's address: write thrift://host:{PORT}", metastore_uris=uri)
    socket = TSocket(where.hostname, where.port or PORT)
    socket.setTimeout(ANSWER_S_MAX * 1000)
    transport = TBufferedTransport(socket)
    transport.open()
    try:
        protocol = TBinaryProtocol(transport)
        _ask(protocol, database, table, values, names_max)
        return _answer(protocol, f"{database}.{table}")
    except TTransportException:
        raise
    except TException as refused:
        raise UsageError(f"the metastore {uri} refuses the question for {database}.{table}: {refused}", table=table) from refused
    finally:
        transport.close()


def _ask(out: TBinaryProtocol, database: str, table: str, values: list[str], names_max: int) -> None:
    out.writeMessageBegin(CALL, TMessageType.CALL, 1)
    for number, text in ((1, database), (2, table)):
        out.writeFieldBegin("", TType.STRING, number)
        out.writeString(text)
    out.writeFieldBegin("", TType.LIST, 3)
    out.writeListBegin(TType.STRING, len(values))
    for value in values:
        out.writeString(value)
    out.writeFieldBegin("", TType.I16, 4)
    out.writeI16(names_max)
    out.writeFieldStop()
    out.writeMessageEnd()
    out.trans.flush()


def _answer(source: TBinaryProtocol, table: str) -> list[str]:
    _, kind, _ = source.readMessageBegin()
    if kind == TMessageType.EXCEPTION:
        failure = TApplicationException()
        failure.read(source)
        raise failure
    _, field, number = source.readFieldBegin()
    if (field, number) == (TType.LIST, 0):
        _, size = source.readListBegin()
        return [source.readString() for _ in range(size)]
    if field != TType.STRUCT:
        raise TApplicationException(TApplicationException.MISSING_RESULT, "an answer without names")
    message = _message(source)
    if number == _NO_SUCH_OBJECT:
        raise TableNotFoundError(f"the metastore has no table {table}: {message}", table=table)
    raise TApplicationException(TApplicationException.INTERNAL_ERROR, message)


def _message(source: TBinaryProtocol) -> str:
    """The text of one of Hive's exceptions."""
    _, field, _ = source.readFieldBegin()
    return str(source.readString()) if field == TType.STRING else ""
