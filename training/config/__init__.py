"""Every number that decides what is learned, in one frozen record; nothing here needs torch."""

from training.config.recipe import Machine, Recipe, Scalar
from training.config.transfer import Backbone, Strategy

__all__ = ["Backbone", "Machine", "Recipe", "Scalar", "Strategy"]
