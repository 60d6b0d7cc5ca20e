"""The standard split of 300-W: trained, judged and reported as papers do."""

import re

import numpy as np
import pytest

from foldmark.core.metrics import PAPER_METRICS
from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, read_ibug
from foldmark.ensemble.oof import read_oof
from foldmark.ensemble.standard import judge_parts
from foldmark.runs.run_folder import RunFolder

# Which folder of 300-W each synthetic face stands in.
PLACES = ["helen/trainset", "afw", "lfpw/testset", "lfpw/trainset", "helen/testset", "ibug"]

# Without the stages before, which other tests cover.
ALONE = "model.aligner=null train.start=null "


@pytest.fixture
def papers_root(data_root):
    """The synthetic set with its pictures in the folders of 300-W; a test face is in the test list, without labels."""
    return move_pictures(data_root, PLACES)


def move_pictures(data_root, places):
    folder = data_root / IBUG_FOLDER
    for xml in (TRAIN_XML, TEST_XML):
        text = (folder / xml).read_text(encoding="utf-8")
        for picture in set(re.findall(r"file='([^']+)'", text)):
            name = picture.rsplit("/", 1)[1]
            number = int(re.match("[0-9]+", name)[0])
            place = folder / (places[number % len(places)] if xml == TRAIN_XML else "helen/testset")
            place.mkdir(parents=True, exist_ok=True)
            (folder / picture).rename(place / name)
            text = text.replace(f"file='{picture}'", f"file='{(place / name).relative_to(folder)}'")
        (folder / xml).write_text(text, encoding="utf-8")
    return data_root


def test_the_config_trains_and_is_reported_beside_the_published_results(papers_root, workplace, foldmark, quick):
    options = ["--data-root", papers_root, "--config", "300w", "--name", "papers"]
    settings = ["--set", ALONE + quick.replace("folds.count=2", "folds.alike=false"), "--device", "cpu"]
    done = foldmark("train", *options, *settings)
    assert done.returncode == 0, done.stderr
    faces = read_ibug(papers_root / IBUG_FOLDER / TRAIN_XML, with_points=True)
    oof = read_oof(RunFolder(workplace / "runs/papers"), faces)
    assert {picture.rsplit("/", 1)[0] for picture in oof.faces.pictures} == {"lfpw/testset", "helen/testset", "ibug"}
    common, challenge, full = judge_parts(oof)
    assert (len(common.rows), len(challenge.rows), len(full.rows), full.of) == (8, 4, 12, 689)
    assert not any("_mirror" in oof.faces.pictures[row] for row in full.rows)
    nme = oof.nme[common.rows].mean()
    assert f"common NME {nme:.2f} %, 8 of 554 faces judged" in done.stdout
    done = foldmark("report", *options, *settings[:2])
    assert done.returncode == 0, done.stderr
    page = (workplace / "runs/papers/report.html").read_text(encoding="utf-8")
    assert "4 test faces without labels in this data" in page
    assert "Zhou et al. 2023" in page
    assert f"{nme:.2f} (8 of 554)" in page


def test_without_faces_of_the_challenge_there_is_no_figure_of_the_full_set(data_root, workplace, foldmark, quick):
    options = ["--data-root", move_pictures(data_root, PLACES[:-1]), "--config", "300w", "--name", "papers"]
    settings = ["--set", ALONE + quick.replace("folds.count=2", "folds.alike=false"), "--device", "cpu"]
    done = foldmark("train", *options, *settings)
    assert done.returncode == 0, done.stderr
    assert "challenge 0 of 135 faces judged; full set not judged" in done.stdout
    assert "full NME" not in done.stdout
    assert foldmark("report", *options, *settings[:2]).returncode == 0
    page = (workplace / "runs/papers/report.html").read_text(encoding="utf-8")
    ours = re.search(r"<tr>(?:(?!</tr>).)*this experiment", page, re.DOTALL).group()
    assert ours.count("not judged") == 2


def test_the_figures_are_those_of_the_papers(real_faces):
    faces = real_faces.take(np.arange(4))
    off = np.zeros_like(faces.points_px)
    off[:, :, 0] = np.array([0, 2, 9, 11])[:, None] / 100 * faces.eye_distance_px[:, None]
    found = {key: metric.score(faces.points_px + off, faces) for key, metric in PAPER_METRICS.items()}
    assert found == pytest.approx({"nme": 5.5, "failures": 50, "loose_failures": 25, "area": 100 * (1 + 0.75) / 4})
