/* direct.h - products with weights as they lie: where each weight is used for a few rows only, a packed copy is more work than the
 * product. Same sums in the same order as those of tile.h, same bits.
 */
#ifndef FR_DIRECT_H
#define FR_DIRECT_H
#include "tile/pack.h"

enum { DIRECT_ROWS = 4 }; /* a product with more rows packs its weights */

/* A vector of outputs of s[r] += sum over k of a[r][k] * w[i][k]: lane i belongs to row i of w, so blocks are transposed in registers. */
typedef struct {
    const REAL *w;   /* its first row */
    ptrdiff_t lanes; /* rows that there are */
} column_vector;

/* r[j] lane i = w[i][k + j], 0 where there is no such row; terms <= W. */
static ALWAYS_INLINE void load_transposed(vec *r, const column_vector *c, ptrdiff_t ld, ptrdiff_t k, ptrdiff_t terms)
{
    if (c->lanes == W && terms == W) {
        FR_UNROLL_ALL
        for (int i = 0; i < W; i++)
            r[i] = v_load(c->w + i * ld + k);
    } else {
        FR_UNROLL_ALL
        for (int i = 0; i < W; i++)
            r[i] = i < c->lanes ? v_load_n(c->w + i * ld + k, terms) : v_zero();
    }
    transpose_registers(r);
}

/* `terms` products of a block; a constant W where it is whole. */
static ALWAYS_INLINE void multiply_block(const int n, const REAL *const *a, const vec *r, ptrdiff_t k, ptrdiff_t terms, vec *sum)
{
    FR_UNROLL_ALL
    for (int j = 0; j < W; j++)
        if (j < terms)
            for (int i = 0; i < n; i++)
                sum[i] = v_fma(v_set1(a[i][k + j]), r[j], sum[i]);
}

/* n rows by nv such vectors, n and nv constants; K terms, SUM_TERMS at most in a sum. s: [row][4] vectors. */
static ALWAYS_INLINE void direct_columns_body(const int n, const int nv, const REAL *const *a, const column_vector *c, ptrdiff_t ld,
                                              ptrdiff_t K, REAL *s)
{
    for (ptrdiff_t k0 = 0; k0 < K; k0 += SUM_TERMS) {
        vec sum[2][DIRECT_ROWS], r[W];
        for (int v = 0; v < nv; v++)
            for (int i = 0; i < n; i++)
                sum[v][i] = v_zero();
        ptrdiff_t k = k0;
        const ptrdiff_t end = fr_min(K, k0 + SUM_TERMS);
        for (; k + W <= end; k += W)
            for (int v = 0; v < nv; v++) {
                load_transposed(r, &c[v], ld, k, W);
                multiply_block(n, a, r, k, W, sum[v]);
            }
        for (int v = 0; v < nv && k < end; v++) {
            load_transposed(r, &c[v], ld, k, end - k);
            multiply_block(n, a, r, k, end - k, sum[v]);
        }
        for (int v = 0; v < nv; v++)
            for (int i = 0; i < n; i++)
                v_store(s + (i * 4 + v) * W, v_load(s + (i * 4 + v) * W) + sum[v][i]);
    }
}

static NOINLINE void direct_columns_1x1(const REAL *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t K, REAL *s)
{
    direct_columns_body(1, 1, a, c, ld, K, s);
}
static NOINLINE void direct_columns_1x2(const REAL *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t K, REAL *s)
{
    direct_columns_body(1, 2, a, c, ld, K, s);
}
static NOINLINE void direct_columns_4x1(const REAL *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t K, REAL *s)
{
    direct_columns_body(DIRECT_ROWS, 1, a, c, ld, K, s);
}

/* Rows for a body of DIRECT_ROWS: what it computes of a row too many is thrown away. */
static void fill_rows(int n, const REAL *const *a, const REAL **rows, const REAL *s, REAL *sums)
{
    for (int i = 0; i < DIRECT_ROWS; i++) {
        rows[i] = a[i < n ? i : 0];
        memcpy(sums + i * 4 * W, s + (i < n ? i : 0) * 4 * W, 4 * W * sizeof(REAL));
    }
}

/* n <= DIRECT_ROWS rows by nv <= 4 vectors. */
static void direct_columns(int n, int nv, const REAL *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t K, REAL *s)
{
    int v = 0;
    if (n == 1) {
        for (; v + 2 <= nv; v += 2)
            direct_columns_1x2(a, c + v, ld, K, s + v * W);
        if (v < nv)
            direct_columns_1x1(a, c + v, ld, K, s + v * W);
        return;
    }
    const REAL *rows[DIRECT_ROWS];
    REAL sums[DIRECT_ROWS * 4 * W];
    fill_rows(n, a, rows, s, sums);
    for (; v < nv; v++)
        direct_columns_4x1(rows, c + v, ld, K, sums + v * W);
    memcpy(s, sums, n * 4 * W * sizeof(REAL));
}

/* The other way round, s[r][v] += sum over k of a[r][k] * w[row k][v]: rows of w as they lie, blocks of H of them in some order. */
typedef struct {
    const REAL *w;    /* (blocks*H, ld), at the first column */
    ptrdiff_t H, ld;
    int blocks;
    const int *order; /* of the blocks */
} row_blocks_of;

/* n rows by nv vectors, n and nv constants; lanes of each vector: a constant W, or fewer where there is one vector. */
static ALWAYS_INLINE void direct_rows_body(const int n, const int nv, const REAL *const *a, const row_blocks_of *b, ptrdiff_t lanes, REAL *s)
{
    vec sum[DIRECT_ROWS][4];
    for (int i = 0; i < n; i++)
        for (int v = 0; v < nv; v++)
            sum[i][v] = v_zero();
    ptrdiff_t k = 0, end = SUM_TERMS;
    for (int g = 0; g < b->blocks; g++) {
        const REAL *row = b->w + b->order[g] * b->H * b->ld;
        for (ptrdiff_t next = k + b->H; k < next; k++, row += b->ld) {
            if (k == end) { /* the end of a sum */
                end += SUM_TERMS;
                for (int i = 0; i < n; i++)
                    for (int v = 0; v < nv; v++) {
                        v_store(s + (i * 4 + v) * W, v_load(s + (i * 4 + v) * W) + sum[i][v]);
                        sum[i][v] = v_zero();
                    }
            }
            for (int v = 0; v < nv; v++) {
                const vec w = v_load_n(row + v * W, lanes);
                for (int i = 0; i < n; i++)
                    sum[i][v] = v_fma(v_set1(a[i][k]), w, sum[i][v]);
            }
        }
    }
    for (int i = 0; i < n; i++)
        for (int v = 0; v < nv; v++)
            v_store(s + (i * 4 + v) * W, v_load(s + (i * 4 + v) * W) + sum[i][v]);
}

static NOINLINE void direct_rows_1x4(const REAL *const *a, const row_blocks_of *b, REAL *s)
{
    direct_rows_body(1, 4, a, b, W, s);
}
static NOINLINE void direct_rows_4x2(const REAL *const *a, const row_blocks_of *b, REAL *s)
{
    direct_rows_body(DIRECT_ROWS, 2, a, b, W, s);
}
static NOINLINE void direct_rows_4x1(const REAL *const *a, const row_blocks_of *b, ptrdiff_t lanes, REAL *s)
{
    direct_rows_body(DIRECT_ROWS, 1, a, b, lanes, s);
}

/* n <= DIRECT_ROWS rows by nv <= 4 vectors, `lanes` in the last. */
static void direct_rows(int n, int nv, const REAL *const *a, row_blocks_of b, ptrdiff_t lanes, REAL *s)
{
    if (n == 1 && nv == 4 && lanes == W) {
        direct_rows_1x4(a, &b, s);
        return;
    }
    const REAL *rows[DIRECT_ROWS];
    REAL sums[DIRECT_ROWS * 4 * W];
    fill_rows(n, a, rows, s, sums);
    for (int v = 0; v < nv;) {
        const int both = v + 2 < nv || (v + 2 == nv && lanes == W);
        if (both)
            direct_rows_4x2(rows, &b, sums + v * W);
        else
            direct_rows_4x1(rows, &b, v + 1 < nv ? W : lanes, sums + v * W);
        v += both ? 2 : 1;
        b.w += (both ? 2 : 1) * W;
    }
    memcpy(s, sums, n * 4 * W * sizeof(REAL));
}

#endif
