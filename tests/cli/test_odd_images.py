"""A folder of odd files through the real model: captioned the right way up, or named with its fault."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from jaxphoton import api
from jaxphoton.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"


class Borrowed:
    """The suite's model, which a command must not close."""

    def __init__(self, model):
        self.batch = model.batch

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def huge_png(path: Path) -> None:
    """A header that promises 200 megapixels, and no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.fixture
def odd_folder(tmp_path) -> Path:
    scene = Image.open(EXAMPLES / "scene_07.png").convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    (tmp_path / "a_page.jpg").write_text("<html>404</html>", encoding="utf-8")
    (tmp_path / "b_empty.jpg").touch()
    scene.save(tmp_path / "c_whole.png")
    scene.save(tmp_path / "d_cut.jpg", quality=95)
    whole = (tmp_path / "d_cut.jpg").read_bytes()
    (tmp_path / "d_cut.jpg").write_bytes(whole[: len(whole) // 2])
    scene.convert("CMYK").save(tmp_path / "e_cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    scene.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "f_turned.jpg", quality=95, exif=exif)
    transparent = scene.convert("RGBA")
    transparent.putalpha(255)
    transparent.save(tmp_path / "g_alpha.png")
    scene.save(tmp_path / "h_moving.gif", save_all=True, append_images=[Image.new("RGB", scene.size)])
    huge_png(tmp_path / "i_huge.png")
    return tmp_path


def test_each_odd_file_is_captioned_or_named_with_its_fault(shapes, odd_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(api.Moondream, "from_pretrained", lambda *args, **options: Borrowed(shapes))
    out = tmp_path / "lines.jsonl"
    assert main(["caption", str(odd_folder), "--out", str(out)]) == 2
    lines = {line["key"]: line for line in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert len(lines) == 9
    truth = lines["c_whole.png"]["caption"]
    assert truth.startswith("The image shows")
    for same in ("e_cmyk.jpg", "f_turned.jpg", "g_alpha.png", "h_moving.gif"):
        assert lines[same]["caption"] == truth, same
    for bad in ("a_page.jpg", "b_empty.jpg", "d_cut.jpg", "i_huge.png"):
        assert bad in lines[bad]["error"] and "caption" not in lines[bad]
    assert "4 of 9 images failed" in capsys.readouterr().err
