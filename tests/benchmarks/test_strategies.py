import numpy as np
from PIL import Image

from benchmarks import drawn, strategies


def found(auto, **test):
    return {"test": test, "auto": auto, "reasons": ("Because.", "So.")}


def test_auto_is_right_within_a_point_of_the_winner():
    verdict = strategies.judged([found("head", head=0.895, finetune=0.9)])
    assert (verdict["winner"], verdict["below_winner"], verdict["right"]) == ("finetune", 0.005, True)
    assert not strategies.judged([found("head", head=0.88, finetune=0.9)])["right"]


def test_several_draws_are_averaged_before_anyone_wins():
    verdict = strategies.judged([found("head", head=0.9, finetune=0.7), found("finetune", head=0.8, finetune=0.9)])
    assert verdict["test"] == {"head": 0.85, "finetune": 0.8}
    assert verdict["auto"] == ["head", "finetune"]
    assert verdict["auto_test"] == 0.9


def test_what_measures_is_never_trained_on(tmp_path):
    source = tmp_path / "photos"
    for number in range(60):
        path = source / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
    made = list(strategies.situations(tmp_path, source, 0, strategies.Sizes((5, 0), (1,), 1)))
    assert [situation.name for situation in made] == ["photos, 5 a class", "photos, all a class", "drawn, 1 a class"]
    names = [{path.name for path in folder.glob("*/*")} for folder in (made[0].photos, made[1].photos, made[1].test)]
    few, whole, aside = names
    assert len(few) == 10
    assert few < whole
    assert not whole & aside
    assert len(whole | aside) == 60
    assert aside


def test_drawn_pictures_depend_on_the_seed_alone(tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        drawn.draw(tmp_path / name, 1, seed)
    one, same, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.jpg"))] for name in ("one", "same", "other")
    )
    assert len(one) == len(drawn.CLASSES) == 6
    assert one == same
    assert not set(one) & set(other)
