import dataclasses
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from training.config import Recipe
from training.errors import WeightsUnusable
from training.learning.augment import normalized
from training.networks import weights
from training.networks.backbones import BACKBONES

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


def at(url):
    return dataclasses.replace(BACKBONES["mobilenet_v2"], weights_url=url)


def test_a_file_gives_its_backbone_a_new_head(backbone_file):
    model = weights.build(RECIPE, 3, str(backbone_file))
    state = torch.load(backbone_file, weights_only=True)
    assert torch.equal(model.features[0][0].weight, state["features.0.0.weight"])
    assert model.head.weight.shape == (3, 1280)
    assert model.eval()(normalized(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))).shape == (2, 3)


def test_the_same_seed_draws_the_same_weights():
    first, same, other = (weights.build(Recipe(seed=seed), 3, "none") for seed in (1, 1, 2))
    assert weights.digest(first) == weights.digest(same)
    assert weights.digest(first) != weights.digest(other)


def test_published_weights_are_downloaded_and_their_digest_checked(server, backbone_file, tmp_path):
    folder, address = server
    content = backbone_file.read_bytes()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content)
    state = weights.download(at(f"{address}/{name}"), tmp_path / "cache")
    assert state.keys() == torch.load(backbone_file, weights_only=True).keys()


def test_a_download_with_another_digest_is_refused(server, backbone_file, tmp_path):
    folder, address = server
    (folder / "net-00000000.pth").write_bytes(backbone_file.read_bytes())
    with pytest.raises(WeightsUnusable, match="invalid hash value"):
        weights.download(at(f"{address}/net-00000000.pth"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.pth"))


def test_without_a_network_it_says_what_else_works(server, tmp_path):
    _, address = server
    with pytest.raises(WeightsUnusable, match=r"cannot be reached .*--weights PATH"):
        weights.download(at(f"{address}/absent-00000000.pth"), tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        (b"no weights", "it is no file of tensors"),
        ([1, 2], "it holds a list"),
        ({"features.0.0.weight": torch.zeros(1)}, "a state_dict of MobileNetV2 with 1000 classes is expected"),
        ({"state": 1}, "a state_dict of MobileNetV2"),
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
