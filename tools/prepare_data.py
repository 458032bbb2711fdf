"""Turn downloaded data into what the streams read: `python -m tools.prepare_data imagenet SRC DST`."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from supervised.data import DataError, find_source, prepare
from supervised.data.prepare import CLASSES, IMAGES, KINDS, Progress
from tools.parser import Parser
from tools.text import warning_line

EXAMPLES = """\
what SRC may be (seen by what lies in it, or said by --format):
  npz      the official downsampled archives: train_data_batch_1.npz to train_data_batch_10.npz
  pickle   the same batches pickled (no ending); never taken unless asked for by --format pickle. Nothing that a
           pickle names is run: only arrays and plain values are admitted
  npy      one uint8 array [images, 3, 32, 32] per class: 0.npy, 1.npy, ...
  folder   full-size pictures, one folder per class (ImageFolder): scaled to 32x32 by Pillow's box filter

examples:
  python -m tools.prepare_data imagenet ~/imagenet32 data/imagenet32.npy
  python -m tools.prepare_data imagenet ~/ILSVRC2012/train data/imagenet32.npy --workers 8
  python -m tools.prepare_data imagenet ~/ILSVRC2012/train small.npy --classes 10 --images 100

Killed or interrupted? The same command goes on where it stopped.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 2 where the user must change something, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    warnings.formatwarning = warning_line  # type: ignore[assignment]
    try:
        source = find_source(
            options.source,
            kind=options.format,
            classes=options.classes,
            images=options.images,
            workers=options.workers,
            follow_links=options.follow_links,
        )
        resumed = prepare(source, options.destination, images=options.images, progress=_progress(len(source.parts)))
    except (DataError, ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    went_on = f" ({resumed} of {len(source.parts)} parts were there already)" if resumed else ""
    print(f"{options.destination}: {options.classes} classes of {options.images} images{went_on}")
    return 0


def _progress(total: int) -> Progress:
    """A bar over the parts that are left; those done earlier count from the start."""

    def bar(left: Iterable[int]) -> Iterable[int]:
        todo = list(left)
        return tqdm(todo, total=total, initial=total - len(todo), unit="part", dynamic_ncols=True)

    return bar


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.prepare_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_subparsers(required=True, metavar="DATA")
    imagenet = data.add_parser(
        "imagenet",
        help="ImageNet at 32x32 as one memory-mapped array",
        description="Write ImageNet at 32x32 as one memory-mapped uint8 array [classes, images, 3, 32, 32] (2.15 GB).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = imagenet.add_argument
    add("source", metavar="SRC", help="folder of the archives, arrays or pictures")
    add("destination", metavar="DST", help="the .npy to write; while it grows it is DST.partial")
    add("--format", choices=KINDS, help="what SRC is (default: look)")
    add("--classes", type=int, default=CLASSES, help="take the first so many classes (default: %(default)s)")
    add("--images", type=int, default=IMAGES, help="take the first so many images of each (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="threads that decode pictures (default: %(default)s)")
    add("--follow-links", action="store_true", help="read also what links out of SRC lead to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
