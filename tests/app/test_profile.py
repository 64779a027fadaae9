"""The command that measures: its table, its files, what it refuses."""

import json

import pytest


def test_profile_prints_a_table_and_writes_its_files_and_no_run(functrain, project):
    code, out, err = functrain(
        "profile", "tiny.yaml", "--steps", "2", "compile.enabled=true", "compile.backend=aot_eager"
    )
    assert (code, err) == (0, "")
    folder = project / "profiles" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["profile.json", "trace.json"]
    assert not (project / "runs").exists()
    assert "profile of tiny: 2 updates on cpu, aot_eager/default, fp32" in out
    assert "samples/s, 8 an update" in out or "samples/s, 6 an update" in out or "samples/s, 7 an update" in out
    assert "not stated: the peak of this device is not known" in out
    rows = [line.split()[0] for line in out.splitlines() if line.split()[-1:] and line.strip()[0].isalpha()]
    assert {"data", "step", "metrics", "checkpoint"} <= set(rows)
    saved = json.loads((folder / "profile.json").read_text())
    assert set(saved["seconds"]) == {"data", "step", "metrics", "checkpoint", "checkpoint on disk"}
    assert saved["mfu"] is None


def test_profile_writes_where_it_is_told(functrain, project):
    assert functrain("profile", "tiny.yaml", "--steps", "1", "--out", "here/it/is")[0] == 0
    assert (project / "here/it/is/profile.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.yaml"], "there is no configuration file nope.yaml"),
        (["tiny.yaml", "--steps", "0"], "--steps: '0' must be a whole number, 1 or more"),
        (["tiny.yaml", "--out", "tiny.yaml"], "--out tiny.yaml is a file; name a directory"),
        (["tiny.yaml", "compile.backend=nope", "compile.enabled=true"], "backend must be one of"),
        (["tiny.yaml", "optimizer.rate=1"], "unknown key 'rate'"),
    ],
)
def test_profile_says_what_is_wrong(functrain, arguments, message):
    code, _, err = functrain("profile", *arguments)
    assert code == 2
    assert message in err
