"""Several pictures in place of one: which is at fault, and what cancelling does."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import CancelledError, Future

import pytest

from jaxphoton.image.errors import ImageError
from jaxphoton.image.several import SeveralImages, gathered

pytestmark = pytest.mark.smoke
BROKEN = ImageError("<bytes>", "empty", "the file is empty")


def test_a_fault_names_the_picture():
    def read(image: str) -> str:
        if image == "bad":
            raise BROKEN
        return image.upper()

    assert SeveralImages(("a", "b")).each(read) == ["A", "B"]
    with pytest.raises(ImageError, match="picture 2 of 3: the file is empty") as caught:
        SeveralImages(("a", "bad", "c")).each(read)
    assert caught.value.reason == "empty"


def test_results_come_in_the_order_of_the_pictures_once_all_are_there():
    parts = [Future() for _ in range(3)]
    whole = gathered(parts)
    for index in (2, 0):
        parts[index].set_result(index)
        assert not whole.done()
    parts[1].set_result(1)
    assert whole.result(0) == [0, 1, 2]


@pytest.mark.parametrize(("first", "error"), [(BROKEN, ImageError), (ValueError("no"), ValueError)])
def test_the_first_error_is_that_of_all(first, error):
    parts = [Future() for _ in range(3)]
    whole = gathered(parts)
    parts[2].set_exception(KeyError("later"))
    parts[1].set_exception(first)
    parts[0].set_result(0)
    with pytest.raises(error):
        whole.result(0)


def test_cancelling_cancels_what_has_not_begun():
    parts = [Future() for _ in range(3)]
    whole = gathered(parts)
    parts[0].set_running_or_notify_cancel()
    assert whole.cancel() and [part.cancelled() for part in parts] == [False, True, True]
    parts[0].set_result(0)
    assert whole.cancelled()
    again = [Future() for _ in range(2)]
    whole = gathered(again)
    again[0].cancel()
    again[1].set_result(1)
    with pytest.raises(CancelledError):
        whole.result(0)


def test_pictures_do_not_wait_for_a_collection_of_garbage():
    class Picture:
        pass

    gc.disable()
    try:
        parts = [Future() for _ in range(2)]
        whole, picture = gathered(parts), Picture()
        known = weakref.ref(picture)
        parts[0].set_result(picture), parts[1].set_result(None)
        assert whole.result(0)[0] is picture
        del parts, whole, picture
        assert known() is None
    finally:
        gc.enable()
