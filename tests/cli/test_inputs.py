"""Which images a command means: what is passed over is said, keys stay from run to run, a dry run counts as the run."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import threading

import pytest

from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines, make_folder, make_journal, make_tar, picture, read_tar
from tests.batch.site import Site, send


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys) -> dict[str, dict]:
    return {(row := json.loads(line))["key"]: row for line in capsys.readouterr().out.splitlines()}


def test_what_was_passed_over_is_said_once(model, here, capsys):
    make_folder(here / "p", ["a.jfif", "b.png", "@eaDir/b.png/T.jpg", ".x.png"])
    for name in ("a.txt", "c.mov", "d.mov"):
        (here / "p" / name).write_text("no image")
    assert main(["caption", "p"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["key"] for line in captured.out.splitlines()] == ["a.jfif", "b.png"]
    assert captured.err.count("4 files passed over: 2 .mov, 1 .txt, 1 hidden") == 1
    assert captured.err.count("1 folder left out: 1 @eaDir") == 1
    assert main(["caption", "p", "--exclude", "*.jfif", "--exclude", "nothing", "--out", "x.jsonl"]) == 0
    assert "1 excluded" in capsys.readouterr().err and [row["key"] for row in json_lines(here / "x.jsonl")] == ["b.png"]


@pytest.mark.parametrize("options", [["--out", "x.jsonl"], ["--out", "x.tar"], []])
@pytest.mark.parametrize(
    "spec", [["s.tar"], ["s.tar", "a.png", "--exclude", "a.png"], ["p.tar", "--image-column", "x"]]
)
def test_no_image_at_all_is_an_error(model, here, capsys, spec, options):
    make_tar(here / "s.tar", {"a.txt": b"text"})
    make_tar(here / "p.tar", {"a.png": picture()})
    make_folder(here, ["a.png"])
    assert main(["caption", *spec, *options]) == 1
    err = capsys.readouterr().err
    assert "no image found; " in err and "1 sample without an image passed over" in err
    assert "nothing is left" not in err and "Traceback" not in err
    assert main(["caption", *spec, "--shard", "0/2"]) == 0  # the others may have some


def test_a_note_about_the_choice_of_an_image_is_a_warning_of_its_record(model, here, capsys):
    make_folder(here, ["a.png", "b.png"])
    (here / "l.jsonl").write_text(json.dumps({"id": 1, "images": ["a.png", "b.png"]}) + "\n")
    assert main(["caption", "l.jsonl", "--out", "x.jsonl"]) == 0
    with JournalReader(here / "x.jsonl.journal") as reader:
        (record,) = reader.records()
    assert record.key == "1" and "first of 2 images" in record.warnings and record.path.endswith("a.png")


def test_no_base64_in_journal_messages_or_outputs(model, here, capsys):
    text = base64.b64encode(picture(1) + bytes(30_000)).decode()
    rows = [{"image": f"data:image/png;base64,{text}"}, {"image": text}, {"image": "?" + text}]
    (here / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["caption", "l.jsonl", "--out", "x.jsonl"]) == 2
    captured = capsys.readouterr()
    files = [path.read_text() for path in here.glob("x.*")]
    assert len(files) == 3 and all(text[:50] not in part for part in (*files, captured.out, captured.err))
    assert "neither a path nor an image" in "".join(files)


def test_inputs_side_by_side_go_on_where_they_were(model, here):
    make_folder(here, ["train/1.png", "val/1.png"])
    command = ["caption", "train", "val", "--out", "x.jsonl"]
    assert main([*command, "--limit", "1"]) == 0 and main(command) == 0 and main(command) == 0
    assert sorted(row["key"] for row in json_lines(here / "x.jsonl")) == ["train/1.png", "val/1.png"]
    assert [name for name, *_ in model.calls] == ["1.png", "1.png"]


def test_a_journal_from_before_keys_had_folders_goes_on(model, here):
    from jaxphoton.batch.journal.record import Record

    make_folder(here, ["train/a.png", "val/b.png", "val/c.png"])
    command = ["caption", "train", "val", "--out", "x.jsonl"]
    assert main([*command, "--limit", "1"]) == 0
    with JournalReader(here / "x.jsonl.journal") as reader:
        header, keys = reader.header, [record.key for record in reader.records()]
    assert keys == ["a.png"] and "exclude" not in header.settings["columns"]
    (here / "x.jsonl.journal").unlink()
    make_journal(here / "x.jsonl.journal", [Record("a.png", "ok"), Record("b.png", "ok")], header)
    model.calls.clear()
    assert main(command) == 0
    assert [name for name, *_ in model.calls] == ["c.png"]


@pytest.mark.parametrize("extra", [[], ["--shard", "1/3"], ["--limit", "4"], ["--exclude", "*3*"]])
@pytest.mark.parametrize("specs", [["p"], ["p", "q"], ["p/*.png"], ["l.txt"], ["s.tar"], ["l.jsonl", "q"]])
def test_a_dry_run_counts_what_a_run_does(model, here, capsys, specs, extra):
    make_folder(here, [f"{folder}/{n}.png" for folder in "pq" for n in range(12)])
    (here / "p" / "notes.md").write_text("")
    (here / "l.txt").write_text("\n".join(["p/1.png", "p/2.png", "p/1.png", "", "gone.png", "p/3.png"] * 2))
    rows = [{"image": "p/1.png"}, {"image": "p/2.png"}, {"image": "p/2.png"}, {"text": 1}, {"image": "p/3.png"}]
    (here / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_tar(here / "s.tar", {f"{n}.png": picture(n) for n in range(30)} | {"x.txt": b""})
    main(["caption", *specs, *extra])
    images = len(capsys.readouterr().out.splitlines())
    assert main(["caption", *specs, *extra, "--dry-run", "--model", "moondream2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{images} images, of which {images} were looked at") and images


def test_a_dry_run_names_the_reasons_that_decoding_would(model, here, capsys):
    from PIL import Image, PngImagePlugin

    from jaxphoton.image.decode import ImageError, decode

    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * (3 << 20), zip=True)
    (here / "p").mkdir()
    Image.new("RGB", (8, 6)).save(here / "p" / "texts.png", pnginfo=texts)
    files = {"empty.png": b"", "page.jpg": b"<html>", "raw.png": b"II*\0\x10\0\0\0CR\x02\0", "half.gif": b"GIF89a"}
    files |= {"video.png": b"\0\0\0\x18ftypmp42" + bytes(40), "drawing.png": b"<svg xmlns='x'/>", "ok.png": picture()}
    for name, data in files.items():
        (here / "p" / name).write_bytes(data)
    (here / "p" / "link.png").symlink_to("gone")
    expected = []
    for path in sorted((here / "p").iterdir()):
        try:
            decode(path)
        except ImageError as error:
            expected.append(error.reason)
    assert len(expected) == 7
    assert main(["caption", "p", "--dry-run", "--model", "moondream2"]) == 0
    text = capsys.readouterr().out
    listed = text.partition("cannot be used: ")[2].splitlines()[0].split(", ")
    assert sorted(listed) == sorted(f"{reason} {expected.count(reason)}" for reason in set(expected))


@pytest.mark.parametrize("out", [True, False])
def test_addresses_that_hang_hold_up_no_other_and_time_out(model, here, capsys, out):
    pytest.importorskip("aiohttp")

    def answer(site, handler, path, number):
        if "hang" in path:
            # Until all others were asked for: were they held up, none would be.
            done.wait(60)
            site.over.wait(60)
        else:
            if len(site.tries) == 12:
                done.set()
            send(handler, picture())

    done = threading.Event()
    with Site(answer) as site:
        names = [f"{site.url}/{'hang' if n in (0, 5) else 'ok'}{n}.png" for n in range(12)]
        (here / "l.txt").write_text("\n".join(names))
        command = ["caption", "l.txt", "--timeout", "2", *(["--out", "x.jsonl"] if out else [])]
        assert main(command) == 2
    captured = capsys.readouterr()
    if out:
        rows = {row["key"]: row for row in json_lines(here / "x.jsonl")}
        assert list(rows) != names and sorted(rows) == sorted(names)
    else:
        rows = {(row := json.loads(line))["key"]: row for line in captured.out.splitlines()}
        assert list(rows) == names
    assert [n for n, name in enumerate(names) if "timed out after 2 s" in json.dumps(rows[name])] == [0, 5]
    assert done.is_set()


@pytest.mark.parametrize("value", ["0", "-1", "soon"])
def test_limits_of_patience_are_checked(model, here, capsys, value):
    make_folder(here, ["a.png"])
    with pytest.raises(SystemExit):
        main(["caption", "a.png", "--timeout", value])
    assert "--timeout" in capsys.readouterr().err


def test_a_tar_of_any_kind_comes_back_whole(model, here):
    members = {"1.png": picture(1), "2.png": picture(2), "1.txt": b"old one", "2.txt": b"old two"}
    one = make_tar(here / "one.tar", members).read_bytes()
    with tarfile.open(here / "two.tar", "w") as tar:
        for name, link in (("3.png", ""), ("4.png", "3.png")):
            info = tarfile.TarInfo(name)
            if link:
                info.type, info.linkname = tarfile.LNKTYPE, link
            info.size = 0 if link else len(picture(3))
            tar.addfile(info, None if link else io.BytesIO(picture(3)))
    (here / "j.tar").write_bytes(one + (here / "two.tar").read_bytes())
    (here / "p.tgz").write_bytes(gzip.compress(one))
    command = ["caption", "j.tar", "p.tgz", "--out", "out/", "--form", "webdataset", "--existing", "overwrite"]
    assert main([*command, "--suffix", " (was: {caption})"]) == 0
    joined, packed = read_tar(here / "out" / "j.tar"), read_tar(here / "out" / "p.tar")
    assert list(joined) == ["1.png", "1.txt", "2.png", "2.txt", "3.png", "3.txt", "4.png", "4.txt"]
    assert list(packed) == ["1.png", "1.txt", "2.png", "2.txt"]
    assert joined["4.png"] == picture(3) and joined["1.txt"].strip().endswith(b"(was: old one)")
