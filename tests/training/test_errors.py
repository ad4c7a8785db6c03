import inspect

from anther.errors import AntherError
from training import errors


def test_the_tree_is_drawn_as_it_is():
    """The photo in the module's docstring names every error, and no other."""
    classes = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, AntherError)}
    drawn = {line.split("─ ")[-1].strip() for line in errors.__doc__.splitlines()[2:]} - {""}
    assert drawn == classes
