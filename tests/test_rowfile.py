import functools
import shutil
import tempfile

import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.measures import rowfile
from hlm_jax.measures.rowfile import row_file


def test_rows_stay_as_they_were_written(monkeypatch):
    monkeypatch.setattr(rowfile, "_AT_ONCE", 64)  # several writes, the last one shorter
    rows = row_file(7, 13, "a test")
    assert (rows.shape, rows.dtype) == ((7, 13), np.float16)
    assert not rows.any()
    for i in range(7):
        rows[i] = np.arange(13) / 2 - i
    parts = np.split(rows, [3])
    del rows
    np.testing.assert_array_equal(parts[1][-1], np.arange(13) / 2 - 6)
    assert row_file(0, 13, "a test").shape == (0, 13)
    assert row_file(7, 0, "a test").shape == (7, 0)


def test_too_little_room_is_one_line_before_anything_is_computed(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=181))
    with pytest.raises(UserError, match=r"what a test writes takes .*\(0\.0 GB are free\).*TMPDIR"):
        row_file(7, 13, "what a test writes")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=182))
    assert row_file(7, 13, "a test").size == 91
    monkeypatch.setattr(tempfile, "TemporaryFile", functools.partial(open, "/dev/full", "w+b"))
    with pytest.raises(UserError, match="No space left on device"):
        row_file(7, 13, "a test")
