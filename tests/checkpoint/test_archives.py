"""Archives: the same content gives the same bytes, and a file that is not as it was written is one error."""

import json
import zipfile

import pytest
import torch

from functrain.checkpoint import load_state_dict, open_archive, write_archive, write_safetensors
from functrain.foundation.errors import CheckpointError

ABOUT = {"name": "small", "step": 3}


@pytest.fixture
def members(tmp_path):
    write_safetensors({"w": torch.arange(3.0)}, tmp_path / "model.safetensors")
    return {"model.safetensors": tmp_path / "model.safetensors", "notes/a.txt": b"some text", "empty": b""}


@pytest.fixture
def archive(tmp_path, members):
    path = tmp_path / "a.zip"
    write_archive(path, members, ABOUT)
    return path


def read(path):
    with open_archive(path) as archive:
        return archive.manifest, archive.read("notes/a.txt"), archive.tensors(), archive.is_own


def rewritten(path, change=lambda name, content: content, more=(), **options):
    """The archive with other members, by a zip tool."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, each in [*((name, change(name, each)) for name, each in content.items()), *more]:
            archive.writestr(name, each)


def test_what_was_written_is_read_and_its_author_known(archive):
    manifest, text, tensors, is_own = read(archive)
    assert {name: manifest[name] for name in ABOUT} == ABOUT
    assert manifest["files"]["notes/a.txt"]["size"] == len(text)
    assert (text, is_own) == (b"some text", True)
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert torch.equal(load_state_dict(archive)["w"], torch.arange(3.0))


def test_the_same_content_gives_the_same_bytes_in_any_order(archive, members, tmp_path):
    other = tmp_path / "elsewhere.zip"
    write_archive(other, dict(reversed(members.items())), dict(reversed(ABOUT.items())))
    assert other.read_bytes() == archive.read_bytes()


def test_the_archive_of_somebody_else_is_read_and_known_as_such(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert read(archive)[3] is False


def test_a_changed_manifest_has_no_valid_signature(archive):
    def change(name, content):
        return content.replace(b'"step": 3', b'"step": 4') if name == "archive.json" else content

    rewritten(archive, change)
    assert read(archive)[3] is False


def test_a_file_cut_off_anywhere_is_one_error(archive):
    content = archive.read_bytes()
    for length in range(0, len(content), 37):
        archive.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"a\.zip is (damaged|not an archive of)"):
            read(archive)


def test_a_changed_byte_of_any_member_is_one_error(archive):
    content = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        starts = {info.filename: info.header_offset + 30 + len(info.filename) for info in opened.infolist()}
        sizes = {info.filename: info.file_size for info in opened.infolist()}
    for name, start in starts.items():
        if sizes[name]:
            place = start + sizes[name] // 2
            archive.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(CheckpointError, match=r"a\.zip is damaged: "):
                read(archive)


def test_a_member_that_was_exchanged_has_another_checksum(archive):
    rewritten(archive, lambda name, content: b"other text" if name == "notes/a.txt" else content)
    with pytest.raises(CheckpointError, match=r"a\.zip is damaged: notes/a\.txt does not have the checksum"):
        read(archive)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:\\evil", "new\nline", ".hidden"])
def test_a_member_whose_name_leads_elsewhere_is_refused(archive, name):
    rewritten(archive, more=[(name, "x")])
    with pytest.raises(CheckpointError, match=r"the name of its member .* is not a plain one"):
        read(archive)


def manifest(change):
    def changed(name, content):
        return json.dumps(change(json.loads(content))).encode() if name == "archive.json" else content

    return changed


STRANGE = {
    "more": ({"more": [("more.txt", "x")]}, "does not list what it holds: more.txt"),
    "compressed": ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or encrypted"),
    "a list": ({"change": manifest(lambda _: [])}, "does not say which version"),
    "no files": ({"change": manifest(lambda values: values | {"files": 3})}, "is damaged: "),
    "newer": ({"change": manifest(lambda values: values | {"version": 99})}, "it has version 99 of the format"),
    "deep": ({"change": lambda name, content: b"[" * 100_000 if name == "archive.json" else content}, "is damaged: "),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_functrain_does_not_write_is_one_error(archive, kind):
    options, message = STRANGE[kind]
    rewritten(archive, **options)
    with pytest.raises(CheckpointError, match=message):
        read(archive)


def test_two_members_of_one_name_are_refused(archive):
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewritten(archive, more=[("empty", "")])
    with pytest.raises(CheckpointError, match="two of its members have one name"):
        read(archive)


def test_members_that_lie_over_each_other_are_refused_before_they_are_read(archive):
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for field in (20, 24):  # compressed and uncompressed size
        content[directory + field : directory + field + 4] = (2**31 - 1).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(CheckpointError, match="its members have more bytes than the file"):
        read(archive)


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x80\x02"])
def test_another_file_is_said_to_be_one(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.zip is not an archive of 'functrain export'"):
        read(tmp_path / "x.zip")


def test_what_is_no_file_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read(tmp_path / "none.zip")
    with pytest.raises(CheckpointError, match="it is a directory"):
        read(tmp_path)


def test_a_place_that_cannot_be_written_to_is_one_error(tmp_path):
    with pytest.raises(CheckpointError, match="could not write"):
        write_archive(tmp_path / "no/such/a.zip", {"a": b""}, {})
