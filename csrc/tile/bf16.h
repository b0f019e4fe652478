/* bf16.h - products of operands rounded to bfloat16, the upper half of a float32; the sums stay in float32.
 *
 * This file has what all processors share: rounding, rows of terms, the order of panels. pairs.h makes the sums with float32's
 * multiply-adds, amx.h on AMX.
 *
 * A sum takes its terms in blocks of BLOCK, the last one filled with zeros. In a block the even terms and the odd ones are two chains
 * of fused multiply-adds that start at 0, and s[r][v] += even + odd. That is what TDPBF16PS of AMX does, to the bit, so a processor
 * without it gives the same numbers: a product of two bfloat16 is exact in float32, and of a pair of them in 32 bits the upper one is a
 * float32 once the lower half is cleared, the lower one once it is shifted up.
 *
 * s: rows of four vectors. panel: vectors of pairs, terms k and k + 1 of an output in the lower and in the upper half of a lane; in a
 * block [k / 2][nv], or, for AMX, [nv][k / 2]. a[r]: the terms of row r, which round_terms has rounded.
 */
#ifndef FR_BF16_H
#define FR_BF16_H
#include "tile/tile.h"

enum { BLOCK = 32, PAIRS = BLOCK / 2 };

/* The terms of an operand with its zeros, and the rows of its panels. */
static inline ptrdiff_t terms_of(ptrdiff_t K)
{
    return (K + BLOCK - 1) & ~(ptrdiff_t)(BLOCK - 1);
}
static inline ptrdiff_t panel_rows(ptrdiff_t K)
{
    return terms_of(K) / 2;
}

/* From a row of a block of a panel to the next, and from a vector to the next. */
#ifdef FR_AMX
enum { NEXT_VECTOR = PAIRS * W };
static inline ptrdiff_t next_row(int nv)
{
    (void)nv;
    return W;
}
#else
enum { NEXT_VECTOR = W };
static inline ptrdiff_t next_row(int nv)
{
    return nv * W;
}
#endif

/* ---- rounding ------------------------------------------------------------------------------------------ */

#ifdef FR_SCALAR
typedef uint32_t uvec;
FR_INLINE uvec u_where(int yes) { return yes ? ~UINT32_C(0) : 0; }
#else
typedef uint32_t uvec __attribute__((vector_size(FR_VECTOR_BYTES)));
FR_INLINE uvec u_where(ivec yes) { return (uvec)yes; }
#endif
FR_INLINE uvec v_words(vec v) { return (uvec)v_bits(v); }
FR_INLINE vec v_from_words(uvec u) { return v_from_bits((ivec)u); }

/* To the nearest bfloat16, ties to even, in the upper half of a lane; a denormal is 0, a NaN stays one. By integers, so that every
 * processor rounds alike. */
FR_INLINE uvec v_round_bf16(vec v)
{
    const uvec u = v_words(v), exponent = u & 0x7f800000, nan = u_where(v != v), denormal = u_where(exponent == 0);
    const uvec nearest = u + 0x7fff + (u >> 16 & 1);
    return ((nan & (u | 0x400000)) | (~nan & nearest)) & 0xffff0000 & ~(denormal & 0x7fffffff);
}

FR_INLINE vec rounded(vec v) { return v_from_words(v_round_bf16(v)); }
FR_INLINE vec v_even(vec pairs) { return v_from_words(v_words(pairs) << 16); }
FR_INLINE vec v_odd(vec pairs) { return v_from_words(v_words(pairs) & 0xffff0000); }
FR_INLINE vec v_pair(vec even, vec odd) { return v_from_words(v_round_bf16(even) >> 16 | v_round_bf16(odd)); }

/* ---- rows ---------------------------------------------------------------------------------------------- */

/* A vector of numbers as terms: float32 where the sums are made of float32, else the upper halves. */
#ifdef FR_AMX
typedef uint16_t term;
#else
typedef REAL term;
#endif

FR_INLINE void store_terms(term *to, vec v)
{
#if !defined FR_AMX
    v_store(to, v_from_words(v_round_bf16(v)));
#elif defined FR_SCALAR
    *to = (term)(v_round_bf16(v) >> 16);
#elif defined FR_V4 && defined __AVX512BF16__ /* which rounds as v_round_bf16 does */
    const __m256bh h = _mm512_cvtneps_pbh(v);
    memcpy(to, &h, sizeof h);
#else
    typedef uint16_t halves __attribute__((vector_size(FR_VECTOR_BYTES / 2)));
    const halves h = __builtin_convertvector(v_round_bf16(v) >> 16, halves);
    memcpy(to, &h, sizeof h);
#endif
}

/* Rows one below the other in the workspace, a distance apart at which they do not share their places in the cache. */
static inline ptrdiff_t distance_of_rows(ptrdiff_t K)
{
    const ptrdiff_t terms = terms_of(K);
    return terms * (ptrdiff_t)sizeof(term) % 1024 ? terms : terms + BLOCK;
}

static void round_terms(term *to, const REAL *from, ptrdiff_t K)
{
    ptrdiff_t k = 0;
    for (; k + W <= K; k += W)
        store_terms(to + k, v_load(from + k));
    if (k < K) {
        store_terms(to + k, v_load_n(from + k, K - k));
        k += W;
    }
    for (; k < terms_of(K); k += W)
        store_terms(to + k, v_zero());
}

#ifdef FR_AMX
#include "tile/amx.h"
#else
#include "tile/pairs.h"
#endif

#endif
