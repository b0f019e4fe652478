/* simd.h - one vector of REALs, for every instruction set and both dtypes.
 *
 * The only place (with fpstate.h) that knows which processor this is. Arithmetic is written with the
 * operators + - * / of the GCC vector extensions; the rest is here. Included after
 *
 *     FR_SCALAR, FR_SSE2, FR_NEON, FR_V3 or FR_V4    exactly one, defined to 1
 *     REAL_IS_FLOAT                                  1: float32, 0: float64
 *     FR_BF16_PRODUCTS                               1: float32 whose products take bfloat16; else absent
 *     FR_AMX                                         1: such products on AMX
 *     FR_AMX_IN_C                                    1: with AMX's instructions written in C, for tests
 *
 * and it gives
 *
 *     REAL, IREAL   the element, and the signed integer of its size
 *     W             lanes in a vector, a literal; FR_FUSED: 1 if v_fma rounds once
 *     vec, ivec     the vector (a plain REAL if FR_SCALAR), and the integers of its lanes
 *     MR1 .. MR4    rows of a register tile whose panel is 1 .. 4 vectors wide
 *     v_*           the functions below
 *
 * Multiply-adds are fused where v_fma and v_fnma say so and nowhere else: compile with -ffp-contract=off.
 */

#ifndef FR_SIMD_H
#define FR_SIMD_H
#if (defined FR_SCALAR) + (defined FR_SSE2) + (defined FR_NEON) + (defined FR_V3) + (defined FR_V4) != 1
#error "simd.h: define exactly one of FR_SCALAR, FR_SSE2, FR_NEON, FR_V3, FR_V4 first"
#endif
#ifndef FR_BF16_PRODUCTS
#define FR_BF16_PRODUCTS 0
#endif
#if !defined REAL_IS_FLOAT
#error "simd.h: define REAL_IS_FLOAT (1 or 0) first"
#endif


#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd/common.h"
#if defined FR_SSE2
#include <emmintrin.h>
#elif defined FR_V3 || defined FR_V4
#include <immintrin.h>
#elif defined FR_NEON
#include <arm_neon.h>
#endif

#ifdef __GNUC__
#define FR_INLINE static inline __attribute__((always_inline))
#else
#define FR_INLINE static inline
#endif

#if defined FR_V3 || defined FR_V4 || defined FR_NEON
#define FR_FUSED 1
#else
#define FR_FUSED 0
#endif

/* An MR x panel tile must leave registers for the panel and a broadcast: 32 (v4, neon), 16 (v3, sse2). So must STRIP sums of one row. */
#if defined FR_V4 || defined FR_NEON
#define MR1 8
#define MR2 8
#define MR3 8
#define MR4 6
#define STRIP 16
#elif defined FR_V3
#define MR1 6
#define MR2 6
#define MR3 4
#define MR4 3
#define STRIP 12
#elif defined FR_SSE2
#define MR1 6
#define MR2 4
#define MR3 3
#define MR4 2
#define STRIP 8
#else
#define MR1 4
#define MR2 4
#define MR3 3
#define MR4 2
#define STRIP 8
#endif

#if defined FR_V4
#define FR_VECTOR_BYTES 64
#elif defined FR_V3
#define FR_VECTOR_BYTES 32
#else
#define FR_VECTOR_BYTES 16
#endif
/* MM(op): the intrinsic op of this vector */
#if REAL_IS_FLOAT
#define REAL float
#define IREAL int32_t
#else
#define REAL double
#define IREAL int64_t
#endif

#if defined FR_SCALAR
#define W 1
#elif defined FR_V4 && REAL_IS_FLOAT
#define W 16
#define MM(op) _mm512_##op##_ps
#elif defined FR_V4
#define W 8
#define MM(op) _mm512_##op##_pd
#elif defined FR_V3 && REAL_IS_FLOAT
#define W 8
#define MM(op) _mm256_##op##_ps
#elif defined FR_V3
#define W 4
#define MM(op) _mm256_##op##_pd
#elif defined FR_SSE2 && REAL_IS_FLOAT
#define W 4
#define MM(op) _mm_##op##_ps
#elif defined FR_SSE2
#define W 2
#define MM(op) _mm_##op##_pd
#elif REAL_IS_FLOAT
#define W 4
#define MM(op) v##op##q_f32
#define vset1q_f32 vdupq_n_f32
#else
#define W 2
#define MM(op) v##op##q_f64
#define vset1q_f64 vdupq_n_f64
#endif

#ifdef FR_SCALAR
typedef REAL vec;
typedef IREAL ivec;
#else
typedef REAL vec __attribute__((vector_size(FR_VECTOR_BYTES)));
typedef IREAL ivec __attribute__((vector_size(FR_VECTOR_BYTES)));
/* a vec somewhere in an array of REALs: aligned as they are */
typedef REAL vec_at __attribute__((vector_size(FR_VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#endif

/* v stands in a register here, whatever the compiler had in mind */
#if defined FR_SCALAR || !defined __GNUC__
#define v_pin(v) ((void)(v))
#elif defined FR_NEON
#define v_pin(v) __asm__("" : "+w"(v))
#elif defined FR_V4
#define v_pin(v) __asm__("" : "+v"(v))
#else
#define v_pin(v) __asm__("" : "+x"(v))
#endif

/* ---- loads and stores (unaligned) ---------------------------------------------------------------------- */
#ifdef FR_SCALAR
FR_INLINE vec v_set1(REAL x) { return x; }
FR_INLINE vec v_zero(void) { return 0; }
FR_INLINE vec v_load(const REAL *p) { return *p; }
FR_INLINE void v_store(REAL *p, vec v) { *p = v; }
#else
FR_INLINE vec v_set1(REAL x) { return MM(set1)(x); }
FR_INLINE vec v_zero(void) { return (vec){0}; }
FR_INLINE vec v_load(const REAL *p) { return *(const vec_at *)p; }
FR_INLINE void v_store(REAL *p, vec v) { *(vec_at *)p = v; }
#endif

/* Two halves of a vector. */
#if defined FR_V4 && REAL_IS_FLOAT
FR_INLINE vec v_load_halves(const REAL *low, const REAL *high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1);
}
#elif defined FR_V4
FR_INLINE vec v_load_halves(const REAL *low, const REAL *high)
{
    return _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(low)), _mm256_loadu_pd(high), 1);
}
#elif defined FR_V3 && REAL_IS_FLOAT
FR_INLINE vec v_load_halves(const REAL *low, const REAL *high)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}
#elif defined FR_V3
FR_INLINE vec v_load_halves(const REAL *low, const REAL *high)
{
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(low)), _mm_loadu_pd(high), 1);
}
#endif

/* The first n lanes, 1 <= n <= W; v_load_n sets the others to 0. Neither touches memory past p + n. */
#if defined FR_SCALAR
FR_INLINE vec v_load_n(const REAL *p, ptrdiff_t n) { (void)n; return *p; }
FR_INLINE void v_store_n(REAL *p, vec v, ptrdiff_t n) { (void)n; *p = v; }

#elif defined FR_V4
#if REAL_IS_FLOAT
FR_INLINE __mmask16 v_first(ptrdiff_t n) { return (__mmask16)((1u << n) - 1); }
#else
FR_INLINE __mmask8 v_first(ptrdiff_t n) { return (__mmask8)((1u << n) - 1); }
#endif
FR_INLINE vec v_load_n(const REAL *p, ptrdiff_t n)
{
    if (__builtin_constant_p(n) && n == W) return v_load(p);
    return MM(maskz_loadu)(v_first(n), p);
}
FR_INLINE void v_store_n(REAL *p, vec v, ptrdiff_t n)
{
    if (__builtin_constant_p(n) && n == W) v_store(p, v);
    else MM(mask_storeu)(p, v_first(n), v);
}

#elif defined FR_V3
#if REAL_IS_FLOAT
FR_INLINE __m256i v_first(ptrdiff_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#else
FR_INLINE __m256i v_first(ptrdiff_t n)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif
FR_INLINE vec v_load_n(const REAL *p, ptrdiff_t n)
{
    if (n == W) return v_load(p);
    return MM(maskload)(p, v_first(n));
}

/* In halves: vmaskmov stores are microcoded on AMD. */
FR_INLINE void v_store_n(REAL *p, vec v, ptrdiff_t n)
{
    if (n == W) { v_store(p, v); return; }
#if REAL_IS_FLOAT
    __m128 rest = _mm256_castps256_ps128(v);
    if (n & 4) { _mm_storeu_ps(p, rest); p += 4; rest = _mm256_extractf128_ps(v, 1); }
    if (n & 2) { _mm_storel_pi((__m64 *)p, rest); p += 2; rest = _mm_movehl_ps(rest, rest); }
    if (n & 1) _mm_store_ss(p, rest);
#else
    __m128d rest = _mm256_castpd256_pd128(v);
    if (n & 2) { _mm_storeu_pd(p, rest); p += 2; rest = _mm256_extractf128_pd(v, 1); }
    if (n & 1) _mm_store_sd(p, rest);
#endif
}

#else /* 16 bytes: lane by lane */
FR_INLINE vec v_load_n(const REAL *p, ptrdiff_t n)
{
    if (n == W) return v_load(p);
    vec v = {p[0]};
#if W == 4
    if (n > 1) v[1] = p[1];
    if (n > 2) v[2] = p[2];
#endif
    return v;
}
FR_INLINE void v_store_n(REAL *p, vec v, ptrdiff_t n)
{
    if (n == W) { v_store(p, v); return; }
    p[0] = v[0];
#if W == 4
    if (n > 1) p[1] = v[1];
    if (n > 2) p[2] = v[2];
#endif
}
#endif

/* ---- arithmetic ---------------------------------------------------------------------------------------- */

/* v_fma: a*b + c, v_fnma: c - a*b; rounded once if FR_FUSED, else twice. */
#if defined FR_V3 || defined FR_V4
FR_INLINE vec v_fma(vec a, vec b, vec c) { return MM(fmadd)(a, b, c); }
FR_INLINE vec v_fnma(vec a, vec b, vec c) { return MM(fnmadd)(a, b, c); }
#elif defined FR_NEON
FR_INLINE vec v_fma(vec a, vec b, vec c) { return MM(fma)(c, a, b); }
FR_INLINE vec v_fnma(vec a, vec b, vec c) { return MM(fms)(c, a, b); }
#else
FR_INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
FR_INLINE vec v_fnma(vec a, vec b, vec c) { return c - a * b; }
#endif

/* If b is NaN so is the result: v_max(low, x) lets the NaNs of x through. a is never NaN. */
#ifdef FR_SCALAR
FR_INLINE vec v_max(vec a, vec b) { return a > b ? a : b; }
FR_INLINE vec v_min(vec a, vec b) { return a < b ? a : b; }
#else
FR_INLINE vec v_max(vec a, vec b) { return MM(max)(a, b); }
FR_INLINE vec v_min(vec a, vec b) { return MM(min)(a, b); }
#endif

/* Rounded correctly. */
#if defined FR_SCALAR && REAL_IS_FLOAT
FR_INLINE vec v_sqrt(vec v) { return __builtin_sqrtf(v); }
#elif defined FR_SCALAR
FR_INLINE vec v_sqrt(vec v) { return __builtin_sqrt(v); }
#else
FR_INLINE vec v_sqrt(vec v) { return MM(sqrt)(v); }
#endif

/* The lanes' bits as integers, and back. The shift drops what leaves on the left. */
#ifdef FR_SCALAR
FR_INLINE ivec v_bits(vec v) { ivec i; memcpy(&i, &v, sizeof i); return i; }
FR_INLINE vec v_from_bits(ivec i) { vec v; memcpy(&v, &i, sizeof v); return v; }
FR_INLINE ivec v_shift_left(ivec i, int n) { return (ivec)((uint64_t)i << n); }
#else
FR_INLINE ivec v_bits(vec v) { return (ivec)v; }
FR_INLINE vec v_from_bits(ivec i) { return (vec)i; }
FR_INLINE ivec v_shift_left(ivec i, int n) { return i << n; }
#endif

FR_INLINE vec v_abs(vec v) { return v_from_bits(v_bits(v) & ~v_bits(v_set1((REAL)-0.0))); }
FR_INLINE vec v_copysign(vec magnitude, vec sign)
{
    const ivec top = v_bits(v_set1((REAL)-0.0));
    return v_from_bits((v_bits(magnitude) & ~top) | (v_bits(sign) & top));
}

/* a > b ? yes : no in every lane; no where a or b is NaN. */
FR_INLINE vec v_select_gt(vec a, vec b, vec yes, vec no)
{
#if defined FR_SCALAR
    return a > b ? yes : no;
#elif defined FR_V4 && REAL_IS_FLOAT
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
#elif defined FR_V4
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ), no, yes);
#elif defined FR_V3
    return MM(blendv)(no, yes, MM(cmp)(a, b, _CMP_GT_OQ));
#elif defined FR_NEON
    return MM(bsl)(MM(cgt)(a, b), yes, no);
#else
    const ivec gt = a > b;
    return v_from_bits((gt & v_bits(yes)) | (~gt & v_bits(no)));
#endif
}

#endif
