"""A silo's own recommender: global, own and content scores, mixed at home."""

from .recommender import PARTS, Explained, Recommender, fit_recommender
from .solve import Published

__all__ = ["PARTS", "Explained", "Published", "Recommender", "fit_recommender"]
