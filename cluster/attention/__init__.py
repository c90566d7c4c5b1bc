"""Attention over a canvas that lies on many ranks: all of it, in windows, pooled, or in fusion."""

from .entropy import canvas_entropy as canvas_entropy
from .entropy import pooled_entropy as pooled_entropy
from .modifier import AttentionChange as AttentionChange
from .modifier import AttentionModifier as AttentionModifier
from .modifier import Unmodified as Unmodified
from .pooled_attention import pooled_context_attention as pooled_context_attention
from .pooled_context import PooledContext as PooledContext
from .pooled_context import PooledDim as PooledDim
from .region_attention import prompt_by_prompt as prompt_by_prompt
from .region_attention import regional_attention as regional_attention
from .region_attention import regional_cross_attention as regional_cross_attention
from .region_attention import regional_text_attention as regional_text_attention
from .regions import Regions as Regions
from .scale_fusion import AttentionShape as AttentionShape
from .scale_fusion import FusionAxes as FusionAxes
from .scale_fusion import ScaleFusion as ScaleFusion
from .scale_fusion import fused_features as fused_features
from .scale_fusion import gaussian_kernel as gaussian_kernel
from .scale_fusion import low_pass as low_pass
from .scale_fusion import shaped_attention as shaped_attention
from .sequence_parallel import Context as Context
from .sequence_parallel import canvas_attention as canvas_attention
from .windowed_attention import window_attention as window_attention
from .windows import Edge as Edge
from .windows import Window as Window
from .windows import Windows as Windows
