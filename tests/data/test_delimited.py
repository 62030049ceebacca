import gzip

import pyarrow as pa
import pytest

from kullback.data import delimited as delimited_module
from kullback.data import iter_batches, read_notes, read_table
from kullback.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "data.csv"):
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def columns(path, **kwargs):
    return read_table(path, **kwargs).to_pydict()


PLAIN = "a,b,c\n1,x,true\n2,y,false\n"
EXPECTED = {"a": [1, 2], "b": ["x", "y"], "c": [True, False]}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (PLAIN, "data.csv"),
        (PLAIN, "data.CSV"),
        (PLAIN, "data.csv.gz"),
        (PLAIN.replace(",", "\t"), "data.tsv"),
        (PLAIN.replace(",", "\t"), "data.tsv.gz"),
        ("\ufeff" + PLAIN, "data.csv"),
        (PLAIN.replace("\n", "\r\n"), "data.csv"),
        (PLAIN.rstrip("\n"), "data.csv"),
        ("\n\n" + PLAIN + "\n", "data.csv"),
        (" a ,b, c\n1,x,true\n2,y,false\n", "data.csv"),
    ],
)
def test_dialects_read_alike(write, content, name):
    assert columns(write(content, name)) == EXPECTED


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_delimiter_is_found_and_said(write, delimiter, word):
    table = read_table(write(PLAIN.replace(",", delimiter)))
    assert table.to_pydict() == EXPECTED
    assert word in read_notes(table)[0]


def test_quoted_cells_may_hold_delimiters_quotes_and_newlines(write):
    path = write('a,b\n"x, ""y""\nz",1\nq,2\n')
    assert columns(path) == {"a": ['x, "y"\nz', "q"], "b": [1, 2]}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_quoted_newlines_survive_blocks_of_any_size(write, monkeypatch, newline):
    cells = [f"one{newline}two {i}" if i % 7 == 3 else f"plain {i}" for i in range(300)]
    path = write("a,b\n" + "".join(f'{i},"{cell}"\n' for i, cell in enumerate(cells)))
    for block in (64, 100, 333):
        monkeypatch.setattr(delimited_module, "_BLOCK_BYTES", block)
        whole = columns(path)["b"]
        streamed = [value for batch in iter_batches(path, 50) for value in batch.column("b").to_pylist()]
        # Arrow drops the second half of a "\r\n" that falls between two blocks, even in a cell; words are untouched.
        for found in (whole, streamed):
            assert [each.replace("\r\n", "\r") for each in found] == [each.replace("\r\n", "\r") for each in cells]


def test_a_quoted_newline_in_the_header_keeps_the_first_row(write):
    assert columns(write('"a\nb",c\n1,2\n')) == {"a\nb": [1], "c": [2]}


@pytest.mark.parametrize("spelling", ["", "NA", "NaN", "nan", "null", "NULL", "N/A", "n/a", "?", " ? ", "#N/A"])
def test_missing_is_missing_among_numbers_and_among_words(write, spelling):
    table = read_table(write(f"n,w\n1.5,x\n{spelling},{spelling}\n2,y\n"))
    assert table.to_pydict() == {"n": [1.5, None, 2.0], "w": ["x", None, "y"]}
    if "?" in spelling:
        assert read_notes(table) == [
            "column 'n': 1 cell spelled '?' read as missing",
            "column 'w': 1 cell spelled '?' read as missing",
        ]
    else:
        assert read_notes(table) == []


def test_a_dash_is_missing_only_among_numbers(write):
    assert columns(write("n,w\n1,x\n-,-\n2,None\n")) == {"n": [1, None, 2], "w": ["x", "-", "None"]}


def test_one_word_far_down_makes_the_whole_column_text(write):
    rows = 300_000
    path = write("a,b\n" + "1,2\n" * rows + "x,3\n")
    table = read_table(path)
    assert table.schema.types == [pa.string(), pa.int64()]
    assert table.num_rows == rows + 1


def test_column_types_replace_inference(write):
    path = write("zip,n\n007,1\n010,2\n")
    assert columns(path)["zip"] == [7, 10]
    assert columns(path, column_types={"zip": pa.string(), "absent": pa.float64()})["zip"] == ["007", "010"]


@pytest.mark.parametrize("read", [read_table, lambda *a, **k: list(iter_batches(*a, **k))])
def test_a_cell_of_another_type_is_named(write, read):
    path = write("age,b\n1,x\n2,y\ntwelve,z\n")
    with pytest.raises(DataError, match=r"data\.csv, data row 3, column 'age': 'twelve' is not a number"):
        read(path, column_types={"age": pa.float64()})


BAD = {
    "empty": (b"", "data.csv is empty"),
    "blank": (b"\n\n\n", "only blank lines"),
    "header only": (b"a,b\n", "header line but no rows"),
    "header only, no newline": (b"a,b", "header line but no rows"),
    "duplicate names": (b"a,b,a\n1,2,3\n", r"column name 'a' is used more than once \(columns 1, 3\)"),
    "too few fields": (b"a,b\n1,2\n3\n4,5\n", "line 3: 1 field where the header has 2"),
    "too many fields": (b"a,b\n1,2\n\n3,4,5\n", "line 4: 3 fields where the header has 2"),
    "ragged after a quoted newline": (b'a,b\n"1\n1",2\n3,4,5\n', "line 4: 3 fields"),
    "latin-1": ("a,b\n1,x\n2,caf\xe9\n".encode("latin-1"), r"line 3: byte 0xe9 \(offset 13\) is not UTF-8"),
    "latin-1 header": ("a,caf\xe9\n1,x\n".encode("latin-1"), "line 1: byte 0xe9"),
    "cut UTF-8": (b"a,b\n1,x\xc3", "line 2: byte 0xc3"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
    "spreadsheet": (b"PK\x03\x04rest", "spreadsheet"),
}


@pytest.mark.parametrize("read", [read_table, lambda path: list(iter_batches(path))], ids=["whole", "batches"])
@pytest.mark.parametrize("case", BAD)
def test_bad_files_say_where_and_what(write, read, case):
    content, message = BAD[case]
    with pytest.raises(DataError, match=message):
        read(write(content))


@pytest.mark.parametrize("read", [read_table, lambda path: list(iter_batches(path))], ids=["whole", "batches"])
def test_a_truncated_or_damaged_gzip_is_said(write, tmp_path, read):
    whole = gzip.compress(("a,b\n" + "".join(f"{i},{i * i % 977}\n" for i in range(5000))).encode())
    for data in (whole[: len(whole) // 2], b"not gzip at all", whole[:60] + b"\x00" * 40 + whole[100:]):
        path = tmp_path / "data.csv.gz"
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"data\.csv\.gz"):
            read(path)


@pytest.mark.parametrize("content", ["a,b\n1,x\n2,y\n", 'a,b\n1,"x\n2,é\n'])
def test_a_damaged_byte_of_a_gzip_never_crashes_a_reader(tmp_path, content):
    whole = gzip.compress(content.encode(), mtime=0)
    path = tmp_path / "data.csv.gz"
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        for read in (read_table, lambda path: list(iter_batches(path))):
            try:
                read(path)
            except DataError:
                refused += 1
    assert refused > len(whole)


def test_paths_that_are_no_data_files(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a directory"):
        read_table(tmp_path)
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"\.xlsx.*supported are \.csv"):
        read_table(tmp_path / "data.xlsx")
    (tmp_path / "data").write_bytes(b"a\n1\n")
    with pytest.raises(DataError, match="suffix is missing"):
        read_table(tmp_path / "data")


def test_a_nameless_column_gets_a_name(write):
    table = read_table(write(",b\n5,x\n6,y\n"))
    assert table.column_names == ["column_1", "b"]
    assert "column 1 has no name" in read_notes(table)[0]


def test_numbers_for_names_raise_a_suspicion(write):
    assert "no header" in read_notes(read_table(write("1,2\n3,4\n")))[0]
    assert read_notes(read_table(write(PLAIN))) == []


def test_in_one_column_an_empty_line_is_a_row(write):
    assert columns(write("a\n1\n\n3\n"))["a"] == [1, None, 3]


@pytest.mark.parametrize("batch_rows", [1, 3, 1000, 65536])
def test_batches_keep_the_rows_in_order_and_say_where_they_are(write, monkeypatch, batch_rows):
    monkeypatch.setattr(delimited_module, "_BLOCK_BYTES", 256)
    rows = 400
    path = write("a,b\n" + "".join(f"{i},w{i}\n" for i in range(rows)))
    batches = list(iter_batches(path, batch_rows))
    assert [batch.num_rows for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    assert [value for batch in batches for value in batch.column("b").to_pylist()] == [f"w{i}" for i in range(rows)]
    path = write("a,b\n" + "".join(f"{i},w{i}\n" for i in range(rows)) + "x,y\n")
    with pytest.raises(DataError, match=f"data row {rows + 1}, column 'a'"):
        list(iter_batches(path, batch_rows, column_types={"a": pa.int64()}))


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_row_longer_than_a_block_is_read(write, monkeypatch, quote):
    monkeypatch.setattr(delimited_module, "_BLOCK_BYTES", 64)
    long = "word " * 500
    rows = [f"{i},{quote}s{i}{quote}\n" for i in range(30)]
    path = write("a,b\n" + "".join(rows) + f"30,{quote}{long}{quote}\n" + "31,t\n")
    expected = [*(f"s{i}" for i in range(30)), long, "t"]
    assert columns(path)["b"] == expected
    assert [value for batch in iter_batches(path, 7) for value in batch.column("b").to_pylist()] == expected


@pytest.mark.parametrize("rows", [3, 30_000])
def test_an_unclosed_quote_does_not_swallow_the_rest_of_the_file(write, rows):
    path = write('a,b\n0,"p\nq"\n1,"x\n' + "2,yyyyyyy\n" * rows)
    for read in (read_table, lambda path: list(iter_batches(path))):
        with pytest.raises(DataError, match=r"data\.csv, line 4: a quote is opened and never closed"):
            read(path)


def test_a_stray_quote_inside_a_cell_is_text(write):
    assert columns(write('a,b\n1,5" disk\n2,y\n'))["b"] == ['5" disk', "y"]
