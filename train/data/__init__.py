"""Published data sets. `finedge data get NAME DIR` makes a folder that every command reads.

DIR then holds:

- the official files as unpacked
- train.csv [val.csv] test.csv with lines `path,label` from the official split
- classes.csv with the names
- dataset.json with the source of all of it

Counts are checked against the official ones; of Adience only the number of classes.

Downloads were run against a local server only, with the official layout in miniature
(tests/train/data). Addresses and digests come from the homepages, from torchvision, or from public
code that uses them. No real archive was ever opened, except that Grocery Store's own lists (2,640 /
296 / 2,485) were read.

Your own images need no command: CLASS/*.jpg, train/CLASS/*.jpg, or train.csv with lines
`path,label` (`finedge.data.LAYOUTS`).
"""

from __future__ import annotations

from finedge.train.data.aircraft import AIRCRAFT
from finedge.train.data.base import OfficialDataset
from finedge.train.data.birds import CUB200
from finedge.train.data.cars import CARS
from finedge.train.data.cifar import CIFAR10, CIFAR100
from finedge.train.data.dogs import DOGS
from finedge.train.data.faces import ADIENCE
from finedge.train.data.flowers import FLOWERS102
from finedge.train.data.food import FOOD101
from finedge.train.data.grocery import GROCERY
from finedge.train.data.imagenet import IMAGENET
from finedge.train.data.uecfood import UECFOOD100

DATASETS: dict[str, OfficialDataset] = {
    "cub200": CUB200,
    "cars": CARS,
    "aircraft": AIRCRAFT,
    "dogs": DOGS,
    "flowers102": FLOWERS102,
    "food101": FOOD101,
    "uecfood100": UECFOOD100,
    "adience": ADIENCE,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "grocery": GROCERY,
    "imagenet": IMAGENET,
}
