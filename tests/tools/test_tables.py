"""Many tables parsed as one text: each is what it is alone, and what is odd is left to be read alone."""

import pandas as pd
import pytest

from continual_agents.runs import Table
from tools.figures import tables
from tools.figures.tables import TableError, read_table, read_tables

COLUMNS = ("step", "return")

PLAIN = {
    "first": "step,return,task\n1,0.5,0\n2,nan,0\n",
    "whole_numbers": "step,return,task\n1,3,0\n2,4,0\n3,5,1\n",
    "half_written": "step,return,task\n7,0.25,1\n8,0.",
    "a_wide_row_missing": "step,return,task\n5,1.5,2\n6,1.5\n",
    "another_header": "step,return\n1,2\n",
    "nothing_known": "step,return,task\n1,nan,\n",
}

ODD = {
    "empty": "",
    "only_a_header": "step,return,task\n",
    "quotes": 'step,"return",task\n1,"2\n",0\n',
    "blank_line": "step,return,task\n1,2,0\n\n2,3,0\n",
    "blanks": "step,return,task\n1,2,0\n   \n2,3,0\n",
    "wide_first_row": "step,return,task\n1,2,0,5\n",
    "carriage_returns": "step,return,task\r\n1,2,0\r\n",
}

REFUSED = {
    "text": "step,return,task\n1,2,0\n2,three,0\n",
    "half_a_step": "step,return,task\n1.5,2,0\n",
    "too_wide": "step,return,task\n1,2,0\n1,2,0,5\n",
    "no_return": "step,reward\n1,2\n",
    "no_text": b"step,return,task\n1,\xff,0\n",
}


def write(folder, contents):
    paths = []
    for name, text in contents.items():
        paths.append(folder / f"{name}.csv")
        paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
    return paths


def test_tables_read_together_are_what_they_are_alone(tmp_path):
    paths = write(tmp_path, PLAIN)
    found = read_tables(paths, COLUMNS)
    assert set(found) == set(paths)
    for path in paths:
        alone = read_table(path, COLUMNS)
        # a column of whole numbers beside fractions in another file becomes one of fractions, as it would when joined
        pd.testing.assert_frame_equal(found[path], alone, check_dtype=False)
    assert found[paths[0]]["step"].dtype == int


@pytest.mark.parametrize("name", [*ODD, "missing"])
def test_an_odd_file_is_left_to_be_read_alone_and_spoils_no_other(tmp_path, name):
    good = write(tmp_path, PLAIN)
    odd = write(tmp_path, {name: ODD[name]}) if name in ODD else [tmp_path / "missing.csv"]
    found = read_tables([*good[:2], *odd, *good[2:]], COLUMNS)
    for path, table in found.items():
        pd.testing.assert_frame_equal(table, read_table(path, COLUMNS), check_dtype=False)
    assert odd[0] not in found
    assert set(good) <= set(found) or name == "blanks"  # seen only after parsing: those of its header are read alone


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_alone_is_not_read_together(tmp_path, name):
    (bad,) = write(tmp_path, {name: REFUSED[name]})
    with pytest.raises(TableError):
        read_table(bad, COLUMNS)
    found = read_tables([*write(tmp_path, PLAIN), bad], COLUMNS)
    assert bad not in found
    assert tmp_path / "another_header.csv" in found


def test_more_tables_than_are_parsed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "TOGETHER", 300)
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.csv")
        table = Table(paths[-1])
        for step in range(number + 1):
            table.append({"step": step, "return": step / 3 + number})
        table.close()
    found = read_tables(paths, COLUMNS)
    assert 10 < len(found) < 20  # those longer than that are read alone
    for path, table in found.items():
        pd.testing.assert_frame_equal(table, read_table(path, COLUMNS))
