import pytest

from bundle.errors import PolicyInvalid
from bundle.policy import ServingPolicy, edit_policy
from training.publishing import champion


@pytest.fixture
def models(tmp_path, publish_bundle):
    """Three versions of 'flowers'."""
    for seed in range(3):
        publish_bundle(tmp_path, seed=seed)
    return tmp_path


def damage(models, version):
    (models / "flowers" / str(version) / "model.onnx").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda policy: policy, 3),
        (lambda policy: policy.pinned_to(2, 3), 2),
        (lambda policy: policy.with_canary(3, 0.1), 2),
        (lambda policy: policy.pinned_to(2, 3).with_canary(3, 0.1), 2),
        (ServingPolicy.unloaded, 3),
    ],
)
def test_the_champion_is_what_the_policy_has_answer(models, change, expected):
    edit_policy(models, "flowers", change)
    assert champion.find(models, "flowers").version == expected


def test_a_damaged_version_serves_nobody(models):
    damage(models, 3)
    assert champion.find(models, "flowers").version == 2
    edit_policy(models, "flowers", lambda policy: policy.pinned_to(3, 3))
    assert champion.find(models, "flowers").version == 2
    damage(models, 2), damage(models, 1)
    assert champion.find(models, "flowers") is None


def test_there_may_be_none_yet(tmp_path):
    assert champion.find(tmp_path / "models", "flowers") is None


def test_a_policy_that_cannot_be_read_is_not_guessed_at(models):
    (models / "flowers" / "serving.json").write_text("{")
    with pytest.raises(PolicyInvalid):
        champion.find(models, "flowers")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda policy: policy, "published as version 3, which serves from now on"),
        (lambda policy: policy.pinned_to(2, 3), "published as version 3; version 2 is pinned and goes on serving"),
        (lambda policy: policy.pinned_to(3, 2), "published as version 3, which serves from now on"),
        (
            lambda policy: ServingPolicy(versions="all", stable=1),
            "published as version 3; version 1 is the stable one and goes on serving",
        ),
        (ServingPolicy.unloaded, "published as version 3; flowers is out of service"),
    ],
)
def test_what_serves_after_a_publication_is_said(models, change, expected):
    published = champion.find(models, "flowers")
    edit_policy(models, "flowers", change)
    assert champion.in_words(published) == expected
