/* isa_v3.c - the kernels for AVX2 and FMA (x86-64-v3). */
#define FR_V3 1
#define FR_ISA v3
#include "isa.tmpl.h"
