/* isa_neon.c - the kernels for the baseline of aarch64. */
#define FR_NEON 1
#define FR_ISA neon
#include "isa.tmpl.h"
