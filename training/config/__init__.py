"""Every number that decides what is learned, in one frozen record; nothing here needs torch."""

from training.config.machine import Machine
from training.config.recipe import Recipe, Scalar
from training.config.transfer import Backbone, Strategy

__all__ = ["Backbone", "Machine", "Recipe", "Scalar", "Strategy"]
