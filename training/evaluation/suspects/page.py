"""Suspects as one page with small pictures and nothing from outside, for a person to go through."""

from pathlib import Path

import jinja2

from bundle.preprocessing import decode
from training.dataset.data import Photo, read_photo
from training.evaluation.pictures import data_uri
from training.evaluation.suspects.find import Suspected
from training.evaluation.suspects.records import Suspects


def render(found: Suspects, subject: Suspected, most: int) -> str:
    """HTML with at most so many suspects of a kind; every text from outside is escaped. Raises `PhotoChanged`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.evaluation.suspects", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = [label.photo.path for label in found.labels[:most]]
    shown += [outlier.photo.path for outlier in found.outliers[:most]]
    shown += [photo.path for pair in found.copies[:most] for photo in (pair.first, pair.second)]
    photos = {photo.path: photo for photo in subject.photos}
    pictures = {path: _picture(subject.root, photos[path]) for path in dict.fromkeys(shown)}
    return environment.get_template("suspects.html").render(found=found, pictures=pictures, most=most)


def _picture(root: Path, photo: Photo) -> str:
    return data_uri(decode(read_photo(root, photo)))
