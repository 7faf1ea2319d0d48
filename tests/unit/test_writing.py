"""Files that are whole or not there: leftovers of killed processes, permissions, what must not be read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertlab.errors import RunError
from bertlab.runs import files


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    code = f"""
import os, signal, pathlib
from bertlab.runs.files import temporary_folder, write_atomically
place = pathlib.Path({str(tmp_path)!r})
with temporary_folder(place / "made") as folder:
    (folder / "part").write_text("x")
    write_atomically(place / "file.json", lambda temporary: os.kill(os.getpid(), signal.SIGKILL))
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    left = sorted(path.name[:6] for path in tmp_path.iterdir())
    assert left == [".file.", ".made."]
    with files.temporary_folder(tmp_path / "made") as own:
        files.clear_orphans(tmp_path, "other")
        assert len(list(tmp_path.iterdir())) == 3
        files.clear_orphans(tmp_path)
        assert list(tmp_path.iterdir()) == [own]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no umask there")
def test_files_and_folders_are_as_open_as_the_umask_says(tmp_path: Path) -> None:
    code = f"""
import pathlib
from bertlab.runs.files import publish_folder, write_text
place = pathlib.Path({str(tmp_path)!r})
write_text(place / "file", "x")
publish_folder(place / "folder", lambda folder: (folder / "file").write_text("x"))
"""
    for mask, file, folder in ((0o077, 0o600, 0o700), (0o022, 0o644, 0o755)):
        subprocess.run([sys.executable, "-c", code], check=True, umask=mask)
        modes = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
        assert modes == {Path("file"): file, Path("folder"): folder, Path("folder/file"): file}
        shutil.rmtree(tmp_path / "folder")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no plain file"):
        files.file_digest(tmp_path / "pipe")
    with pytest.raises(RunError, match="damaged weights"):
        files.load_weights(tmp_path / "pipe")
