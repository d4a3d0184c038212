import re
from pathlib import Path

import pytest
import yaml

from pipeline.format.errors import SpecError
from pipeline.shapes import TTL_SECONDS_MAX
from pipeline.spec import parse_spec

EXAMPLES = re.findall(r"```yaml\n(.*?)```", Path("docs/spec.md").read_text(encoding="utf-8"), re.DOTALL)
WRONG = [
    ({"string": {"columns": ["a"], "column": "b"}}, "either column: name, for its text, or columns"),
    ({"ttl": {}}, "write one of seconds: 86400"),
    ({"ttl": {"seconds": 0}}, "field ttl.seconds is 0"),
    ({"ttl": {"seconds": 10**17}}, f"field ttl.seconds is {10**17}.* less than or equal to {TTL_SECONDS_MAX}"),
    ({"type": "hash", "string": None, "hash": {"columns": {"f" * 65_537: "x"}}}, "has 65537 bytes, the limit is 65536"),
    ({"type": "zset", "string": None, "zset": {"member": "${m}", "score": "s"}, "ttl": {"at": "x"}}, "one key has many rows here"),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_in_docs_spec_md_is_a_spec(example: str) -> None:
    parse_spec(yaml.safe_load(example), "docs/spec.md")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 5


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_contradicts_itself_is_refused_with_what_to_write(change: dict[str, object], message: str) -> None:
    good = {"dataset": "d", "source": {"table": "a.b"}, "key": "d:${id}", "type": "string", "string": {"column": "x"}, "mode": "replace"}
    with pytest.raises(SpecError, match=message):
        parse_spec({name: value for name, value in {**good, **change}.items() if value is not None}, "a spec")
