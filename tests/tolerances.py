"""Every tolerance, with its reason."""

# Seconds after which a wait in a test is a hang, whatever else the machine has to do.
AMPLE = 240.0

# Same arithmetic in another order of summation, float64.
EXACT_FLOAT64 = 1e-10
# The same where a module rounds to float32 on its way, whatever its precision.
CASTS_TO_FLOAT32 = 1e-6
# The same in float32, relative to the largest value of the reference.
EXACT_FLOAT32 = 1e-4
# A control (mode off, halo dropped, ...) must be wrong by more than this.
CONTROL = 1e-3
# Latents of a render against stock diffusers, float32, same seed and steps.
STOCK_LATENTS = 1e-4
# Pixels between numbers of ranks, grey levels of 255: one rounding step.
GREY_LEVELS = 1
# Clips of smooth gradients through H.264, HEVC or ProRes at our settings, decibels of 8-bit RGB.
VIDEO_PSNR = 38.0
# Half precision keeps 11 bits; what is rounded is off by half of the last, and float32 by less.
HALF_STEP = 2**-11 + 2**-20
# A saturated patch through a lossy format and a profile of 8 bits, levels of 255.
PATCH_LEVELS = 6
# Light through Little CMS's 32-bit floats and single precision, of white.
LIGHT = 1e-3
# Gradients with noise in their low bits through JPEG and AVIF at our settings, decibels.
PICTURE_PSNR = 36.0
# And through WebP, which keeps a quarter of the colours: each channel has noise of its own.
QUARTER_PSNR = 18.0
# The same through ProRes 422 HQ, which is meant to be edited further.
PRORES_PSNR = 45.0
# Tiles of noise, edges and gradients through JPEG of quality 90, decibels of 8-bit RGB.
TILE_PSNR = 30.0
# bfloat16 keeps 8 bits: weights and result are rounded once each, relative to the largest value.
HALF = 2**-7
# Latents in bfloat16 between numbers of ranks, and against diffusers, which rounds them between
# steps too: root mean square of the difference, relative.
HALF_LATENTS = 0.04
# A run of a solver against diffusers' scheduler, float64 from float32 noise levels.
STOCK_STEPS = 1e-6
# A LoRA added to the weights or kept beside them, float32, relative to the largest value.
LORA = 1e-5
# float8_e4m3fn keeps 4 bits of a weight; errors of layers add up.
FLOAT8 = 2**-3
# Mean entropies of attention in float32 between numbers of ranks, relative.
ENTROPY_FLOAT32 = 1e-6
# A decoder's enlargement of a picture by torch's bicubic interpolation, float32.
ENLARGED = 1e-6
# A window of a canvas against the whole's, float32: convolutions of other sizes sum otherwise.
CROP_FLOAT32 = 1e-5
# A training on two workers against one: float32 gradients summed in another order, which Adam
# divides by their own size. After a few steps, a share of the way that all weights together went;
# a weight that hardly moves is rounding's alone. And a layer that moves, by its largest weight.
STRAYED = 2e-2
TRAINED_APART = 1e-3
# A number of an ICC profile is rounded to 1 in 65536 (s15Fixed16Number).
FIXED_POINT = 1 / 65536
# Colours of a chart against formulas, CIE 1976 Delta E: half a step of 8 bits, of 16, and of inks
# whose profile interpolates in tables of 9 and 33; numbers taken for another space's are far off.
COLOR_8_BITS = 0.6
COLOR_16_BITS = 0.01
COLOR_INKS = 1.0
COLOR_UNCONVERTED = 20.0
# What another program shows that converts whole numbers through coarse tables (libvips).
COLOR_ELSEWHERE = 4.0
