from __future__ import annotations

import pytest

from pipeline.format.errors import FormatError
from pipeline.format.topology import Topology


def test_what_is_wrong_with_a_record_is_one_line_that_names_each_field() -> None:
    with pytest.raises(FormatError) as failed:
        Topology.from_json(b'{"cluster": "c", "epoch": "one", "nodse": []}', "topology.json")
    [what, *fields] = failed.value.message.split("; ")
    assert what.startswith("topology.json is no Topology: epoch: Input should be a valid integer")
    assert fields == ["nodes: Field required", "nodse: there is no such field"]
