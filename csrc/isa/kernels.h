/* kernels.h - all kernels for one instruction set and one dtype: included by the files beside it, each of which names its own and is
 * compiled with its own flags. The file is the namespace: names need no suffix, and a debugger shows them plain.
 *
 *     FR_SCALAR, FR_SSE2, FR_NEON, FR_V3 or FR_V4    exactly one, defined to 1
 *     FR_ISA                                         its name
 *     REAL_IS_FLOAT                                  1: float32, 0: float64
 *     FR_BF16_PRODUCTS                               1: products of bfloat16 operands, in float32
 *     FR_AMX, FR_AMX_IN_C                            1: such products on AMX; with its instructions in C
 */
#include "fastrnn.h"
/* registers */
#include "simd/simd.h"
#include "simd/vmath.h"
#include "tile/tile.h"
/* memory */
#include "tile/pack.h"
/* what happens to the numbers of one tile */
#include "cells/cells.h"
/* sequences */
#include "sequence/forward.h"
#include "sequence/backward.h"
/* whole arrays */
#if !FR_BF16_PRODUCTS
#include "elementwise/vmath.h"
#include "elementwise/optim.h"
#endif

#define FR_TABLE_(isa, dtype) fr_kernels_##isa##_##dtype
#define FR_TABLE(isa, dtype) FR_TABLE_(isa, dtype)
#define FR_STRING_(x) #x
#define FR_STRING(x) FR_STRING_(x)
#if FR_BF16_PRODUCTS
#define FR_THIS_TABLE FR_TABLE(FR_ISA, bf16)
#elif REAL_IS_FLOAT
#define FR_THIS_TABLE FR_TABLE(FR_ISA, f32)
#else
#define FR_THIS_TABLE FR_TABLE(FR_ISA, f64)
#endif

extern const fr_kernels FR_THIS_TABLE;
const fr_kernels FR_THIS_TABLE = {
    .isa = FR_STRING(FR_ISA),
    .lanes = W,
#if defined FR_AMX && !defined FR_AMX_IN_C
    .tiles = 1,
#endif
    .forward_sizes = forward_sizes,
    .backward_sizes = backward_sizes,
    .forward = forward,
    .backward = backward,
    .accumulate = accumulate,
    .token_table = token_table,
#if !FR_BF16_PRODUCTS
    .input_matrix = input_matrix,
    .vmath = vmath,
    .update = update,
#endif
};
