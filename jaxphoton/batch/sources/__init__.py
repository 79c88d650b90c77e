"""Where the images of a run come from. See `jaxphoton.batch`."""

from jaxphoton.batch.sources.base import Source as Source
from jaxphoton.batch.sources.base import SourceOptions as SourceOptions
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from jaxphoton.batch.sources.item import Item as Item
from jaxphoton.batch.sources.opening import local_images as local_images
from jaxphoton.batch.sources.opening import open_source as open_source
from jaxphoton.batch.sources.selection import Selection as Selection
from jaxphoton.batch.sources.selection import parse_shard as parse_shard
