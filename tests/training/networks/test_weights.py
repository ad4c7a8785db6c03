import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from training import pipeline
from training.config import Recipe
from training.errors import RecipeInvalid, WeightsUnusable
from training.networks import weights
from training.networks.backbones import BACKBONES
from training.networks.normalization import normalized
from training.progress import Silent
from training.runs.records import TrainingRequest

RECIPE = Recipe()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """The test's output stays clean."""


@pytest.fixture
def server(tmp_path):
    """A folder served over HTTP: (folder, base address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_file_gives_its_backbone_a_new_head(backbone_file):
    model = weights.build(RECIPE, 3, str(backbone_file))
    state = torch.load(backbone_file, weights_only=True)
    assert torch.equal(model.features[0][0].weight, state["features.0.0.weight"])
    assert model.head.weight.shape == (3, 1280)
    assert model.eval()(normalized(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))).shape == (2, 3)


def test_published_weights_are_found_where_torch_keeps_them(backbone_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = BACKBONES["mobilenet_v2"].weights_url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / name).symlink_to(backbone_file)
    model = weights.build(RECIPE, 3, "imagenet")
    assert weights.digest(model.features) == weights.digest(weights.build(RECIPE, 3, str(backbone_file)).features)


def test_the_same_seed_draws_the_same_weights():
    first, same, other = (weights.build(Recipe(seed=seed), 3, "none") for seed in (1, 1, 2))
    assert weights.digest(first) == weights.digest(same)
    assert weights.digest(first) != weights.digest(other)


def test_published_weights_are_downloaded_and_their_digest_checked(server, backbone_file, tmp_path):
    folder, address = server
    content = backbone_file.read_bytes()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content)
    state = weights.download(f"{address}/{name}", tmp_path / "cache")
    assert state.keys() == torch.load(backbone_file, weights_only=True).keys()


def test_a_download_with_another_digest_is_refused(server, backbone_file, tmp_path):
    folder, address = server
    (folder / "net-00000000.pth").write_bytes(backbone_file.read_bytes())
    with pytest.raises(WeightsUnusable, match="invalid hash value"):
        weights.download(f"{address}/net-00000000.pth", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.pth"))


def test_without_a_network_it_says_what_else_works(server, tmp_path):
    _, address = server
    with pytest.raises(WeightsUnusable, match=r"cannot be reached .*--weights PATH"):
        weights.download(f"{address}/absent-00000000.pth", tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        (b"no weights", "it is no file of tensors"),
        ([1, 2], "it holds a list"),
        (
            {"features.0.0.weight": torch.zeros(1)},
            "a state_dict of torchvision's mobilenet_v2 with 1000 classes is expected",
        ),
        ({"state": 1}, "a state_dict of torchvision's mobilenet_v2"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsUnusable, match=reason):
        weights.build(RECIPE, 3, str(path))


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (pytest.fail, ("code from a weights file was run",))

    torch.save({"x": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(WeightsUnusable, match="no file of tensors"):
        weights.read(tmp_path / "harmful.pth")


def test_the_identity_of_a_file_is_its_digest(backbone_file):
    assert weights.identity("imagenet") == "imagenet"
    assert weights.identity(str(backbone_file)) == hashlib.sha256(backbone_file.read_bytes()).hexdigest()
    with pytest.raises(WeightsUnusable, match="there is no such file"):
        weights.identity("absent.pth")


@pytest.mark.parametrize("given", ["imagenet", "path"])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"width": 0.5}, "they are of width 1, not 0.5; use --width 1 or --weights none"),
        ({"backbone": "mlp"}, "mlp is a baseline from random weights, .*; use --weights none, or another --backbone"),
    ],
)
def test_weights_for_what_none_were_published_for_are_refused(backbone_file, given, fields, reason):
    source = str(backbone_file) if given == "path" else given
    with pytest.raises(WeightsUnusable, match=reason):
        weights.build(Recipe(**fields), 3, source)


def test_another_width_of_another_network_is_refused():
    with pytest.raises(RecipeInvalid, match=r"'width' is 0.5; expected 1 for resnet18"):
        Recipe(backbone="resnet18", width=0.5)


@pytest.mark.parametrize("field", ["crop", "train_size"])
def test_inputs_that_a_network_shrinks_to_nothing_are_refused(field):
    weights.require_usable(Recipe(backbone="alexnet", **{field: 63}), "none")
    with pytest.raises(RecipeInvalid, match=f"'{field}' is 62; expected at least 63 for alexnet"):
        weights.require_usable(Recipe(backbone="alexnet", **{field: 62}), "none")


def test_from_scratch_means_from_random_weights(backbone_file):
    recipe = Recipe(strategy="scratch")
    assert weights.digest(weights.build(recipe, 3, str(backbone_file))) == weights.digest(
        weights.build(recipe, 3, "none")
    )


def test_an_unusable_recipe_leaves_no_run_behind(photos, recipe, tmp_path):
    request = TrainingRequest(photos, "colours", "imagenet", tmp_path / "runs")
    with pytest.raises(WeightsUnusable, match="mlp is a baseline"):
        pipeline.create(request, recipe(backbone="mlp"), Silent())
    assert not (tmp_path / "runs").exists()
