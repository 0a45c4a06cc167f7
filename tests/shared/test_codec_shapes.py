"""The lengths that a plan fixes."""

from fondaco.shared.codec import Shapes
from fondaco.shared.models import MODELS, Sizes
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.records import GlobalModel


def test_shapes_come_from_the_plan(plan):
    shapes = Shapes.of_plan(plan)
    assert (shapes.n_items, shapes.head) == (5, 4)
    assert shapes.update_dims == {"popularity": 5, "gram": 10}
    assert shapes.n_parameters == {}
    assert shapes.fusion == (4, 2)  # four activity buckets; Gram and popularity


def test_shapes_hold_every_iterative_models_parameters(make_plan):
    terms = AutoencoderTerms(width=2, items=3)
    both = {"gram": {"share": "1.0"}, "autoencoder": terms.as_text()}
    shapes = Shapes.of_plan(make_plan(models=both))
    count = MODELS["autoencoder"].n_parameters(terms, Sizes(n_items=5, head=4))
    assert shapes.n_parameters == {"autoencoder": count}
    assert shapes.of(GlobalModel, "")["parameters"].shape == (count,)
    assert shapes.fusion == (4, 3)
    assert hash(shapes) == hash(Shapes.of_plan(make_plan(models=both)))
