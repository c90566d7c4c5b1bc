"""Every tolerance, with its reason."""

# Same arithmetic in another order of summation, float64.
EXACT_FLOAT64 = 1e-10
# The same in float32, relative to the largest value of the reference.
EXACT_FLOAT32 = 1e-4
# A control (mode off, halo dropped, ...) must be wrong by more than this.
CONTROL = 1e-3
# Latents of a render against stock diffusers, float32, same seed and steps.
STOCK_LATENTS = 1e-4
# Pixels between numbers of ranks, grey levels of 255: one rounding step.
GREY_LEVELS = 1
# bfloat16 keeps 8 bits: weights and result are rounded once each, relative to the largest value.
HALF = 2**-7
