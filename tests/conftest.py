"""Shape-checked imports, cached weights where there are any, and the small networks that many tests share.

The import hook checks every shape annotation of the package while tests run, so it is installed before the package is
imported for the first time.
"""

import os
import shutil
from pathlib import Path

import jaxtyping
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"

if (SHARED / "cache").is_dir():
    os.environ["TORCH_HOME"] = str(SHARED / "cache" / "torch")
    os.environ["HF_HOME"] = str(SHARED / "cache" / "huggingface")
    os.environ["HF_HUB_OFFLINE"] = "1"

# an int will do for a float, as PEP 484 has it
jaxtyping.install_import_hook("arbitrary_nst", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


FORKING = ("test_training_processes.py", "test_training_resume.py", "test_training_failures.py")

TIER_OF_FIXTURE = {
    "launch": "browser",
    "shared": "weights",
    "vgg16_file": "weights",
    "efficientnet_file": "weights",
}


def pytest_collection_modifyitems(items):
    """Mark tests by the fixtures that they take, and run tests that fork first.

    A forked copy of a process that has computed on several threads may wait for these threads forever.
    """
    for item in items:
        for tier in sorted({TIER_OF_FIXTURE[name] for name in item.fixturenames if name in TIER_OF_FIXTURE}):
            item.add_marker(tier)
    items.sort(key=lambda item: item.path.name not in FORKING)


@pytest.fixture(autouse=True)
def as_many_threads_as_a_copy_has(request):
    """One, in tests that fork: results of another number of threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if request.path.name in FORKING else threads)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Shapes go unchecked, as they do for a user: what the package itself says of a wrong tensor can be seen."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of pictures and caches beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def vgg16_file() -> Path:
    """The cached weights of VGG-16; no test downloads them."""
    from torchvision.models import VGG16_Weights

    name = VGG16_Weights.IMAGENET1K_FEATURES.url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        pytest.skip(f"{path} is not cached")
    return path


@pytest.fixture(scope="session")
def efficientnet_file() -> Path:
    """The cached weights of EfficientNet-Lite0; no test downloads them."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache("timm/tf_efficientnet_lite0.in1k", "model.safetensors")
    if not isinstance(path, str):
        pytest.skip("the weights of tf_efficientnet_lite0 are not in the Hugging Face cache")
    return Path(path)


@pytest.fixture(scope="session")
def tiny():
    """VGG-16 with random weights as far as relu2_1."""
    from arbitrary_nst.nn.features import VGGFeatures

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VGGFeatures(["relu1_1", "conv1_2", "pool1", "relu2_1"], pretrained=False)


@pytest.fixture(scope="session")
def light_model():
    """The default model with random weights, in evaluation mode. Tests that change a model change a copy."""
    from arbitrary_nst.models import light

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return light(pretrained=False).eval()


@pytest.fixture(scope="session")
def model_file(light_model, tmp_path_factory) -> Path:
    """The default model with random weights, saved."""
    from arbitrary_nst.models.serialization import save_model

    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    save_model(light_model, "light", path)
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder with two photos, one of them transparent, and two paintings."""
    from arbitrary_nst.image import save_image

    save_image(torch.rand(1, 3, 21, 34), tmp_path / "content" / "lake.jpg")
    alpha = torch.linspace(0, 1, 27).expand(1, 1, 19, 27)
    save_image(torch.rand(1, 3, 19, 27), tmp_path / "content" / "deep" / "logo.png", alpha)
    for name in ("waves", "dots"):
        save_image(torch.rand(1, 3, 40, 40), tmp_path / "style" / f"{name}.png")
    return tmp_path


@pytest.fixture
def stylize(pictures, model_file):
    """The command on these pictures; returns its exit code."""
    from arbitrary_nst.commands import main

    def run(*options, content=pictures / "content", style=pictures / "style", output=pictures / "out"):
        styles = [style] if isinstance(style, (str, Path)) else style
        paths = ["--content", str(content), "--style", *map(str, styles), "--output", str(output)]
        return main(["stylize", *paths, "--model", str(model_file), "--device", "cpu", *options])

    return run


@pytest.fixture(scope="module")
def launch():
    """A function that starts Chromium without a window, with options of its command line."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        always = ["--no-sandbox"] if os.geteuid() == 0 else []
        yield lambda *options: driver.chromium.launch(executable_path=executable, args=[*always, *options])


@pytest.fixture(scope="module")
def browser(launch):
    """Chromium without a window."""
    browser = launch()
    yield browser
    browser.close()
