/* neon_f32.c - the kernels for NEON (every aarch64), float32. */
#define FR_NEON 1
#define FR_ISA neon
#define REAL_IS_FLOAT 1
#include "isa/kernels.h"
