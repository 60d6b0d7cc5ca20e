"""The form of a competition file: what has no finding is read by pandas as the expected table."""

import io
import re
from itertools import zip_longest

import numpy as np
import pandas
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foldmark.core.config import CropConfig
from foldmark.core.errors import UserError
from foldmark.submission.format import Format
from foldmark.submission.rows import read_number
from tests.submission.test_format import some_faces

FACES = some_faces([(0, 0, 200, 200)])
# Two points a face, so that a file has four rows.
SHORT = Format(keys=("Id",), values=("Predicted",), points=2)
LINES = ["Id,Predicted", "0,1.5", "1,-20.25", "2,3", "3,4e1"]


def findings_of(content: bytes, path) -> list[str]:
    path.write_bytes(content)
    return [f"{finding.defect}: {finding.sentence}" for finding in SHORT.read(path, FACES)[1]]


HOSTILE = "0123456789.eE+-_xX ,;\"'#/\t\v\f\x00\x1c\x85\r\n\u2028\u00a0\u2009\ufeff٣７nNaAiIfF"
hostile_text = st.text(HOSTILE, max_size=6)
numbers = st.one_of(
    st.floats(-3000, 3000).map("{:.4f}".format),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.integers().map(str),
    st.from_regex(r"-?[0-9]{0,20}\.?[0-9]{0,45}([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    hostile_text,
)
usual = st.floats(-3000, 3000).map("{:.4f}".format)
line_ends = st.sampled_from(["\n"] * 6 + ["\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\n\n", "\n \n", "\n#\n", ""])


@st.composite
def files(draw) -> bytes:
    """A file of four rows in which a few things are otherwise than usual."""
    header = draw(
        st.sampled_from(["Id,Predicted"] * 8 + ["\ufeffId,Predicted", '"Id","Predicted"', "Id, Predicted", "Id,Predicted,"])
    )
    odd = draw(st.sets(st.integers(0, 3), max_size=2))
    rows = []
    for row in range(4):
        key = (
            draw(st.one_of(hostile_text, st.sampled_from([f"{row}.0", f"0{row}", f"+{row}", f'"{row}"'])))
            if row in odd
            else str(row)
        )
        rows.append(f"{key},{draw(numbers if row in odd or draw(st.booleans()) else usual)}")
    ends = [draw(line_ends if draw(st.integers(0, 4)) == 0 else st.just("\n")) for _ in range(5)]
    return "".join(f"{line}{end}" for line, end in zip_longest([header, *rows], ends, fillvalue="")).encode()


@settings(max_examples=300)
@given(files())
@example("\r\n".join(LINES).encode())
@example("\n".join([*LINES[:4], "3,123456789012345678901234567890"]).encode())
@example("\n".join([LINES[0], "0,1", "1,2", "2,3", "3,12345678901234567890", ""]).encode())
def test_a_file_without_findings_is_read_by_pandas_as_the_expected_table(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "generated.csv"
    if findings_of(content, path):
        return
    texts = [line.partition(",")[2] for line in content.decode().splitlines()[1:]]
    table = pandas.read_csv(io.BytesIO(content))
    assert list(table.columns) == ["Id", "Predicted"]
    assert table["Id"].dtype == np.int64
    assert table["Id"].tolist() == [0, 1, 2, 3]
    # The parser of pandas may be off in the last digit.
    assert table["Predicted"].tolist() == pytest.approx([float(text) for text in texts], rel=1e-12, abs=0)
    points_px, _ = SHORT.read(path, FACES)
    assert points_px.ravel().tolist() == [float(text) for text in texts]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_feeds_with_or_without_carriage_return_are_right(end, tmp_path):
    for last in (end, ""):
        assert findings_of((end.join(LINES) + last).encode(), tmp_path / "right.csv") == []


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_rows_split_by_anything_else_are_a_defect_that_names_the_fix(end, tmp_path):
    header, count, *_ = findings_of(end.join(LINES).encode(), tmp_path / "split.csv")
    assert header.startswith("header: line 1")
    assert "line feed" in header
    assert count.startswith("count: 0 of 4 rows")
    # One such end among right ones.
    for row in range(1, 4):
        text = "\n".join([*LINES[:row], LINES[row] + end + LINES[row + 1], *LINES[row + 2 :]])
        assert findings_of(text.encode(), tmp_path / "split.csv")


@pytest.mark.parametrize(
    "value",
    [
        *("nan", "NaN", "inf", "-Infinity", "", "None", "NA", "left", "1_0", "0x1p3", "1e999", "1.2.3", "--1", "1-", "1e"),
        *("+1.5", " 1.5", "1.5 ", "\u00a01.5", "1.5\t", "1,5", "1 000", "1'000", '"1.5"', "'1.5'", "1.5\x00", "1.5\v", "$1"),
        *("١.٥", "１.５", "1٫5", "−1.5", "1.5\u200b", "½", "1" * 20, "1" * 400),
    ],
)
def test_a_value_that_is_no_plain_number_is_a_defect(value, tmp_path):
    text = "\n".join([*LINES[:2], f"1,{value}", *LINES[3:]])
    found = findings_of(text.encode(), tmp_path / "value.csv")
    assert found
    assert "line 3" in found[0]
    assert read_number(value) is None


@pytest.mark.parametrize("key", ["1.0", "01", "+1", "-1", " 1", "1 ", '"1"', "1e0", "١", "１", "1_0", "", "\ufeff1", "1\x00"])
def test_an_id_that_is_no_plain_whole_number_is_a_defect(key, tmp_path):
    found = findings_of("\n".join([*LINES[:2], f"{key},2.5", *LINES[3:]]).encode(), tmp_path / "key.csv")
    assert found
    assert "line 3" in found[0]


@pytest.mark.parametrize("blank", ["", " ", "\t", ",", "#"])
def test_a_blank_line_is_a_defect_wherever_it_is(blank, tmp_path):
    for place in range(1, 6):
        text = "\n".join([*LINES[:place], blank, *LINES[place:], ""])
        assert any("row" in found for found in findings_of(text.encode(), tmp_path / "blank.csv"))


def test_a_carriage_return_after_the_last_line_is_a_blank_line(tmp_path):
    text = "\n".join([*LINES, "\r"])
    assert any("row" in found for found in findings_of(text.encode(), tmp_path / "blank.csv"))


def test_a_byte_order_mark_is_a_defect_that_names_the_fix(tmp_path):
    (found,) = findings_of(b"\xef\xbb\xbf" + "\n".join(LINES).encode(), tmp_path / "marked.csv")
    assert "byte order mark" in found


OTHER_FORMATS = {
    "a row a point": Format(
        keys=("image", "point"),
        values=("x", "y"),
        row_keys=lambda faces, rows: [f"{picture},{point}" for picture in faces.pictures for point in range(rows)],
    ),
    "a row a face": Format(
        keys=("image",),
        values=tuple(f"{axis}{point}" for point in range(68) for axis in "xy"),
        row_keys=lambda faces, _: faces.pictures,
        decimals=2,
    ),
    "all x before all y": Format(
        keys=("image",),
        values=tuple(f"{axis}{point}" for axis in "xy" for point in range(68)),
        row_keys=lambda faces, _: faces.pictures,
        all_x_first=True,
    ),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_another_competitions_file_is_another_format(name, tmp_path):
    faces, other, path = some_faces([(0, 0, 200, 200), (300, 100, 80, 90)]), OTHER_FORMATS[name], tmp_path / "other.csv"
    crop = CropConfig()
    other.write(path, faces.points_px, faces, crop)
    table = pandas.read_csv(path)
    assert list(table.columns) == [*other.keys, *other.values]
    x, y = (table[[column for column in other.values if column[0] == axis]].to_numpy().reshape(2, 68) for axis in "xy")
    read_px = np.stack([x, y], axis=2)
    assert np.abs(read_px - faces.points_px).max() <= 0.5 * 10.0**-other.decimals + 1e-9
    assert np.array_equal(other.read(path, faces)[0], read_px)
    other.check(path, faces, crop)
    header, *lines = path.read_text().splitlines()

    def found(*damaged: str) -> str:
        path.write_text("\n".join([header, *damaged]) + "\n")
        return "\n".join(finding.sentence for finding in other.findings(path, faces, crop))

    assert "out of order" in found(*reversed(lines))
    unknown = found(*lines[:-1], lines[-1].replace("face_1", "face_9"))
    assert "set/face_9.jpg" in unknown
    assert "not on the test list" in unknown
    assert re.search(r"set/face_1\.jpg(,67)? is not there", unknown)
    assert "is there a second time" in found(lines[0], *lines[:-1])
    swapped_px = faces.points_px.copy()
    swapped_px[1] = swapped_px[1, :, ::-1]
    last = f"lines {2 + other.rows_per_face} to {1 + 2 * other.rows_per_face}" if other.rows_per_face > 1 else "lines 3"
    with pytest.raises(UserError, match=rf"set/face_1\.jpg \(face 2 of 2, {last}\): x and y are swapped"):
        other.write(path, swapped_px, faces, crop)
