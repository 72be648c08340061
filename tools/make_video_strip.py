"""The pictures of docs/video.md, of a pan over a photo; and how videos compare in style and sharpness.

python tools/make_video_strip.py --output docs/video.jpg --plot docs/video_warping.png
python tools/make_video_strip.py --compare frame_by_frame.mp4 smoothed.mp4 --style painting.jpg
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from arbitrary_nst import load_image, save_image
from arbitrary_nst.commands import main as command
from arbitrary_nst.evaluation.metrics import feature_network, image_statistics, style_gap
from arbitrary_nst.image import resize
from arbitrary_nst.image.figures import contact_sheet
from arbitrary_nst.video.reading import VideoFile

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PHOTO, STYLE = EXAMPLES / "content" / "rocket.jpg", EXAMPLES / "styles" / "impasto_dusk.jpg"
FRAMES, HEIGHT, WIDTH = 24, 216, 288
SHOWN = (18, 19, 20, 21)
EVERY = 12
"""Of compared videos, which frames are looked at."""


def pan(folder: Path) -> None:
    """A camera that moves to the right and closer, as numbered pictures."""
    photo = (load_image(PHOTO)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    folder.mkdir()
    for index in range(FRAMES):
        scale = 1 - 0.006 * index
        place = np.float32([[scale, 0, 60 + 5.3 * index], [0, scale, 120 + 1.7 * index]])
        frame = cv2.warpAffine(photo, place, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        save_image(torch.from_numpy(frame).permute(2, 0, 1) / 255, folder / f"{index:04d}.png")


def strip(output: Path, plot: Path) -> None:
    """Consecutive frames of the pan, each for itself and smoothed, and beside them one line of pixels over time."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pan(folder / "photo")
        for name, options in (("frame by frame", ["--smooth", "0"]), ("smoothed", ["--report", str(folder / "r.csv")])):
            paths = [str(folder / "photo"), "--style", str(STYLE), "--output", str(folder / name)]
            if command(["video", *paths, *options]):
                raise SystemExit(1)
        shutil.copy(folder / "r.png", plot)
        rows, names = [], ("photo", "frame by frame", "smoothed")
        for name in names:
            frames = [load_image(path)[0] for path in sorted((folder / name).glob("*.png"))]
            over_time = torch.stack([frame[:, HEIGHT // 3] for frame in frames], 1)
            over_time = over_time.repeat_interleave(HEIGHT // FRAMES, 1)
            rows.append([*(frames[index] for index in SHOWN), over_time])
    columns = [*(f"frame {index}" for index in SHOWN), "a line of pixels over time"]
    save_image(contact_sheet(rows, columns, names, WIDTH), output, quality=85)


def compare(videos: list[Path], style: Path) -> None:
    """Style gap to the painting and sharpness (mean magnitude of the Laplacian of gray levels) of videos."""
    network = feature_network()
    for path in videos:
        gaps, sharpness, painting = [], [], None
        for index, frame in enumerate(VideoFile(path).frames()):
            if index % EVERY == EVERY // 2:
                if painting is None:
                    painting = image_statistics(network, resize(load_image(style), min(frame.rgb.shape[:2])))
                image = torch.from_numpy(frame.rgb).permute(2, 0, 1)[None] / 255
                gaps.append(style_gap(image_statistics(network, image), painting).item())
                gray = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
                sharpness.append(np.abs(cv2.Laplacian(gray, cv2.CV_32F)).mean())
        print(f"{path}: style gap {np.mean(gaps):.4f}, sharpness {np.mean(sharpness):.2f} (of {len(gaps)} frames)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--compare", type=Path, nargs="+")
    parser.add_argument("--style", type=Path, default=STYLE)
    options = parser.parse_args()
    if options.compare:
        compare(options.compare, options.style)
    elif options.output and options.plot:
        strip(options.output, options.plot)
    else:
        parser.error("give --output and --plot, or --compare")


if __name__ == "__main__":
    main()
