"""The undamaged project, which the tests here change and put back."""

import pytest

from tests.faults.project import Whole, make_whole


@pytest.fixture(scope="session")
def whole(synthetic_root, tmp_path_factory) -> Whole:
    return make_whole(tmp_path_factory.mktemp("faults") / "work", synthetic_root)
