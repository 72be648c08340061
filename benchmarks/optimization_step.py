"""What a step of an optimization costs beside the bare forward and backward pass of its feature network.

    python benchmarks/optimization_step.py [--sizes 256 512] [--preset gatys2016] [--steps 40] [--precision float32]

The preset runs at one size only. Both are timed in turn in one run; the medians and their ratio are printed. The bare
pass goes from pixels to the deepest layer and back, without losses, with the gradient of that layer's mean.
"""

import statistics
import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro

from arbitrary_nst.optimization.loop import feature_network, optimize
from arbitrary_nst.optimization.presets import PRESETS
from arbitrary_nst.runtime.devices import keep_freed_memory


@dataclass(frozen=True)
class Config:
    """Time steps of an optimization beside bare passes."""

    sizes: tuple[int, ...] = (256, 512)
    preset: str = "gatys2016"
    steps: int = 40
    """Timed steps; half as many before them fill the memory of L-BFGS."""
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = 2


def main(config: Config) -> None:
    keep_freed_memory()  # as the command does
    torch.set_num_threads(config.threads)
    settings = replace(PRESETS[config.preset], coarsest=0, scales=(1.0,), split=False)
    features = feature_network(settings, pretrained=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{config}; torch {torch.__version__}")
    for size in config.sizes:
        generator = torch.Generator().manual_seed(0)
        content, style = (torch.rand(1, 3, size, size, generator=generator) for _ in range(2))
        iterates = optimize(content, [style], settings, device="cpu", precision=config.precision, features=features)

        def bare(image=content) -> None:
            pixels = image.to(memory_format=torch.channels_last).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
                deepest = list(features(pixels).values())[-1]
            deepest.float().mean().backward()

        times: dict[str, list[float]] = {"bare": [], "step": []}
        for index in range(config.steps * 3 // 2):
            for name, call in (("bare", bare), ("step", lambda iterates=iterates: next(iterates))):
                start = time.perf_counter()
                call()
                if index >= config.steps // 2:
                    times[name].append(1000 * (time.perf_counter() - start))
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio = medians["step"] / medians["bare"]
        print(f"{size:5} bare {medians['bare']:8.1f} ms  step {medians['step']:8.1f} ms  ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
