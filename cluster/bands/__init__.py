"""Torch functions on a band: halos, merged statistics, attention where the layers are marked."""

from .attention_override import AttentionOverride as AttentionOverride
from .block_cache import BlockCache as BlockCache
from .block_cache import BlockRun as BlockRun
from .block_cache import hook_blocks as hook_blocks
from .conv_geometry import BlockPool as BlockPool
from .conv_geometry import ConvGeometry as ConvGeometry
from .conv_geometry import ConvShape as ConvShape
from .conv_geometry import conv_shape as conv_shape
from .conv_geometry import current_shape as current_shape
from .conv_geometry import hook_convolutions as hook_convolutions
from .convolution import around as around
from .hook_sites import HookSites as HookSites
from .layer_marks import Marks as Marks
from .layer_marks import innermost as innermost
from .layer_marks import mark as mark
from .layer_marks import off_bands as off_bands
from .mode import BandMode as BandMode
from .mode import band_mode as band_mode
from .row_mixers import ROW_MIXERS as ROW_MIXERS
from .row_mixers import row_mixer as row_mixer
from .tensor_shapes import BandError as BandError
