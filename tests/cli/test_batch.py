"""Runs that go on, split, repeat and report: everything around the journal of a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.cli.main import main
from tests.batch.helpers import json_lines, make_folder, make_tar, picture, read_tar

pytestmark = pytest.mark.smoke


def asked(model) -> list[str]:
    """The images that were asked about since the last call."""
    names = [name for name, *_ in model.calls]
    model.calls.clear()
    return sorted(names)


def test_the_same_command_goes_on(model, folder, tmp_path, capsys):
    command = ["caption", str(folder), "--out", str(tmp_path / "x.jsonl")]
    assert main([*command, "--limit", "2"]) == 0
    assert asked(model) == ["a.JPG", "b.png"]
    assert main(command) == 0
    assert asked(model) == ["c.webp"]
    model.loaded = {}
    assert main(command) == 0
    captured = capsys.readouterr()
    assert asked(model) == [] and model.loaded == {} and "nothing is left to do" in captured.err
    assert len(json_lines(tmp_path / "x.jsonl")) == 3


def test_other_settings_are_refused_unless_told(model, folder, tmp_path, capsys):
    command = ["caption", str(folder), "--out", str(tmp_path / "x.jsonl")]
    assert main([*command, "--limit", "1"]) == 0
    assert main([*command, "--length", "short"]) == 1
    message = capsys.readouterr().err
    assert '"caption:normal"' in message and '"caption:short"' in message and "--allow-changes" in message
    assert main([*command, "--model", "other"]) == 1
    assert main([*command, "--length", "short", "--allow-changes"]) == 0
    assert asked(model) == ["a.JPG", "b.png", "c.webp"]
    assert main([*command, "--length", "short", "--restart"]) == 0
    assert asked(model) == ["a.JPG", "b.png", "c.webp"]


def test_restart_leaves_other_files_alone(model, folder, tmp_path, capsys):
    (tmp_path / "x.jsonl.journal").write_text("my diary")
    assert main(["caption", str(folder), "--out", str(tmp_path / "x.jsonl"), "--restart"]) == 1
    assert (
        tmp_path / "x.jsonl.journal"
    ).read_text() == "my diary" and "not a jaxphoton journal" in capsys.readouterr().err


def test_failed_images_are_tried_again_when_told(model, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"junk")
    command = ["caption", str(folder), "--out", str(tmp_path / "x.jsonl")]
    assert main(command) == 2 and main(command) == 2
    assert (tmp_path / "x.jsonl.failures.jsonl").exists()
    bad = folder / "bad.png"
    bad.rename(folder / "good.png")
    (folder / "bad.png").symlink_to("b.png")
    asked(model)
    assert main([*command, "--retry-failed"]) == 2  # the fake goes by the name
    bad.unlink()
    assert asked(model) == ["good.png"]


def test_shards_together_are_the_whole(model, folder, tmp_path):
    make_folder(folder, [f"{n}.png" for n in range(30)])
    for index in range(3):
        assert main(["caption", str(folder), "--shard", f"{index}/3", "--out", str(tmp_path / f"{index}.jsonl")]) == 0
    keys = [line["key"] for index in range(3) for line in json_lines(tmp_path / f"{index}.jsonl")]
    assert len(keys) == len(set(keys)) == 33


def test_an_image_has_one_id_in_the_coco_files_of_all_shards_and_rows(model, folder, tmp_path):
    make_folder(folder, [f"{n}.png" for n in range(12)])
    (folder / "bad.png").write_bytes(b"junk")

    def ids(name, *options):
        main(["detect", str(folder), "--object", "fish", "--out", str(tmp_path / name), *options])
        coco = json.loads((tmp_path / name).read_bytes())
        assert coco["categories"] == [{"id": 1, "name": "fish", "supercategory": ""}]
        return {each["file_name"]: each["id"] for each in coco["images"]}

    whole = ids("whole.json")
    keys = sorted([*whole, "bad.png"])
    assert len(whole) == 15 and whole == {key: keys.index(key) + 1 for key in whole}
    shards = [ids(f"{index}.json", "--shard", f"{index}/3", "--rows", "1") for index in range(3)]
    assert sorted(key for shard in shards for key in shard) == sorted(whole)
    assert all(shard.items() <= whole.items() for shard in shards)
    assert ids("few.json", "--limit", "3").items() <= whole.items()
    assert main(["export", f"{tmp_path / '1.json'}.journal", "--out", str(tmp_path / "later.json")]) == 0
    assert json.loads((tmp_path / "later.json").read_bytes()) == json.loads((tmp_path / "1.json").read_bytes())


def test_several_tasks_are_one_job(model, folder, tmp_path):
    out = tmp_path / "x.jsonl"
    tasks = "caption:short,query:Is it day, or night?,detect:red car,caption"
    assert main(["caption", str(folder / "b.png"), "--tasks", tasks, "--length", "long", "--out", str(out)]) == 0
    assert [(task, arguments) for _, task, arguments, _ in model.calls] == [
        ("caption", {"length": "short"}),
        ("query", {"question": "Is it day, or night?"}),
        ("detect", {"object": "red car"}),
        ("caption", {"length": "long"}),
    ]
    (line,) = json_lines(out)
    assert [result["task"] for result in line["results"]] == ["caption", "query", "detect", "caption"]
    assert main(["export", f"{out}.journal", "--out", str(tmp_path / "boxes.json")]) == 0
    assert json.loads((tmp_path / "boxes.json").read_text())["annotations"]


def test_several_captions_have_seeds_of_their_own(model, folder, tmp_path):
    options = ["--captions-per-image", "3", "--temperature", "1", "--seed", "8"]
    assert main(["caption", str(folder / "b.png"), *options]) == 0
    assert [settings["seed"] for *_, settings in model.calls] == [8, 9, 10]


def test_what_repeats_itself_is_asked_again(model, folder, tmp_path, capsys, monkeypatch):
    def answer(jobs):  # one by one: of two, none may wait for the other
        for job in jobs:
            yield model._one(job)

    monkeypatch.setattr(model, "answer", answer)
    (folder / "b.png").rename(folder / "la la la la.png")
    out, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    options = ["--retry-loops", "2", "--max-tokens", "9", "--report", str(page)]
    assert main(["caption", str(folder), "--out", str(out), *options]) == 0
    told = {name: [call[3] for call in model.calls if call[0] == name] for name in {call[0] for call in model.calls}}
    settings = told.pop("la la la la.png")
    assert [each["temperature"] for each in settings] == [0, 0.2, 0.2] and {len(each) for each in told.values()} == {1}
    assert len({each.get("seed") for each in settings}) == 3 and all(each["max_tokens"] == 9 for each in settings)
    lines = {line["key"]: line for line in json_lines(out)}
    assert len({tuple(line) for line in lines.values()}) == 1  # the same keys in each
    assert "the text repeats itself" in lines["la la la la.png"]["warnings"]
    with JournalReader(Path(f"{out}.journal")) as journal:
        retries = {record.key: [each.get("retries") for each in record.results] for record in journal.records()}
    assert retries.pop("la la la la.png") == [2] and set(map(str, retries.values())) == {"[None]"}
    assert "1 asked again, 0 mended, 1 still repeats" in capsys.readouterr().err
    assert '"again":[1,0]' in page.read_text("utf-8")
    # It is no other run with another number: what there is, is not asked again.
    assert main(["caption", str(folder), "--out", str(out), "--retry-loops", "5", "--max-tokens", "9"]) == 0
    assert len(model.calls) == len(told) + 3


def test_prompts_and_prefixes_have_variables(model, folder, tmp_path):
    (folder / "b.txt").write_text("an old caption\n")
    (tmp_path / "prompt.txt").write_text("What is {name} in {dir}? It was: {caption}. {not a variable}\n")
    options = ["--prompt-file", str(tmp_path / "prompt.txt"), "--prefix", "{name}: ", "--suffix", " #x"]
    assert main(["caption", str(folder / "b.png"), *options, "--out", str(tmp_path / "x.jsonl")]) == 0
    question = "What is b in photos? It was: an old caption. {not a variable}"
    # A caption in other words: a model that thinks before it answers is not asked to.
    assert model.calls[0][1:3] == ("query", {"question": question, "reasoning": False})
    assert json_lines(tmp_path / "x.jsonl")[0]["caption"] == "b: red #x"


def test_columns_are_variables_and_an_entry_without_one_fails_alone(model, folder, tmp_path):
    rows = [{"image": "b.png", "thing": "a hat", "caption": "old"}, {"image": "a.JPG"}]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "x.jsonl"
    assert main(["detect", str(folder / "list.jsonl"), "--object", "{thing}", "--out", str(out)]) == 2
    assert [arguments for _, _, arguments, _ in model.calls] == [{"object": "a hat"}]
    assert sorted(line["reason"] for line in json_lines(out)) == ["", "bad-entry"]
    with JournalReader(f"{out}.journal") as reader:
        assert {record.org_caption for record in reader.records()} == {"old", ""}


def test_equal_files_are_asked_about_once(model, folder, tmp_path):
    root = make_folder(tmp_path / "many", ["x.png", "y.png", "z.png"])
    for name in ("x2.png", "x3.png", "sub/x4.png"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / "x.png", root / name)
    command = ["caption", str(root), "--out", str(tmp_path / "x.jsonl"), "--dedupe", "sha256"]
    assert main(command) == 0
    assert len(asked(model)) == 3
    captions = {line["key"]: line["caption"] for line in json_lines(tmp_path / "x.jsonl")}
    assert len({captions[key] for key in ("x.png", "x2.png", "x3.png", "sub/x4.png")}) == 1 and len(captions) == 6
    shutil.copy(root / "y.png", root / "y2.png")
    assert main(command) == 0
    assert asked(model) == [] and len(json_lines(tmp_path / "x.jsonl")) == 7


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append", "prepend"])
def test_text_files_go_beside_the_images(model, folder, existing):
    (folder / "b.txt").write_text("old\n")
    assert main(["caption", str(folder), "--out", str(folder), "--existing", existing]) == 0
    new = "Ein schöner Kreis: b"
    expected = {"skip": "old", "overwrite": new, "append": f"old\n{new}", "prepend": f"{new}\nold"}[existing]
    assert (folder / "b.txt").read_text(encoding="utf-8").strip() == expected
    assert (folder / "sub/c.txt").exists() and Path(f"{folder}.journal").exists()


def test_a_tar_comes_back_with_captions(model, tmp_path):
    source = make_tar(tmp_path / "in.tar", {"a.png": picture(1), "a.cls": b"7", "b.png": picture(2)})
    out = tmp_path / "out.tar"
    assert main(["caption", str(source), "--out", str(out)]) == 0
    assert read_tar(out).keys() == {"a.png", "a.cls", "a.txt", "b.png", "b.txt"}
    again = tmp_path / "again.tar"
    assert main(["export", f"{out}.journal", "--out", str(again), "--extension", ".caption"]) == 0
    assert "a.caption" in read_tar(again)


def test_a_table_and_its_failures(model, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "bad.png").write_bytes(b"junk")
    assert main(["caption", str(folder), "--out", str(tmp_path / "x.parquet")]) == 2
    table = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert {row["key"] for row in table if row["re_caption"]} == {"a.JPG", "b.png", "sub/c.webp"}
    assert main(["export", str(tmp_path / "x.parquet.journal"), "--out", str(tmp_path / "f.jsonl"), "--failures"]) == 0
    assert [line["key"] for line in json_lines(tmp_path / "f.jsonl")] == ["bad.png"]


def test_a_report_is_written_at_the_end_and_later(model, folder, tmp_path):
    page, later = tmp_path / "report.html", tmp_path / "later.html"
    out = tmp_path / "x.jsonl"
    assert main(["caption", str(folder), "--out", str(out), "--report", str(page), "--gpu-hour-price", "2"]) == 0
    assert "sub/c.webp" in page.read_text(encoding="utf-8")
    assert main(["export", f"{out}.journal", "--report", str(later)]) == 0
    assert "sub/c.webp" in later.read_text(encoding="utf-8")


def test_the_summary_names_speed_cost_and_what_is_odd(model, folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"junk")
    before = model._result

    def cut(name, number, ask):
        result = before(name, number, ask)
        result.finish_reason = "length"
        return result

    model._result = cut
    assert main(["caption", str(folder), "--gpu-hour-price", "2"]) == 2
    errors = capsys.readouterr().err
    assert "images/s" in errors and "a million images would cost" in errors
    assert "failed: not-an-image 1" in errors and "cut off at the token limit 3" in errors


def test_a_dry_run_reads_headers_and_asks_nothing(model, folder, tmp_path, capsys):
    (folder / "page.jpg").write_text("<html>")
    out = tmp_path / "x.jsonl"
    options = ["--dry-run", "--rate", "2", "--gpu-hour-price", "3", "--out", str(out), "--model", "moondream2"]
    assert main(["caption", str(folder), *options]) == 0
    text = capsys.readouterr().out
    assert f"at most {4 * 768:,} generated" in text
    assert "4 images" in text and "not-an-image 1" in text and "6 x 4" in text
    assert "weights" in text and "keys and values" in text and "time: 2.0 s" in text and "million" in text
    assert not model.calls and not out.exists() and not Path(f"{out}.journal").exists()


@pytest.mark.parametrize(
    ("model_id", "weights"),
    [("fancyfeast/llama-joycaption-beta-one-hf-llava", "14.96 GiB"), ("someone/SmolVLM2-2.2B-Instruct", "3.38 GiB")],
)
def test_a_dry_run_knows_models_that_are_not_here(model_id, weights, folder, capsys):
    assert main(["caption", str(folder), "--dry-run", "--model", model_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["weights,", "text", *weights.split()] in [line.split() for line in lines]
    assert any(f"at most {3 * 512:,} generated" in line for line in lines)


def test_a_dry_run_says_on_stderr_what_a_run_says_there(model, folder, capsys):
    assert main(["caption", str(folder), "--prompt", "{nope}", "--dry-run", "--model", "moondream2"]) == 0
    said = capsys.readouterr()
    assert "nope" not in said.out and said.err.startswith("jaxphoton caption: no variables")


def test_a_closed_standard_output_is_no_fault_where_there_is_another(model, folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdout", None)
    assert main(["caption", str(folder), "--out", str(tmp_path / "x.jsonl")]) == 0
    assert len(json_lines(tmp_path / "x.jsonl")) == 3
    assert main(["caption", str(folder)]) == 1
    assert "standard output is closed" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is of Linux")
@pytest.mark.parametrize("options", [[], ["--dry-run", "--model", "moondream2"]])
def test_a_full_standard_output_is_told_in_a_line(model, folder, monkeypatch, capfd, options):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["caption", str(folder), *options]) == 1
    assert capfd.readouterr().err.endswith("jaxphoton caption: standard output: No space left on device\n")
