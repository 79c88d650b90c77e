"""Meshes as people write them."""

from __future__ import annotations

import pytest

from jaxphoton.config.mesh import EngineMeshes, MeshError, engine_meshes, mesh_shape


def test_axes_that_are_left_out_have_one_device():
    assert mesh_shape("expert=2, model = 4") == {"data": 1, "model": 4, "expert": 2}


@pytest.mark.parametrize(
    "text", ["", "2", "model", "model=0", "model=-1", "model=two", "rows=2", "model=2,model=2", "model=" + 5000 * "9"]
)
def test_others_are_refused_with_what_is_allowed(text):
    with pytest.raises(MeshError, match="data, model, expert|has model twice"):
        mesh_shape(text)


@pytest.mark.parametrize(
    ("text", "meshes"),
    [
        (None, EngineMeshes(1, None, 1)),
        ("data=3", EngineMeshes(3, None, 1)),
        ("expert=2,data=2,model=4", EngineMeshes(2, "model=4,expert=2", 8)),
    ],
)
def test_data_counts_engines(text, meshes):
    assert engine_meshes(text) == meshes
