"""A silo's own recommender: global, own and content scores, mixed at home."""

from .recommender import PARTS, Explained, Recommender, fit_recommender

__all__ = ["PARTS", "Explained", "Recommender", "fit_recommender"]
