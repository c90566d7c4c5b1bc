"""Torch functions on a band: halos, merged statistics, canvas attention."""

from .attention_entropy import canvas_entropy as canvas_entropy
from .attention_modifier import AttentionChange as AttentionChange
from .attention_modifier import AttentionModifier as AttentionModifier
from .attention_override import AttentionOverride as AttentionOverride
from .layer_marks import Marks as Marks
from .layer_marks import innermost as innermost
from .layer_marks import mark as mark
from .mode import BandMode as BandMode
from .mode import band_mode as band_mode
from .row_mixers import ROW_MIXERS as ROW_MIXERS
from .row_mixers import row_mixer as row_mixer
from .scale_fusion import AttentionShape as AttentionShape
from .scale_fusion import ScaleFusion as ScaleFusion
from .scale_fusion import fused_features as fused_features
from .scale_fusion import gaussian_kernel as gaussian_kernel
from .scale_fusion import low_pass as low_pass
from .scale_fusion import shaped_attention as shaped_attention
from .sequence_parallel import Context as Context
from .sequence_parallel import canvas_attention as canvas_attention
from .tensor_shapes import BandError as BandError
from .windowed_attention import window_attention as window_attention
from .windows import Edge as Edge
from .windows import Window as Window
from .windows import Windows as Windows
