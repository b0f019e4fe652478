/* scalar_f32.c - the kernels for plain C, any compiler and processor, float32. */
#define FR_SCALAR 1
#define FR_ISA scalar
#define REAL_IS_FLOAT 1
#include "isa/kernels.h"
