"""Every kind of source, and things that are no pictures: one clear error each."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxphoton.image.decode import decode
from tests.image.files import fault, photo, saved

PHOTO = photo(48, 64)
PICTURE = Image.fromarray(PHOTO)


def test_a_png_in_every_kind_of_source(tmp_path):
    data = saved(PICTURE, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    stream = io.BytesIO(data)
    stream.seek(10)
    with open(path, "rb") as file:
        sources = [str(path), path, data, bytearray(data), memoryview(data), stream, file, PICTURE, PHOTO]
        for source in sources:
            decoded = decode(source)
            np.testing.assert_array_equal(decoded.pixels, PHOTO)
            assert decoded.pixels.dtype == np.uint8 and decoded.notes == ()
        assert not file.closed and not stream.closed


def test_streams_that_cannot_seek():
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.data.readinto(buffer)

    np.testing.assert_array_equal(decode(Pipe(saved(PICTURE, "PNG"))).pixels, PHOTO)
    assert fault(Pipe(b"")).reason == "empty"


def test_the_result_is_not_the_array_that_was_given():
    mine = PHOTO.copy()
    decoded = decode(mine)
    mine[:] = 0
    np.testing.assert_array_equal(decoded.pixels, PHOTO)


def test_a_picture_in_memory_is_not_changed():
    image = PICTURE.convert("RGBA")
    image.getexif()[0x0112] = 6
    before = copy.deepcopy(image)
    assert decode(image).pixels.shape == (64, 48, 3)
    assert image == before


# Files that are no pictures


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "absent.jpg", tmp_path / "file" / "below.jpg"):
        (tmp_path / "file").touch()
        error = fault(path)
        assert (error.reason, error.source) == ("not-found", str(path))
    assert str(fault("no/such.jpg")) == "no/such.jpg: no such file"
    assert fault("a\0b.jpg").reason == "not-found"


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    assert fault(tmp_path).fault == "cannot be read: Is a directory"
    assert fault(tmp_path).reason == "unreadable"

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1):
            if self.tell() > 100:
                raise OSError(5, "Input/output error")
            return super().read(size)

    error = fault(Failing(saved(Image.fromarray(photo(300, 300)), "PNG")))
    assert (error.reason, error.fault) == ("unreadable", "cannot be read: Input/output error")
    closed = io.BytesIO(b"x")
    closed.close()
    assert fault(closed).reason == "unreadable"


def test_files_without_permission(monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("jaxphoton.image.decode.open", refuse, raising=False)
    error = fault("secret.png")
    assert (error.reason, str(error)) == ("unreadable", "secret.png: cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"", "empty", "the file is empty"),
        (b"just a text, saved as a picture\n", "not-an-image", "known format"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not-an-image", "web page"),
        (b'<?xml version="1.0"?>\n<svg width="3"></svg>', "unsupported", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported", "PostScript"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "not-an-image", "video"),
        (b"PK\3\4\x14\0\0\0", "not-an-image", "archive"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "truncated", "cut short"),
        (b"\xff\xd8\xff\xe0\0\x02nothing more", "corrupt", "header"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "corrupt", "header"),
    ],
)
def test_things_saved_as_jpg(tmp_path, data, reason, words):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    error = fault(path)
    assert (error.reason, error.source) == (reason, str(path))
    assert words in error.fault


def test_errors_can_be_named_and_pickled():
    error = fault(b"", name="shard-3.tar/17.jpg")
    assert str(error) == "shard-3.tar/17.jpg: the file is empty"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason) == (str(error), "empty")
    assert (fault(b"").source, fault(io.BytesIO(b"")).source) == ("<bytes>", "<file>")


def test_a_picture_without_pixels():
    assert fault(Image.new("RGB", (0, 5))).reason == "empty"


# Arrays


def test_arrays_of_other_shapes_and_types():
    grey = PHOTO[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(decode(array).pixels, np.repeat(grey[..., None], 3, axis=2))
    assert decode(grey > 100).pixels.max() == 255
    np.testing.assert_array_equal(decode(PHOTO / 255.0).pixels, PHOTO)
    np.testing.assert_array_equal(decode((PHOTO / 255.0).astype(np.float16)).pixels.shape, PHOTO.shape)
    np.testing.assert_array_equal(decode(PHOTO[::-1, ::2]).pixels, PHOTO[::-1, ::2])
    np.testing.assert_array_equal(decode(PHOTO.astype(np.uint16) * 257).pixels, PHOTO)

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return PHOTO

    np.testing.assert_array_equal(decode(Wrapped()).pixels, PHOTO)


@pytest.mark.parametrize("shape", [(3, 8, 9), (8,), (8, 8, 2), (2, 8, 8, 3), (0, 8, 3), (8, 8, 0)])
def test_arrays_of_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"expected uint8.*\[height, width\]"):
        decode(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.complex64, object, "U1"])
def test_arrays_of_wrong_types(dtype):
    with pytest.raises(TypeError, match="expected uint8"):
        decode(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("value", [1.5, -0.1, 255.0, np.nan, np.inf])
def test_floats_outside_the_unit_range(value):
    with pytest.raises(ValueError, match="outside 0 to 1"):
        decode(np.full((4, 4, 3), value))


@pytest.mark.parametrize("source", [None, 3, [1, 2], object()])
def test_other_sources(source):
    with pytest.raises(TypeError, match="expected a path, bytes"):
        decode(source)


def test_text_streams():
    with pytest.raises(TypeError, match="binary"):
        decode(io.StringIO("text"))


@pytest.mark.parametrize("background", [(1, 2), (0, 0, 256), (0.5, 0, 0), (-1, 0, 0)])
def test_bad_backgrounds(background):
    with pytest.raises(ValueError, match="background must be"):
        decode(PHOTO, background=background)
