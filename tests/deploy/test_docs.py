"""What the pages on deployment tell people to do."""

import re
from pathlib import Path

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.errors import KeyFileError
from lepton_flwr.deploy.device import check
from lepton_flwr.deploy.folders import create
from lepton_flwr.device import Device

ROOT = Path(__file__).parents[2]


def test_the_rows_of_the_page_make_a_device_that_can_start(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "deploy" / "device-folder.md").read_text(encoding="utf-8")
    plain, encrypted = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    create(tmp_path / "fed", 1, Address("localhost", 8000))
    monkeypatch.chdir(tmp_path / "fed" / "devices")
    device = tmp_path / "fed" / "devices" / "device-001"
    names = {}
    exec(compile(plain, "device-folder.md", "exec"), names)  # noqa: S102
    check(device)
    assert len(Device.open(device).data().y_train) == 80
    (device / "data.npz").unlink()
    exec(compile(encrypted, "device-folder.md", "exec"), names)  # noqa: S102
    check(device)
    assert len(Device.open(device).data().y_train) == 80
    (device / "data.key").unlink()
    with pytest.raises(KeyFileError, match=r"data\.key"):
        check(device)


@pytest.mark.skipif(not (ROOT / "lepton_flwr").is_dir(), reason="images are built in a checkout")
@pytest.mark.parametrize("name", ["device", "server"])
def test_an_image_runs_as_nobody_in_particular_and_copies_code_alone(name):
    text = (ROOT / "deploy" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    _, build, final = text.split("\nFROM ")
    assert "USER 10001:10001" in final
    assert f'ENTRYPOINT ["lepton", "{name}", "run", "/{name}"]' in final
    assert re.findall(r"^COPY (?:--from=build )?(\S+)", final, flags=re.MULTILINE) == [
        "/opt/lepton"
    ]
    for source in re.findall(r"^COPY (.*) \S+$", build, flags=re.MULTILINE):
        for one in source.split():
            assert (ROOT / one).exists(), one
            assert f"!{one}" in (ROOT / ".dockerignore").read_text().split()
