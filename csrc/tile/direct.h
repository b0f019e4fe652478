/* direct.h - products with weights as they lie: where each weight is used for a few rows only, a packed copy is more work than the
 * product. Same sums in the same order as those of plain.h, same bits. Not for bfloat16 operands, which are rounded when they are packed.
 */
#ifndef FR_DIRECT_H
#define FR_DIRECT_H
#include "tile/pack.h"

enum { DIRECT_ROWS = 4 }; /* a product with more rows packs its weights */
enum { AHEAD = 256 / sizeof(REAL) }; /* numbers, in a row of weights that is being read: four cache lines */

/* A vector of outputs of s[r] += sum over k of a[r][k] * w[i][k]: lane i belongs to row i of w, so blocks are transposed in registers. */
typedef struct {
    const REAL *w;   /* its first row */
    ptrdiff_t lanes; /* rows that there are */
} column_vector;

/* The first `terms` products of a block. */
static ALWAYS_INLINE void multiply_block(const int n, const term *const *a, const vec *r, ptrdiff_t k, ptrdiff_t terms, vec *sum)
{
    FR_UNROLL_ALL
    for (int j = 0; j < W; j++)
        if (j < terms) {
            FR_UNROLL_ALL
            for (int i = 0; i < n; i++)
                sum[i] = v_fma(v_set1(a[i][k + j]), r[j], sum[i]);
        }
}

/* A whole block. Processors prefetch few streams by themselves, and here each row is one. */
static ALWAYS_INLINE void whole_block(const int n, const term *const *a, const block_rows *b, ptrdiff_t ld, ptrdiff_t k, vec *sum)
{
    vec r[W];
    load_block_transposed(r, b, ld, AHEAD);
    multiply_block(n, a, r, k, W, sum);
}

/* A block at an edge, with zeros where there are no rows and no columns. */
static ALWAYS_INLINE void edge_block(const int n, const term *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t k, ptrdiff_t terms,
                                     vec *sum)
{
    REAL copy[W * W];
    vec r[W];
    for (int i = 0; i < W; i++)
        v_store(copy + i * W, i < c->lanes ? v_load_n(c->w + i * ld + k, terms) : v_zero());
    const block_rows b = rows_at(copy, W);
    load_block_transposed(r, &b, W, 0);
    multiply_block(n, a, r, k, terms, sum);
}

/* n rows by nv such vectors, n and nv constants; K terms, SUM_TERMS at most in a sum. s: [row][4] vectors. */
static ALWAYS_INLINE void direct_columns_body(const int n, const int nv, const term *const *a, const column_vector *c, ptrdiff_t ld,
                                              ptrdiff_t K, REAL *s)
{
    int whole = 1;
    for (int v = 0; v < nv; v++)
        whole &= c[v].lanes == W;
    for (ptrdiff_t k = 0; k < K;) {
        vec sum[4][DIRECT_ROWS];
        block_rows b[4];
        FR_UNROLL_ALL
        for (int v = 0; v < nv; v++) {
            b[v] = rows_at(c[v].w + k, ld);
            FR_UNROLL_ALL
            for (int i = 0; i < n; i++)
                sum[v][i] = v_zero();
        }
        const ptrdiff_t end = fr_min(K, k + SUM_TERMS);
        for (; whole && k + W <= end; k += W) {
            FR_UNROLL_ALL
            for (int v = 0; v < nv; v++) {
                whole_block(n, a, &b[v], ld, k, sum[v]);
                next_columns(&b[v]);
            }
        }
        for (; k < end; k += W) {
            FR_UNROLL_ALL
            for (int v = 0; v < nv; v++)
                edge_block(n, a, &c[v], ld, k, fr_min(W, end - k), sum[v]);
        }
        k = end;
        FR_UNROLL_ALL
        for (int v = 0; v < nv; v++) {
            FR_UNROLL_ALL
            for (int i = 0; i < n; i++)
                v_store(s + (i * 4 + v) * W, v_load(s + (i * 4 + v) * W) + sum[v][i]);
        }
    }
}

#define FR_DIRECT_COLUMNS(n, nv)                                                                                                     \
    static NOINLINE void direct_columns_##n##x##nv(const term *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t K, REAL *s) \
    {                                                                                                                                \
        direct_columns_body(n, nv, a, c, ld, K, s);                                                                                  \
    }
FR_DIRECT_COLUMNS(1, 1)
FR_DIRECT_COLUMNS(1, 2)
FR_DIRECT_COLUMNS(1, 3)
FR_DIRECT_COLUMNS(1, 4)
FR_DIRECT_COLUMNS(4, 1)
#undef FR_DIRECT_COLUMNS

/* Rows for a body of DIRECT_ROWS: what it computes of a row too many is thrown away. */
static void fill_rows(int n, const term *const *a, const term **rows, const REAL *s, REAL *sums)
{
    for (int i = 0; i < DIRECT_ROWS; i++) {
        rows[i] = a[i < n ? i : 0];
        memcpy(sums + i * 4 * W, s + (i < n ? i : 0) * 4 * W, 4 * W * sizeof(REAL));
    }
}

/* Of how many vectors the rows are read at once: more hide the latency of the additions, but rows that are a power of two apart share a
 * few sets of the L1 cache, and lines that were prefetched must live until they are read. */
static int columns_at_once(ptrdiff_t ld)
{
    const ptrdiff_t bytes = ld * (ptrdiff_t)sizeof(REAL), apart = fr_min(4096, fr_max(64, bytes & -bytes));
    return (int)fr_max(1, fr_min(4, 8 * (4096 / apart) / W));
}

/* n <= DIRECT_ROWS rows by nv <= 4 vectors. */
static void direct_columns(int n, int nv, const term *const *a, const column_vector *c, ptrdiff_t ld, ptrdiff_t K, REAL *s)
{
    if (n == 1) {
        const int most = columns_at_once(ld);
        for (int v = 0, columns; v < nv; v += columns) {
            columns = (int)fr_min(most, nv - v);
            switch (columns) {
            case 1: direct_columns_1x1(a, c + v, ld, K, s + v * W); break;
            case 2: direct_columns_1x2(a, c + v, ld, K, s + v * W); break;
            case 3: direct_columns_1x3(a, c + v, ld, K, s + v * W); break;
            default: direct_columns_1x4(a, c + v, ld, K, s + v * W);
            }
        }
        return;
    }
    const term *rows[DIRECT_ROWS];
    REAL sums[DIRECT_ROWS * 4 * W];
    fill_rows(n, a, rows, s, sums);
    for (int v = 0; v < nv; v++)
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
static ALWAYS_INLINE void direct_rows_body(const int n, const int nv, const term *const *a, const row_blocks_of *b, ptrdiff_t lanes, REAL *s)
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

static NOINLINE void direct_rows_1x4(const term *const *a, const row_blocks_of *b, REAL *s)
{
    direct_rows_body(1, 4, a, b, W, s);
}
static NOINLINE void direct_rows_4x2(const term *const *a, const row_blocks_of *b, REAL *s)
{
    direct_rows_body(DIRECT_ROWS, 2, a, b, W, s);
}
static NOINLINE void direct_rows_4x1(const term *const *a, const row_blocks_of *b, ptrdiff_t lanes, REAL *s)
{
    direct_rows_body(DIRECT_ROWS, 1, a, b, lanes, s);
}

/* n <= DIRECT_ROWS rows by nv <= 4 vectors, `lanes` in the last. */
static void direct_rows(int n, int nv, const term *const *a, row_blocks_of b, ptrdiff_t lanes, REAL *s)
{
    if (n == 1 && nv == 4 && lanes == W) {
        direct_rows_1x4(a, &b, s);
        return;
    }
    const term *rows[DIRECT_ROWS];
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
