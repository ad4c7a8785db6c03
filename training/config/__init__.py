"""All settings that decide a training, in one frozen record; nothing here imports torch."""

from training.config.recipe import Machine, Recipe, Scalar
from training.config.transfer import Backbone, Strategy

__all__ = ["Backbone", "Machine", "Recipe", "Scalar", "Strategy"]
