"""A damaged checkpoint yields the right bits or an error, never a wrong value."""

import random
import shutil
import warnings
from contextlib import suppress

import pytest
import torch

from functrain.checkpoint import (
    Checkpointer,
    CheckpointWarning,
    DamagedCheckpointError,
    bundles,
    inventory,
    read_arrays,
    read_info,
    verify_checkpoint,
    verify_checkpoints,
)
from functrain.checkpoint.index import INDEX_FILE, dump_index, load_index
from functrain.foundation.errors import CheckpointError


def make_state(step):
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(64, 32, generator=generator)
    return {
        "params": {"w": weight, "w_tied": weight, "b": torch.zeros(1000)},
        "optimizer": {"mu": torch.randn(200, generator=generator).bfloat16(), "count": torch.tensor(step)},
        "progress": {"step": step, "best": 0.1 * step},
    }


def flip(path, rng):
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def zero(path, rng):
    data = bytearray(path.read_bytes())
    start = rng.randrange(max(1, len(data)))
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    path.write_bytes(bytes(data))


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(max(1, path.stat().st_size))])


def delete(path, rng):
    path.unlink()


# When orbax meets damage, it closes its event loop while reads are still in flight.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", params=["files with checksums", "files with sizes only", "bundles"])
def pristine(request, tmp_path_factory):
    """Small files have checksums; large ones must be safe without, by the checksums of their arrays."""
    directory = tmp_path_factory.mktemp("pristine")
    with pytest.MonkeyPatch.context() as patch, Checkpointer(directory, mode="max") as checkpointer:
        if request.param != "files with checksums":
            patch.setattr(inventory, "CHECKSUM_UP_TO", -1)
        patch.setattr(bundles, "MANY", 2 if request.param == "bundles" else 999)
        for step in (1, 2):
            checkpointer.save(make_state(step), step=step, metric=step)
        checkpointer.wait()
    return directory


@pytest.fixture
def run(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "run", symlinks=True)


def same(left, right, bits):
    return all(
        bits(left[g][p]) == bits(right[g][p]) if isinstance(right[g][p], torch.Tensor) else left[g][p] == right[g][p]
        for g in right
        for p in right[g]
    )


def newest_files(directory):
    return sorted(p for p in (directory / "step-00000002").rglob("*") if p.is_file())


@pytest.mark.parametrize("damage", [flip, zero, truncate, delete])
def test_a_damaged_file_never_yields_a_wrong_value(pristine, tmp_path, bits, damage):
    rng = random.Random(damage.__name__)
    fell_back = 0
    for number, file in enumerate(newest_files(pristine)):
        run = shutil.copytree(pristine, tmp_path / str(number), symlinks=True)
        damage(run / file.relative_to(pristine), rng)
        path = run / "step-00000002"
        with suppress(DamagedCheckpointError):
            assert same(read_arrays(path), make_state(2), bits)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tree, info = Checkpointer(run, mode="max").restore(
                make_state(0), random.Random(number).choice(["last", "best"])
            )
        assert same(tree, make_state(info.step), bits)
        assert all(w.category is CheckpointWarning for w in caught)
        assert (info.step == 2) == (not caught)
        fell_back += info.step == 1
    assert fell_back >= 3  # the damage was real


def random_damage(run, rng):
    """One to three files of one to all of the checkpoints are altered; says which checkpoints."""
    names = rng.sample(["step-00000001", "step-00000002"], rng.choice([1, 1, 1, 2]))
    for name in names:
        for _ in range(rng.choice([1, 1, 2, 3])):
            files = sorted(p for p in (run / name).rglob("*") if p.is_file())
            rng.choice([flip, zero, truncate, delete])(rng.choice(files), rng)
    return names


def attempt(act):
    """What it returns and None, or None and what its CheckpointError says."""
    try:
        return act(), None
    except CheckpointError as error:
        return None, str(error)


def check_random_damage(pristine, directory, bits, number):
    """No wrong value, no error without a message; the newest good one is used, and training can go on."""
    rng = random.Random(number)
    run = shutil.copytree(pristine, directory / str(number), symlinks=True)
    touched = random_damage(run, rng)
    verdicts = {verdict.name: verdict for verdict in verify_checkpoints(run).checkpoints}
    assert all(verdicts[name].status == "good" for name in verdicts if name not in touched)
    checkpointer = Checkpointer(run, mode="max", keep=9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restored, complaint = attempt(lambda: checkpointer.restore(make_state(0), rng.choice(["last", "best"])))
    if restored is None:
        assert len(touched) == 2
        assert all(verdict.status == "damaged" and verdict.reason for verdict in verdicts.values())
        assert all(name in complaint for name in touched)
        assert checkpointer.names() == ["step-00000001", "step-00000002"]
        return "none left"
    used = restored.info.name
    assert verdicts[used].status == "good"  # what verifies is what is used
    assert same(restored.tree, make_state(restored.info.step), bits)
    assert all(w.category is CheckpointWarning for w in caught)
    messages = [str(w.message) for w in caught]
    assert ["/step-00000002 is damaged: " in m for m in messages].count(True) == (used == "step-00000001")
    assert all(m.endswith(f".damaged and {used} is used instead") for m in messages)
    if used == "step-00000002":
        return "unharmed"
    with checkpointer:
        checkpointer.save(make_state(3), step=2)
    assert checkpointer.names() == ["step-00000001", "step-00000002.r1"]
    assert same(Checkpointer(run).restore(make_state(0)).tree, make_state(3), bits)
    return "fell back"


def test_of_random_damage_none_yields_a_wrong_value_or_an_error_without_a_message(pristine, tmp_path, bits):
    outcomes = [check_random_damage(pristine, tmp_path, bits, number) for number in range(20)]
    assert outcomes.count("fell back") >= 5


@pytest.mark.slow
def test_of_much_random_damage_none_yields_a_wrong_value(pristine, tmp_path, bits):
    outcomes = [check_random_damage(pristine, tmp_path, bits, number) for number in range(20, 220)]
    assert outcomes.count("fell back") >= 50
    assert "none left" in outcomes


def test_every_flipped_bit_of_data_is_seen(pristine, tmp_path, bits):
    rng = random.Random(0)
    data = max(newest_files(pristine), key=lambda p: p.stat().st_size)
    for number in range(12):
        run = shutil.copytree(pristine / "step-00000002", tmp_path / str(number))
        flip(run / data.relative_to(pristine / "step-00000002"), rng)
        try:
            assert same(read_arrays(run), make_state(2), bits)  # padding and stale manifests may flip unseen
        except DamagedCheckpointError:
            continue


def test_a_wrong_byte_names_the_file_or_the_leaf(run):
    path = run / "step-00000002"
    needle = make_state(2)["params"]["w"].numpy().tobytes()[:64]
    (file,) = [p for p in newest_files(run) if needle in p.read_bytes()]
    file.write_bytes(file.read_bytes().replace(needle, bytes([needle[0] ^ 1]) + needle[1:]))
    with pytest.raises(DamagedCheckpointError) as error:
        Checkpointer(run).restore(make_state(0), "step-00000002")
    name = file.relative_to(path).as_posix()
    reason = f"the checksum of its file {name} does not match"
    if load_index(path).files[name].crc32 is None:
        reason = "the data of params/w do not match their checksum"
    assert str(error.value) == f"checkpoint {path} is damaged: {reason}"
    assert path.exists()  # what was named explicitly is not set aside


def test_damage_of_one_group_does_not_keep_from_reading_another(run, bits):
    path = run / "step-00000002"
    truncate(path / "optimizer" / "_METADATA", random.Random(0))
    (path / "optimizer" / "manifest.ocdbt").unlink()
    assert same(read_arrays(path, groups=["params"]), {"params": make_state(2)["params"]}, bits)
    with pytest.raises(DamagedCheckpointError, match=r"its file optimizer/_METADATA has \d+ bytes, \d+ were written"):
        read_arrays(path)
    (path / "optimizer" / "_METADATA").unlink()
    with pytest.raises(DamagedCheckpointError, match="its file optimizer/_METADATA is missing"):
        read_arrays(path)


def test_a_damaged_checkpoint_is_set_aside_and_the_next_is_used(run):
    flip(run / "step-00000002" / INDEX_FILE, random.Random(1))
    with pytest.warns(CheckpointWarning) as caught:
        info = Checkpointer(run).restore(make_state(0)).info
    assert info.name == "step-00000001"
    assert [str(w.message) for w in caught] == [
        f"checkpoint {run}/step-00000002 is damaged: the checksum of its index functrain.json does not "
        f"match; it was renamed to step-00000002.damaged and step-00000001 is used instead"
    ]
    assert caught[0].filename == __file__
    assert (run / "step-00000002.damaged").is_dir()
    assert (run / "last").resolve().name == (run / "best").resolve().name == "step-00000001"
    assert Checkpointer(run).names() == ["step-00000001"]
    with Checkpointer(run) as checkpointer:  # the name of the damaged one is not used again
        checkpointer.save(make_state(2), step=2)
    assert Checkpointer(run).names() == ["step-00000001", "step-00000002.r1"]


def test_a_reader_leaves_a_damaged_checkpoint_where_it_is(run):
    flip(run / "step-00000002" / INDEX_FILE, random.Random(1))
    with pytest.warns(CheckpointWarning, match="it was left where it is and step-00000001 is used instead"):
        Checkpointer(run, read_only=True).restore(make_state(0), "best")
    assert (run / "step-00000002").is_dir()


def test_nothing_is_set_aside_when_all_are_damaged(run):
    for name in ("step-00000001", "step-00000002"):
        (run / name / INDEX_FILE).write_bytes(b"{}")
    for which in ("last", "best"):
        with pytest.raises(CheckpointError) as error:
            Checkpointer(run).restore(make_state(0), which)
        assert str(error.value).startswith(f"no checkpoint in {run} is undamaged:\n  step-0000000")
        assert str(error.value).count("the checksum of its index functrain.json does not match") == 2
    assert sorted(p.name for p in run.iterdir()) == ["best", "last", "step-00000001", "step-00000002"]


def test_an_incomplete_checkpoint_is_damaged_and_set_aside(run):
    (run / "step-00000002" / "commit_success.txt").unlink()
    (run / "step-00000009").mkdir()
    assert [info.name for info in Checkpointer(run).infos()] == ["step-00000001"]
    with pytest.warns(CheckpointWarning) as caught:
        assert Checkpointer(run).restore(make_state(0)).info.step == 1
    reasons = {"step-00000009": "its index functrain.json", "step-00000002": "its file commit_success.txt"}
    assert [str(w.message) for w in caught] == [
        f"checkpoint {run}/{name} is damaged: {reason} is missing; it was renamed to {name}.damaged and "
        "step-00000001 is used instead"
        for name, reason in reasons.items()
    ]
    assert [w.filename for w in caught] == [__file__] * 2


def test_a_run_whose_only_checkpoint_is_incomplete_does_not_look_like_a_new_one(run):
    """A run that found no names would start over, and its first save would be all that is left."""
    shutil.rmtree(run / "step-00000001")
    (run / "step-00000002" / INDEX_FILE).unlink()
    assert Checkpointer(run).names() == ["step-00000002"]
    for which in ("last", "best"):
        with pytest.raises(CheckpointError, match=r"is undamaged:\n  step-00000002: its \w+ functrain.json is missing"):
            Checkpointer(run).restore(make_state(0), which)


def test_a_checkpoint_that_does_not_fit_is_no_damage(run):
    with pytest.raises(CheckpointError) as error:
        Checkpointer(run).restore({"params": {"w": torch.zeros(1)}})
    assert not isinstance(error.value, DamagedCheckpointError)
    assert (run / "step-00000002").is_dir()


def test_a_full_table_of_open_files_is_no_damage(run, monkeypatch):
    from functrain.checkpoint import reader

    def fail(*args, **kwargs):
        raise ValueError("UNAVAILABLE: cannot open [os_error_code='24']")

    monkeypatch.setattr(reader.orbax_io, "load_item", fail)
    with pytest.raises(CheckpointError, match="Too many open files") as error:
        Checkpointer(run).restore(make_state(0))
    assert not isinstance(error.value, DamagedCheckpointError)
    assert (run / "step-00000002").is_dir()


def test_an_index_that_lies_is_refused_before_memory_is_allocated(run):
    path = run / "step-00000002"
    index = load_index(path)
    leaves = index.groups["params"].leaves
    leaves["b"] = leaves["b"]._replace(shape=(2**60,))
    (path / INDEX_FILE).write_bytes(dump_index(index))
    with pytest.raises(DamagedCheckpointError, match=r"it should hold 4611686018427|cannot be at place"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"item": "params"', '"item": "../params"'),
        ('"dtype": "float32"', '"dtype": "object"'),
        ('"alias": ["params", "w"]', '"alias": ["params", "w_tied"]'),
        ('"step": 2', '"step": -2'),
        ('"metric": 2.0', '"metric": "2"'),
        ('"shape": [1000]', '"shape": [1000], "stride": [9]'),
        ('"files": {"', '"files": {"../'),
        ('"groups": [', '"groups": ' + "[" * 3000),
    ],
)
def test_an_index_of_the_wrong_form_is_refused(run, old, new):
    """With a valid checksum, as somebody who means harm would write it."""
    import hashlib

    path = run / "step-00000002" / INDEX_FILE
    text = path.read_text()
    assert old in text
    body = text.split("\n")[1].replace(old, new)
    checksum = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(f'{{"sha256": "{checksum}", "index":\n{body}\n}}\n')
    with pytest.raises(DamagedCheckpointError, match="does not have the expected form"):
        read_info(path.parent)


def test_a_newer_format_is_refused_without_being_called_damaged(run):
    path = run / "step-00000002"
    index = load_index(path)
    object.__setattr__(index, "format_version", 3)
    (path / INDEX_FILE).write_bytes(dump_index(index))
    with pytest.raises(CheckpointError) as error:
        Checkpointer(run).restore(make_state(0))
    assert str(error.value) == (
        f"checkpoint {path} has format version 3, this functrain reads up to 2: "
        "read it with the functrain that wrote it"
    )
    assert path.is_dir()


def test_verify_reports_on_every_checkpoint_and_changes_nothing(run):
    def everything():
        return {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}

    report = verify_checkpoints(run)
    assert report.ok
    assert [(v.name, v.status, v.info.step) for v in report.checkpoints] == [
        ("step-00000001", "good", 1),
        ("step-00000002", "good", 2),
    ]
    assert (report.directory, report.newest_good, report.set_aside) == (run, "step-00000002", ())
    flip(run / "step-00000002" / INDEX_FILE, random.Random(1))
    shutil.copytree(run / "step-00000002", run / "step-00000003.damaged")
    shutil.copytree(run / "step-00000001", run / "step-00000004")
    index = load_index(run / "step-00000004")
    object.__setattr__(index, "format_version", 99)
    (run / "step-00000004" / INDEX_FILE).write_bytes(dump_index(index))
    before = everything()
    report = verify_checkpoints(run)
    assert not report.ok
    assert report.newest_good == "step-00000001"
    assert report.set_aside == ("step-00000003.damaged",)
    assert [v.status for v in report.checkpoints] == ["good", "damaged", "unreadable"]
    assert report.checkpoints[1].reason == "the checksum of its index functrain.json does not match"
    assert "has format version 99" in report.checkpoints[2].reason
    assert everything() == before


def test_verify_sees_a_single_flipped_bit_of_an_array(run):
    needle = make_state(2)["params"]["w"].numpy().tobytes()[:64]
    (file,) = [p for p in newest_files(run) if needle in p.read_bytes()]
    file.write_bytes(file.read_bytes().replace(needle, needle[:-1] + bytes([needle[-1] ^ 128])))
    with pytest.raises(DamagedCheckpointError):
        verify_checkpoint(run / "step-00000002")
    assert verify_checkpoints(run).newest_good == "step-00000001"


def test_verify_of_no_directory_and_of_an_empty_one(tmp_path):
    assert verify_checkpoints(tmp_path) == type(verify_checkpoints(tmp_path))(tmp_path, ())
    assert verify_checkpoints(tmp_path).ok
    assert verify_checkpoints(tmp_path).newest_good is None
    with pytest.raises(CheckpointError, match=r"there is no directory .*none: give the one that holds"):
        verify_checkpoints(tmp_path / "none")
