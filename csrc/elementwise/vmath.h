/* vmath.h - the functions of simd/vmath.h, of whole arrays. */

#ifndef FR_ELEMENTWISE_VMATH_H
#define FR_ELEMENTWISE_VMATH_H
#include "fastrnn.h"
#include "simd/fpstate.h"
#include "simd/vmath.h"

static ALWAYS_INLINE vec vmath_of(int function, vec v)
{
    switch (function) {
    case 0: return v_exp(v);
    case 1: return v_tanh(v);
    case 2: return v_sigmoid(v);
    case 3: return v_softplus(v);
    case 4: return v_softsign(v);
    default: return v_expm1_negative(v);
    }
}

static void vmath(int function, ptrdiff_t n, const void *x, void *y)
{
    fr_fpstate state = fr_fp_enter();
    const REAL *from = x;
    REAL *to = y;
    for (ptrdiff_t i = 0; i < n; i += W) {
        ptrdiff_t lanes = fr_min(W, n - i);
        vec v = v_load_n(from + i, lanes);
        v_store_n(to + i, vmath_of(function, v), lanes);
    }
    fr_fp_leave(state);
}

#endif
