"""Hostile and broken input: refused in a sentence, or read for exactly what it says; never a traceback, never a wrong result.

`make soak` runs the generated inputs in large numbers: FOLDMARK_SOAK says how many a test.
"""

import csv
import io
import math
import os
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from foldmark.core.config import Config, CropConfig, format_config
from foldmark.core.config_file import load_config
from foldmark.core.errors import UserError
from foldmark.data.folds import group_faces, make_folds, read_split, write_split
from foldmark.data.ibug import IBUG_FOLDER, TRAIN_XML, read_ibug
from foldmark.data.imm import read_imm
from foldmark.models.checkpoint import load_checkpoint
from foldmark.submission.format import FORMATS
from tests.change_run import save_checkpoint
from tests.conftest import REPOSITORY, assert_refused
from tests.data.test_ibug import face, xml_file
from tests.data.test_imm import asf

generated = settings(
    max_examples=int(os.environ.get("FOLDMARK_SOAK", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# What text and number readers trip over, besides arbitrary bytes.
NASTY = [
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"&#0;", b"&#xD800;", b"<?xml version='1.0' encoding='utf-7'?>", b"\xff\xfe",
    b"\0", b"<!--", b"-->", b"<![CDATA[", b"9" * 5000, b"1_0", b"1e999", b"-inf", b"nan", b"0x1F", "\u0661".encode(), b"'", b'"',
    b"\r", b"\n", b"\t", b",", b"../", b"!!timestamp x", b"!!int ''", b"!!bool maybe", b"!!python/object:os.system",
    b"2001-99-99", b"&a [*a]", b"[" * 3000, b"{", b": ", b"- ", b"<<: ", b"? ", b"%", b"\xe2\x80\xa8",
]  # fmt: skip


@st.composite
def damages(draw, whole: bytes) -> bytes:
    """The bytes with one to three spans, of up to 200 bytes, replaced."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        end = draw(st.integers(at, min(len(whole), at + 200)) | st.just(at))
        whole = whole[:at] + draw(st.binary(max_size=20) | st.sampled_from(NASTY)) + whole[end:]
    return whole


# A number as a text editor shows it: what a reader accepts beyond it, it would have to guess at.
NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
values = st.text(max_size=12) | st.sampled_from(
    ["1_0", "1e3", "-0", "\u0661\u0662", "0x10", "1,5", "nan", " 7 ", "9" * 5000, "--1"]
)
values |= st.floats().map(str) | st.integers().map(str)


def refused(error: UserError, name: str) -> None:
    """It is told in one line that names the file."""
    assert name in str(error)
    assert len(str(error).splitlines()) == 1


@generated
@given(damages(f"<?xml version='1.0'?><dataset><images>{face()}{face(picture='afw/2_1.jpg')}</images></dataset>".encode()))
def test_damaged_label_files(tmp_path, content):
    (tmp_path / TRAIN_XML).write_bytes(content)
    try:
        faces = read_ibug(tmp_path / TRAIN_XML, with_points=True)
    except UserError as error:
        refused(error, TRAIN_XML)
        return
    assert faces.points_px.shape == (len(faces), 68, 2)
    assert np.isfinite(faces.points_px).all()
    assert np.isfinite(faces.boxes_px).all()
    assert all(faces.path(row).resolve().is_relative_to(tmp_path.resolve()) for row in range(len(faces)))


@generated
@given(values)
def test_a_number_in_a_label_file_is_read_as_written_or_refused(tmp_path, text):
    written = "".join(f"&#{ord(letter)};" for letter in text)
    try:
        faces = read_ibug(xml_file(tmp_path, face().replace("x='5'", f"x='{written}'")), with_points=True)
    except UserError:
        return
    assert NUMBER.fullmatch(text)
    assert faces.points_px[0, 5, 0] == float(text)


@generated
@given(damages(asf().encode()))
def test_damaged_asf_files(tmp_path, content):
    Image.new("L", (64, 48)).save(tmp_path / "01-1m.jpg")
    (tmp_path / "01-1m.asf").write_bytes(content)
    try:
        faces = read_imm(tmp_path)
    except UserError as error:
        refused(error, "01-1m")
        return
    assert faces.pictures == ["01-1m.jpg"]
    assert faces.points_px.shape == (1, 58, 2)
    assert np.isfinite(faces.points_px).all()


@generated
@given(damages((REPOSITORY / "configs/part1.yaml").read_bytes()))
def test_damaged_configs(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    try:
        config = load_config(str(path), path.parent)
    except UserError as error:
        refused(error, "mine.yaml")
        return
    path.write_text(format_config(config))
    assert load_config(str(path), path.parent) == config


@pytest.fixture(scope="module")
def synthetic_faces(synthetic_root):
    return read_ibug(synthetic_root / IBUG_FOLDER / TRAIN_XML, with_points=True)


@pytest.fixture(scope="module")
def split(synthetic_faces, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("split") / "split.csv"
    groups = group_faces(synthetic_faces)
    write_split(path, synthetic_faces, groups, make_folds(synthetic_faces, groups, 3, seed=0))
    return path.read_bytes()


@generated
@given(st.data())
def test_damaged_split_files(tmp_path, synthetic_faces, split, data):
    content = data.draw(damages(split))
    (tmp_path / "mine.csv").write_bytes(content)
    try:
        folds = read_split(tmp_path / "mine.csv", synthetic_faces)
    except UserError as error:
        refused(error, "mine.csv")
        return
    # Read by other means, the file says the same.
    said = {row["picture"]: row["fold"] for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))}
    assert [said[picture] for picture in synthetic_faces.pictures] == [str(fold) for fold in folds]


@pytest.fixture(scope="module")
def submission(synthetic_faces, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("submission") / "a.csv"
    FORMATS["ibug"].write(path, synthetic_faces.points_px[:2], synthetic_faces.take(np.arange(2)), CropConfig())
    return path.read_bytes()


@generated
@given(st.data())
def test_damaged_submissions(tmp_path, synthetic_faces, submission, data):
    content = data.draw(damages(submission))
    (tmp_path / "a.csv").write_bytes(content)
    try:
        FORMATS["ibug"].check(tmp_path / "a.csv", synthetic_faces.take(np.arange(2)), CropConfig())
    except UserError as error:
        refused(error, "a.csv")
        return
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert [int(row[0]) for row in rows[1:]] == list(range(2 * 136))
    assert all(math.isfinite(float(row[1])) for row in rows[1:])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "last.pt"
    save_checkpoint(path, {"averaged": {"weight": torch.arange(12.0)}, "history": [{"epoch": 1}], "best": 3.5})
    return path.read_bytes()


@generated
@given(st.data())
def test_damaged_checkpoints(tmp_path, checkpoint, data):
    (tmp_path / "last.pt").write_bytes(data.draw(damages(checkpoint)))
    try:
        state = load_checkpoint(tmp_path / "last.pt")
    except UserError as error:
        refused(error, "last.pt")
        return
    assert isinstance(state, dict)


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE dataset>",
        "<!DOCTYPE dataset SYSTEM 'http://localhost/a.dtd'>",
        "<!DOCTYPE dataset [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE dataset [<!ENTITY % a SYSTEM 'file:///etc/passwd'> %a;]>",
        "<!DOCTYPE d [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 9}'>" for i in range(1, 20)) + "]>",
    ],
)
def test_no_kind_of_dtd_is_read(tmp_path, head):
    (tmp_path / TRAIN_XML).write_text(f"<?xml version='1.0'?>{head}<dataset>{face()}</dataset>")
    with pytest.raises(UserError, match="declares a DTD"):
        read_ibug(tmp_path / TRAIN_XML, with_points=True)


@pytest.mark.parametrize("picture", [".", "./", "a&#10;b.jpg", "a&#x202e;.jpg"])
def test_a_picture_name_that_is_none_is_refused(tmp_path, picture):
    with pytest.raises(UserError, match="is not the name of a picture"):
        read_ibug(xml_file(tmp_path, face(picture=picture)), with_points=True)


needs_links = pytest.mark.skipif(os.name != "posix", reason="links need rights that Windows users lack")


@needs_links
@pytest.mark.parametrize("link", ["afw/1_1.jpg", "afw"])
def test_links_out_of_the_data_folder_are_refused(tmp_path, link):
    outside = tmp_path / "outside"
    (outside / "afw").mkdir(parents=True)
    (outside / "afw/1_1.jpg").write_bytes(b"secret")
    folder = tmp_path / "data"
    (folder / link).parent.mkdir(parents=True, exist_ok=True)
    (folder / link).symlink_to(outside / link)
    with pytest.raises(UserError, match="through a link"):
        read_ibug(xml_file(folder, face()), with_points=True)


@needs_links
def test_links_that_stay_inside_and_a_linked_data_folder_are_read(tmp_path):
    folder = tmp_path / "data"
    (folder / "afw").mkdir(parents=True)
    (folder / "afw/real.jpg").write_bytes(b"")
    (folder / "afw/1_1.jpg").symlink_to("real.jpg")
    xml_file(folder, face())
    (tmp_path / "elsewhere").symlink_to(folder)
    assert len(read_ibug(tmp_path / "elsewhere" / TRAIN_XML, with_points=True)) == 1


@needs_links
def test_an_imm_picture_that_is_a_link_out_of_its_folder_is_refused(tmp_path):
    folder = tmp_path / "imm"
    folder.mkdir()
    Image.new("L", (64, 48)).save(tmp_path / "outside.jpg")
    (folder / "01-1m.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "01-1m.asf").write_text(asf())
    with pytest.raises(UserError, match="through a link"):
        read_imm(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: !!timestamp x", "not valid YAML"),
        ("train: {epochs: !!bool maybe}", "not valid YAML"),
        ("train: {epochs: 2001-99-99}", "not valid YAML"),
        ("train: {epochs: " + "9" * 5000 + "}", "not valid YAML"),
        ("[" * 3000, "nested too deep"),
        ("train: !!python/object/apply:os.system ['touch hacked']", "not valid YAML"),
        ("a: &a [1]\nb: [*a, *a]", "references"),
        ("train: {epochs: 3, epochs: 4}", "there twice"),
        ("train: {epochs: 3}\ntrain: {lr: 1}", "there twice"),
    ],
)
def test_yaml_that_is_more_than_settings_is_refused(foldmark, workplace, text, words):
    path = workplace / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_config(str(path), path.parent)
    with pytest.raises(UserError, match="SET="):
        load_config("seed", REPOSITORY / "configs", ["train.epochs=!!timestamp x"])
    assert not (workplace / "hacked").exists()


def test_the_command_line_refuses_hostile_labels_in_a_sentence(foldmark, data_root):
    path = data_root / IBUG_FOLDER / TRAIN_XML
    path.write_text(path.read_text().replace("<dataset>", "<!DOCTYPE dataset><dataset>"))
    assert_refused(foldmark("check", "--data-root", data_root), TRAIN_XML, "declares a DTD")


def test_a_checkpoint_that_is_no_state_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "last.pt")
    with pytest.raises(UserError, match="no training state"):
        load_checkpoint(tmp_path / "last.pt")


def test_every_setting_survives_its_own_text(tmp_path):
    (tmp_path / "all.yaml").write_text(format_config(Config()))
    assert load_config(str(tmp_path / "all.yaml"), tmp_path) == Config()
