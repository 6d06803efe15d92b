import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.tfrecord_files import crc32c, masked, write_records
from yolov7_jax.datasets.tfds_files import Stretch, TfRecords
from yolov7_jax.errors import DataError

CONTENT = [b"first", b"", b"x" * 1000, bytes(range(256))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_records(tmp_path / "a.tfrecord", CONTENT)


def test_the_writer_of_these_tests_follows_the_definition():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    # A file that TensorFlow wrote begins so: a record of 24 bytes.
    assert masked(b"\x18" + bytes(7)).hex() == "a37f4b22"


@given(
    shards=st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=4),
    data=st.data(),
)
def test_records_of_stretches_of_files(tmp_path_factory: pytest.TempPathFactory, shards: list, data: st.DataObject):
    folder = tmp_path_factory.mktemp("shards", numbered=True)
    stretches, expected = [], []
    for number, records in enumerate(shards):
        skip = data.draw(st.integers(0, len(records)))
        take = data.draw(st.integers(0, len(records) - skip))
        stretches.append(Stretch(write_records(folder / str(number), records), skip, take, len(records)))
        expected += records[skip : skip + take]
    found = pickle.loads(pickle.dumps(TfRecords.of(stretches)))
    assert len(found) == len(expected)
    for index in reversed(range(len(expected))):
        assert found[index] == expected[index]
    with pytest.raises(IndexError):
        found[len(expected)]


def test_a_file_that_is_cut_off_is_named(file: Path):
    whole = file.read_bytes()
    ends = [len(whole) - sum(16 + len(record) for record in CONTENT[at:]) for at in range(len(CONTENT) + 1)]
    for cut in [1, 5, 11, 12, 13, 20, ends[1] + 1, ends[3] - 1, len(whole) - 1]:
        file.write_bytes(whole[:cut])
        number = sum(end < cut for end in ends)
        message = rf"^{re.escape(str(file))}: is cut off or damaged at record {number} of 4; copy"
        with pytest.raises(DataError, match=message) as error:
            TfRecords.of([Stretch(file, 0, 4, 4)])
        assert error.value.kind == "unreadable shard"
    file.write_bytes(whole[: ends[2]])
    with pytest.raises(DataError, match=r"a\.tfrecord: has 2 records, but the data set says 4"):
        TfRecords.of([Stretch(file, 0, 1, 4)])


def test_a_length_that_is_damaged_is_named(file: Path):
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    with pytest.raises(DataError, match=r"a\.tfrecord: is cut off or damaged at record 1 of 4"):
        TfRecords.of([Stretch(file, 0, 4, 4)])


def test_a_file_that_goes_away_or_shrinks_is_named(file: Path):
    records = TfRecords.of([Stretch(file, 0, 4, 4)])
    file.write_bytes(file.read_bytes()[:30])
    assert records[0] == b"first"
    with pytest.raises(DataError, match=r"a\.tfrecord: is cut off or damaged at record 3"):
        records[2]
    file.unlink()
    for use in (lambda: records[0], lambda: TfRecords.of([Stretch(file, 0, 4, 4)])):
        with pytest.raises(DataError, match=r"a\.tfrecord: cannot be read \(No such file"):
            use()
