"""A folder of odd files through the real model: captioned the right way up, or named with its fault."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from jaxphoton import api
from jaxphoton.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"


class Borrowed:
    """The suite's model, which a command must not close."""

    def __init__(self, model):
        self.answer, self.config, self.family, self.observe = model.answer, model.config, model.family, model.observe
        self.engine_config, self.start = model.engine_config, model.start

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
    scene.save(tmp_path / "j.avif", quality=95)
    scene.save(tmp_path / "k_moving.webp", save_all=True, append_images=[Image.new("RGB", scene.size)], lossless=True)
    grey = np.asarray(scene.convert("L"), np.uint16) * np.uint16(257)
    Image.fromarray(grey).save(tmp_path / "l_deep.png")
    scene.convert("L").save(tmp_path / "m_grey.png")
    pillow_heif.from_pillow(scene).save(tmp_path / "n.heic", quality=95)
    (tmp_path / "n_xl.jpg").write_bytes(b"\xff\x0a" + b"\0" * 64)
    scene.convert("LA").save(tmp_path / "o_grey_alpha.png")
    (tmp_path / "p_gone.png").symlink_to(tmp_path / "nowhere.png")
    return tmp_path


REASONS = {
    "a_page.jpg": "not-an-image",
    "b_empty.jpg": "empty",
    "d_cut.jpg": "truncated",
    "i_huge.png": "too-large",
    "n_xl.jpg": "unsupported",
    "p_gone.png": "not-found",
}
NOTES = {
    "e_cmyk.jpg": "converted from CMYK",
    "f_turned.jpg": "rotated by EXIF orientation 6",
    "h_moving.gif": "first of 2 frames",
    "k_moving.webp": "first of 2 frames",
    "l_deep.png": "16 bits",
}


def test_each_odd_file_is_captioned_or_named_with_its_fault(shapes, odd_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(api.Moondream, "from_pretrained", lambda *args, **options: Borrowed(shapes))
    out = tmp_path / "lines.jsonl"
    assert main(["caption", str(odd_folder), "--out", str(out)]) == 2
    lines = {line["key"]: line for line in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert len(lines) == 17
    truth = lines["c_whole.png"]["caption"]
    assert truth.startswith("The image shows")
    for same in ("e_cmyk.jpg", "f_turned.jpg", "g_alpha.png", "h_moving.gif", "j.avif", "k_moving.webp", "n.heic"):
        assert lines[same]["caption"] == truth, same
    for same in ("l_deep.png", "o_grey_alpha.png"):
        assert lines[same]["caption"] == lines["m_grey.png"]["caption"], same
    for key, note in NOTES.items():
        assert note in lines[key]["warnings"], key
    failures = [json.loads(line) for line in (tmp_path / "lines.jsonl.failures.jsonl").read_text().splitlines()]
    assert {failure["key"]: failure["reason"] for failure in failures} == REASONS
    assert "JPEG XL" in lines["n_xl.jpg"]["error"] and "HTML" in lines["a_page.jpg"]["error"]
    assert "6 of 17 images failed" in capsys.readouterr().err


def test_what_a_cut_file_still_shows_is_used_when_allowed(shapes, odd_folder, tmp_path):
    cut = odd_folder / "d_cut.jpg"
    out = tmp_path / "lines.jsonl"
    engine = shapes.engine_config
    assert main(["caption", str(cut), "--out", str(out), "--allow-truncated", "--rows", str(engine.max_rows)]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["warnings"] == "truncated file"


def test_boxes_are_those_of_the_upright_picture(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(api.Moondream, "from_pretrained", lambda *args, **options: Borrowed(shapes))
    upright = Image.open(EXAMPLES / "scene_07.png").convert("RGB")
    upright = upright.resize((300, 200), Image.Resampling.BICUBIC)
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    for suffix in (".json", ".jsonl"):
        out = str(tmp_path.with_suffix(suffix))
        assert main(["detect", str(tmp_path), "--object", "object", "--out", out, "--quiet"]) == 0
    coco = json.loads(tmp_path.with_suffix(".json").read_bytes())
    assert [(each["width"], each["height"]) for each in coco["images"]] == [(300, 200)] * 2
    boxes: dict[int, list] = {1: [], 2: []}
    for each in coco["annotations"]:
        boxes[each["image_id"]].append(each["bbox"])
    assert boxes[1] and boxes[1] == boxes[2]
    one, other = (json.loads(line)["objects"] for line in tmp_path.with_suffix(".jsonl").read_text().splitlines())
    assert one == other
