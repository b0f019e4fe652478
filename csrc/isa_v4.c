/* isa_v4.c - the kernels for AVX-512 F, DQ, BW, VL (x86-64-v4). */
#define FR_V4 1
#define FR_ISA v4
#include "isa.tmpl.h"
