"""A drawn person with hair over the face: what is known of the photo against what went into the texture."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxface
from jaxface.render import label_triangles
from jaxface.results import drawing
from jaxface.results.drawing import DrawingOptions, draw_face, vertex_colors
from jaxface.synthetic.people import load_people
from jaxface.synthetic.photographs import draw_photographs

PATH = Path(__file__).parents[2] / "experiments" / "turned_textures" / "run.py"


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("turned_textures_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_hair_does_not_go_into_the_skin(run, monkeypatch):
    model = jaxface.load_face_model("anny")
    people, labels = load_people(model), label_triangles(model.parts, model.triangles)
    draw = jax.jit(lambda keys: draw_photographs(keys, model, labels, people))
    person = run.draw_person(model, draw, run.SHOWN["fringe"])
    options = DrawingOptions(delight=True)
    drawn = draw_face(model, person.fitted, person.photo, options=options)
    told = run.measure(model, person, drawn)
    assert told["taken that is no bare face, %"] < 1 and told["bare face that is taken, %"] > 40
    # The forehead lies under hair: it has skin's colour, not hair's.
    brow = model.mean_shape[model.landmarks["68"][17:27], 1].max()
    forehead = np.asarray(model.mean_shape[:, 1]) > float(brow) + 0.25
    skin = np.median(person.albedo[np.asarray(model.parts["nose"])], axis=0)
    colors = vertex_colors(model, drawn)
    nose = np.median(colors[np.asarray(model.parts["nose"])], axis=0)
    darker = np.log(nose / skin)[None] - np.log(colors[forehead] / person.albedo[forehead])
    assert np.abs(darker).mean() < 0.25
    # By the label map alone, though it is the true one, hair goes in.
    monkeypatch.setattr(drawing, "class_shares", lambda *_: None)
    plain = run.measure(model, person, draw_face(model, person.fitted, person.photo, options=options))
    assert plain["taken that is no bare face, %"] > 5
