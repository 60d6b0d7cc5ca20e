"""`foldmark data` as its user runs it: a set appears below DATA_ROOT whole, or not at all."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from foldmark.data.ibug import IBUG_FOLDER, TEST_XML, TRAIN_XML, find_ibug
from foldmark.data.imm import find_imm, read_imm
from foldmark.data.sets import find_data
from tests.commandline import start_process
from tests.conftest import REPOSITORY, assert_refused
from tests.data.test_imm import asf
from tests.file_server import Behaviour, serving

WORK = ".make-data"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def published(synthetic_root, tmp_path_factory) -> Path:
    """A set that looks like the published one, and not like one that Foldmark generated."""
    folder = Path(shutil.copytree(synthetic_root / IBUG_FOLDER, tmp_path_factory.mktemp("published") / IBUG_FOLDER))
    (folder / "synthetic").rename(folder / "afw")
    for name in (TRAIN_XML, TEST_XML):
        (folder / name).write_text((folder / name).read_text().replace("synthetic/", "afw/"))
    return folder


def packed(folder: Path, *, leave_out: str = "", many: int = 0) -> bytes:
    """The folder as a .tar.gz, without the test list, as the published archive is."""
    left_out = [TEST_XML, *([leave_out] if leave_out else [])]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder, folder.name, filter=lambda info: None if any(name in info.name for name in left_out) else info)
        for index in range(many):
            tar.addfile(tarfile.TarInfo(f"{folder.name}/more/{index}"))
    return content.getvalue()


@pytest.fixture(scope="session")
def archive(published) -> bytes:
    return packed(published)


@pytest.fixture
def imm(tmp_path) -> Path:
    folder = tmp_path / "mine" / "imm"
    folder.mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(folder / "01-1m.jpg")
    (folder / "01-1m.asf").write_text(asf())
    return folder


@pytest.fixture
def start(workplace):
    """Start `foldmark data ...` as a process of its own."""
    processes = []

    def run(*arguments: object) -> subprocess.Popen:
        processes.append(start_process(workplace, "data", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


def until(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.001)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shown(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != WORK)


def test_sets_from_url_archive_and_file_are_found_by_the_readers(foldmark, workplace, published, archive, imm):
    zipped = shutil.make_archive(workplace / "imm", "zip", imm.parent)
    with serving(Behaviour(archive)) as server:
        done = foldmark("data", "--ibug", server.url, "--imm", zipped, "--test-list", published / TEST_XML)
    assert done.returncode == 0, done.stderr
    data = workplace / "data"
    assert files_below(find_ibug(data)) == files_below(published)
    assert find_imm(data).name == "imm_face_db"
    assert files_below(find_imm(data)) == files_below(imm)
    assert len(find_data(data, "ibug").test) == 8
    # The download is not kept once it is unpacked, the user's own archive is.
    assert shown(data) == [IBUG_FOLDER, "imm_face_db", "sources.json"]
    assert [path.name for path in (data / WORK).iterdir()] in ([], [".lock"])
    assert Path(zipped).is_file()


def test_a_finished_step_is_not_repeated(foldmark, workplace, published, archive):
    with serving(Behaviour(archive)) as server:
        arguments = ["data", "--ibug", server.url, "--test-list", published / TEST_XML]
        assert foldmark(*arguments).returncode == 0
        before = {path: path.stat().st_mtime_ns for path in (workplace / "data").rglob("*.*") if path.is_file()}
        again = foldmark(*arguments)
        assert again.returncode == 0, again.stderr
        assert "is there" in again.stdout
        assert "move" in again.stdout, "the user hears that what was given is not used"
        assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_has_no_certain_address_is_asked_for(foldmark, workplace, archive):
    (workplace / "ibug.tar.gz").write_bytes(archive)
    done = foldmark("data", "--ibug", "ibug.tar.gz")
    assert done.returncode == 0, done.stderr
    for line in ("IMM=", "TEST_LIST="):
        assert re.search(rf"not fetched.*{line}", done.stdout)


def test_a_killed_download_leaves_nothing_that_looks_complete_and_goes_on(foldmark, start, workplace, archive):
    half = len(archive) // 2
    with serving(Behaviour(archive, tag='"a"', hang_after=half), Behaviour(archive, tag='"a"')) as server:
        process = start("--ibug", server.url)
        partial = workplace / "data" / WORK / "ibug/archive.partial"
        until(lambda: partial.exists() and partial.stat().st_size == half, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert find_ibug(workplace / "data") is None
        assert shown(workplace / "data") == []
        done = foldmark("data", "--ibug", server.url)
        assert done.returncode == 0, done.stderr
        assert server.requests[1]["Range"] == f"bytes={half}-"
    assert len(find_data(workplace / "data", "ibug").train) == 48


def test_killed_while_unpacking_leaves_nothing_that_looks_complete_and_goes_on(foldmark, start, workplace, published):
    with serving(Behaviour(packed(published, many=4000), tag='"a"')) as server:
        process = start("--ibug", server.url)
        until((workplace / "data" / WORK / "ibug/unpacked" / IBUG_FOLDER / "afw").exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (workplace / "data" / WORK / "ibug/unpacked").exists(), "killed too late: it had finished"
        assert find_ibug(workplace / "data") is None
        assert shown(workplace / "data") == []
        done = foldmark("data", "--ibug", server.url)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 1
    assert len(list((workplace / "data" / IBUG_FOLDER / "more").iterdir())) == 4000
    assert not (workplace / "data" / WORK / "ibug").exists()


def test_interrupted_by_ctrl_c_goes_on_later(start, workplace, archive):
    with serving(Behaviour(archive, tag='"a"', hang_after=1000), Behaviour(archive, tag='"a"')) as server:
        process = start("--ibug", server.url)
        partial = workplace / "data" / WORK / "ibug/archive.partial"
        until(lambda: partial.exists() and partial.stat().st_size == 1000, process)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)[0]
        assert process.returncode == 130
        assert "run the same command again to resume" in output
        assert "Traceback" not in output
        assert partial.stat().st_size == 1000


def test_two_calls_at_once_do_not_mix(foldmark, start, workplace, archive):
    with serving(Behaviour(archive, tag='"a"', hang_after=1000)) as server:
        process = start("--ibug", server.url)
        until(lambda: server.requests, process)
        assert_refused(foldmark("data", "--ibug", server.url), "another `make data`", "wait for it")
        assert len(server.requests) == 1


def test_a_file_that_changed_since_it_was_recorded_is_refused(foldmark, workplace, published, archive):
    data = workplace / "data"
    other = packed(published, many=1)
    with serving(Behaviour(archive), Behaviour(other)) as server:
        assert foldmark("data", "--ibug", server.url).returncode == 0
        entry = json.loads((data / "sources.json").read_text())[server.url]
        assert entry["size"] == len(archive)
        shutil.rmtree(data / IBUG_FOLDER)
        assert_refused(foldmark("data", "--ibug", server.url), server.url, "not the file it was", "sources.json")
        assert find_ibug(data) is None
        (data / "sources.json").write_text("{}")
        assert foldmark("data", "--ibug", server.url).returncode == 0
        assert json.loads((data / "sources.json").read_text())[server.url]["size"] == len(other)


def test_a_changed_file_of_the_same_size_is_refused(foldmark, workplace, archive):
    data = workplace / "data"
    changed = archive[:-1] + bytes([archive[-1] ^ 1])
    with serving(Behaviour(archive), Behaviour(changed)) as server:
        assert foldmark("data", "--ibug", server.url).returncode == 0
        shutil.rmtree(data / IBUG_FOLDER)
        assert_refused(foldmark("data", "--ibug", server.url), "sha256", "sources.json")
    assert find_ibug(data) is None
    assert not list((data / WORK / "ibug").glob("archive"))


@pytest.mark.parametrize("record", ["", "[1]", '{"http://a": 1}', '{"http://a": {"size": "1", "sha256": 1}}'])
def test_a_damaged_record_is_a_sentence(foldmark, workplace, archive, record):
    (workplace / "data").mkdir()
    (workplace / "data/sources.json").write_text(record)
    with serving(Behaviour(archive)) as server:
        assert_refused(foldmark("data", "--ibug", server.url), "sources.json", "damaged")
        assert not server.requests


def hostile(*names: str, link: str = "") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(info)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (hostile(f"{IBUG_FOLDER}/{TRAIN_XML}", "../../../../evil"), "leaves the folder"),
        (hostile(f"{IBUG_FOLDER}/{TRAIN_XML}", link=f"{IBUG_FOLDER}/afw"), "link"),
        (hostile(f"{IBUG_FOLDER}/{TRAIN_XML}"), "not a complete XML"),
        (hostile(f"{IBUG_FOLDER}/readme"), "does not hold iBUG"),
        (hostile("readme"), "does not hold iBUG"),
        (b"<html>please log in</html>", "a web page"),
    ],
    ids=["leaves the folder", "link", "empty labels", "no labels", "no folder", "a web page"],
)
def test_what_is_not_the_set_is_refused_and_not_kept(foldmark, workplace, content, words):
    with serving(Behaviour(content)) as server:
        assert_refused(foldmark("data", "--ibug", server.url), server.url, words)
    assert shown(workplace / "data") == []
    assert not (workplace / "data" / WORK / "ibug/archive").exists()
    assert not (workplace / "data" / WORK / "ibug/unpacked").exists()
    assert not (workplace / "evil").exists()


def test_a_server_that_claims_less_than_it_has_is_found_out(foldmark, workplace, archive):
    with serving(Behaviour(archive, length=len(archive) - 500)) as server:
        assert_refused(foldmark("data", "--ibug", server.url), server.url, "damaged")
    assert shown(workplace / "data") == []


def test_an_archive_without_all_its_pictures_is_refused(foldmark, workplace, published):
    (workplace / "ibug.tar.gz").write_bytes(packed(published, leave_out="00003.jpg"))
    assert_refused(
        foldmark("data", "--ibug", "ibug.tar.gz"), "ibug.tar.gz", "1 of 48 pictures are missing", "afw/trainset/00003.jpg"
    )
    assert shown(workplace / "data") == []
    assert (workplace / "ibug.tar.gz").exists()


def test_without_a_network_the_way_by_hand_is_named(foldmark, workplace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/ibug.tar.gz"
        assert_refused(foldmark("data", "--ibug", url), url, "cannot be reached", "make data IBUG=path")


def test_a_folder_is_taken_without_a_second_copy_and_never_written_to(foldmark, workplace, published, imm):
    (mine := workplace / "mine").mkdir()
    shutil.copytree(published, mine / IBUG_FOLDER, ignore=shutil.ignore_patterns(TEST_XML))
    before = files_below(mine), files_below(imm)
    done = foldmark("data", "--ibug", "mine", "--imm", imm, "--test-list", published)
    assert done.returncode == 0, done.stderr
    data = workplace / "data"
    assert (files_below(mine), files_below(imm)) == before
    labels = data / IBUG_FOLDER / TRAIN_XML
    assert labels.samefile(mine / IBUG_FOLDER / TRAIN_XML)
    assert len(find_data(data, "ibug").train) == 48
    assert len(find_data(data, "ibug").test) == 8
    assert len(read_imm(find_imm(data))) == 1


@pytest.mark.parametrize("option", ["--ibug", "--imm", "--test-list"])
def test_a_path_that_is_not_there_is_told_before_anything_is_fetched(foldmark, workplace, option):
    assert_refused(foldmark("data", option, "nowhere.tar.gz"), "nowhere.tar.gz", "no such file")
    assert not (workplace / "data").exists()


def test_a_test_list_that_is_none_is_refused(foldmark, workplace, published, archive):
    (workplace / "ibug.tar.gz").write_bytes(archive)
    with serving(Behaviour(b"<html>please log in</html>")) as server:
        done = foldmark("data", "--ibug", "ibug.tar.gz", "--test-list", server.url)
        assert_refused(done, server.url, "no face in it")
    other = workplace / "other.xml"
    other.write_text((published / TEST_XML).read_text().replace("afw/", "helen/"))
    assert_refused(foldmark("data", "--test-list", other), "other.xml", "8 of 8 pictures are missing", "helen/")
    assert not (workplace / "data" / IBUG_FOLDER / TEST_XML).exists()


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX systems have them")
@pytest.mark.parametrize("option", ["--ibug", "--imm", "--test-list"])
def test_a_pipe_or_device_is_refused_before_anything_is_fetched(foldmark, workplace, option):
    os.mkfifo(workplace / "pipe")
    for address in ("pipe", "/dev/zero"):
        assert_refused(foldmark("data", option, address), address, "is a pipe or device; save what comes from it to a file")
    assert not (workplace / "data").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [("~nobody-of-that-name/a.xml", "there is no such user"), ("a" * 300, "too long"), ("loop", "no such file")],
)
def test_an_address_that_no_file_can_have_is_a_sentence(foldmark, workplace, address, words):
    (workplace / "loop").symlink_to("loop")
    assert_refused(foldmark("data", "--test-list", address), "TEST_LIST", words)
    assert_refused(foldmark("data", "--data-root", "~nobody-of-that-name/data"), "DATA_ROOT", "there is no such user")


def test_the_test_list_that_was_checked_is_the_one_that_is_installed(foldmark, workplace, published, archive, monkeypatch):
    """The user's file may change between the check and the copy: here it is emptied once it has been read."""
    (workplace / "ibug.tar.gz").write_bytes(archive)
    mine = workplace / "mine.xml"
    shutil.copy(published / TEST_XML, mine)
    whole, read = mine.read_bytes(), Path.read_bytes

    def read_and_empty(path):
        content = read(path)
        if path.name == "mine.xml":
            mine.write_bytes(b"")
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_empty)
    done = foldmark("data", "--ibug", "ibug.tar.gz", "--test-list", "mine.xml")
    assert done.returncode == 0, done.stderr
    assert (workplace / "data" / IBUG_FOLDER / TEST_XML).read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"<dataset></dataset>", b"<dataset><images><image"])
def test_a_test_list_that_is_there_but_is_none_is_told(foldmark, workplace, archive, content):
    (workplace / "ibug.tar.gz").write_bytes(archive)
    assert foldmark("data", "--ibug", "ibug.tar.gz").returncode == 0
    (workplace / "data" / IBUG_FOLDER / TEST_XML).write_bytes(content)
    assert_refused(foldmark("data"), TEST_XML)


def test_a_folder_where_the_test_list_belongs_is_in_the_way(foldmark, workplace, published, archive):
    (workplace / "ibug.tar.gz").write_bytes(archive)
    assert foldmark("data", "--ibug", "ibug.tar.gz").returncode == 0
    (workplace / "data" / IBUG_FOLDER / TEST_XML).mkdir()
    assert_refused(foldmark("data", "--test-list", published), TEST_XML, "in the way")


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX systems have them")
@pytest.mark.parametrize("command", ["check", "data", "train"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.name)], ids=["pipe", "folder", "loop"])
def test_a_label_file_that_is_no_file_is_a_sentence_and_does_not_hang(foldmark, data_root, command, make):
    labels = data_root / IBUG_FOLDER / TRAIN_XML
    labels.unlink()
    make(labels)
    assert_refused(foldmark(command, "--data-root", data_root), IBUG_FOLDER)


def test_what_stands_in_the_way_is_never_removed(foldmark, workplace, archive, synthetic_root, imm):
    (workplace / "ibug.tar.gz").write_bytes(archive)
    mine = workplace / "data" / IBUG_FOLDER
    (mine / "afw").mkdir(parents=True)
    assert_refused(foldmark("data", "--ibug", "ibug.tar.gz"), str(mine.relative_to(workplace)), "lacks", "move it away")
    assert (mine / "afw").exists()
    done = foldmark("data", "--ibug", "ibug.tar.gz", "--data-root", synthetic_root)
    assert_refused(done, "synthetic faces of Foldmark", "another DATA_ROOT")
    shutil.rmtree(synthetic_root / WORK)
    (workplace / "data/imm_face_db").mkdir()
    assert_refused(foldmark("data", "--imm", imm), "imm_face_db", "in the way", "move it away")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("megabytes", [10, 66])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(foldmark, workplace, published, megabytes):
    (workplace / "ibug.tar.gz").write_bytes(packed(published, many=10))
    small = workplace / "data"
    small.mkdir()
    # The second has room for the pictures, but not for the number of files.
    options = f"size={megabytes}m" + (",nr_inodes=60" if megabytes == 66 else "")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        assert_refused(foldmark("data", "--ibug", "ibug.tar.gz"), "disk", "make room")
        assert shown(small) == []
        assert not list(small.rglob("unpacked"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_set_is_not_read_while_it_is_built(tmp_path, published):
    shutil.copytree(published, tmp_path / WORK / IBUG_FOLDER)
    assert find_ibug(tmp_path) is None


@pytest.fixture
def echoing_checkout(tmp_path):
    """A checkout whose `foldmark` prints its arguments and environment."""
    checkout = tmp_path / "check 'out'"
    checkout.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, checkout)
    command = checkout / ".venv/bin/foldmark"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "command=$*"; env\n')
    command.chmod(0o755)
    (checkout / ".venv/installed").write_text(f"{checkout.resolve()}\n")
    return checkout


def test_make_data_hands_its_variables_over_as_they_are(echoing_checkout):
    settings = ["DATA_ROOT=my data", "IBUG=http://a/b.tar.gz?c=1&d=2", "TEST_LIST=c 'd'.xml", 'IMM=`touch hacked` "e".zip']
    done = subprocess.run(["make", "data", *settings], cwd=echoing_checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"command=data", *(f"FOLDMARK_{setting}" for setting in settings)} <= set(done.stdout.splitlines())
    assert not (echoing_checkout / "hacked").exists()


@pytest.mark.parametrize("how", ["linked", "moved"])
def test_the_venv_of_another_folder_is_refused(echoing_checkout, tmp_path, how):
    other, old = tmp_path / "other", echoing_checkout.resolve()
    if how == "moved":
        echoing_checkout.rename(other)
    else:
        shutil.copytree(echoing_checkout, other, ignore=shutil.ignore_patterns(".venv"))
        (other / ".venv").symlink_to(echoing_checkout / ".venv")
    # A newer lock must not set the other's .venv up anew, either.
    (other / "requirements.lock").touch()
    done = subprocess.run(["make", "data"], cwd=other, capture_output=True, text=True)
    assert done.returncode == 2
    assert "command=" not in done.stdout
    assert f"foldmark: .venv was set up in {old}," in done.stderr
    assert "`rm -r .venv`" in done.stderr
    # The mend keeps what a link leads to.
    subprocess.run(["rm", "-r", ".venv"], cwd=other, check=True)
    assert (echoing_checkout / ".venv/installed").exists() == (how == "linked")


def test_the_real_sets_are_brought_from_archive_and_folder(foldmark, workplace, real_root):
    archive = shutil.make_archive(workplace / "imm", "tar", real_root, "imm_face_db")
    done = foldmark("data", "--imm", archive, "--ibug", real_root)
    assert done.returncode == 0, done.stderr
    assert files_below(workplace / "data/imm_face_db") == files_below(real_root / "imm_face_db")
    assert len(find_data(workplace / "data", "ibug").test) == 716
