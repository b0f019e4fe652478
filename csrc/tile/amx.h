/* amx.h - the products of bf16.h on AMX: eight registers of 16 rows by 64 bytes, and one instruction that adds to a tile of 16 x 16
 * sums the products of 16 rows of 32 terms with 32 terms of 16 outputs. Included by bf16.h; W is the outputs of a tile.
 *
 *     tile_load(t, i, p, bytes)     register i: its rows from p on, so many bytes apart
 *     tile_store(t, i, p, bytes)
 *     tile_product(t, c, a, b)      c += a b, a block of terms, as bf16.h says
 *
 * With FR_AMX_IN_C these are plain C over memory, so that the kernels above them run, and give the same bits, on any processor: for
 * the tests of machines without AMX.
 *
 * Registers 0 to 3 hold sums (2 and 3 those of the lower rows, where there are more than 16), 4 and 5 the rows of a and the lower rows,
 * 6 and 7 panels. Their numbers are literals: compilers make them part of the instruction. Their shapes are set where the number of rows
 * changes, and last until the call ends.
 */
#ifndef FR_AMX_H
#define FR_AMX_H
#ifndef FR_AMX_IN_C
#include <immintrin.h>
#endif

enum { TILE_ROWS = 16 };

/* What LDTILECFG reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} tile_shapes;

static tile_shapes shapes_for(int rows, int lower)
{
    const int sums = W * sizeof(REAL), second = lower ? lower : rows;
    return (tile_shapes){
        .palette = 1,
        .bytes = {sums, sums, sums, sums, BLOCK * sizeof(term), BLOCK * sizeof(term), sums, sums},
        .rows = {rows, rows, second, second, rows, second, PAIRS, PAIRS},
    };
}

/* Compilers do not know how much of memory the instructions read. */
static inline void all_is_written(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

#ifdef FR_AMX_IN_C
static void tile_load(tiles *t, int i, const void *p, ptrdiff_t bytes)
{
    memset(t->of[i], 0, sizeof t->of[i]);
    for (int r = 0; r < t->rows_of[i]; r++)
        memcpy(t->of[i][r], (const char *)p + r * bytes, t->bytes_of[i]);
}
static void tile_store(tiles *t, int i, void *p, ptrdiff_t bytes)
{
    for (int r = 0; r < t->rows_of[i]; r++)
        memcpy((char *)p + r * bytes, t->of[i][r], t->bytes_of[i]);
}
/* fma(a, b, c) of TDPBF16PS: denormals are 0 before and after, which the kernels' floating-point state sees to. */
static float multiply_add(uint32_t a, uint32_t b, float c)
{
    float x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return __builtin_fmaf(x, y, c);
}
static void tile_product(tiles *t, int c, int a, int b)
{
    for (int r = 0; r < t->rows_of[c]; r++)
        for (int n = 0; n < W; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < PAIRS; k++) {
                uint32_t x, y;
                memcpy(&x, t->of[a][r] + 4 * k, sizeof x);
                memcpy(&y, t->of[b][k] + 4 * n, sizeof y);
                even = multiply_add(x << 16, y << 16, even);
                odd = multiply_add(x & 0xffff0000, y & 0xffff0000, odd);
            }
            memcpy(&sum, t->of[c][r] + 4 * n, sizeof sum);
            sum += even + odd;
            memcpy(t->of[c][r] + 4 * n, &sum, sizeof sum);
        }
}
static void set_shapes(tiles *t, const tile_shapes *c)
{
    for (int i = 0; i < 8; i++)
        t->rows_of[i] = c->rows[i], t->bytes_of[i] = c->bytes[i];
}
static void release_tiles(tiles *t)
{
    memset(t, 0, sizeof *t);
}
#else
#define tile_load(t, i, p, bytes) _tile_loadd(i, p, bytes)
#define tile_store(t, i, p, bytes) _tile_stored(i, p, bytes)
#define tile_product(t, c, a, b) _tile_dpbf16ps(c, a, b)
static inline void set_shapes(tiles *t, const tile_shapes *c)
{
    (void)t;
    all_is_written(c);
    _tile_loadconfig(c);
}
static inline void release_tiles(tiles *t)
{
    if (t->rows)
        _tile_release();
    t->rows = 0;
}
#endif

/* Shapes for n rows, in one group or two. Asked for often, set where n changes. */
static inline void tiles_for(tiles *t, int n)
{
    if (t->rows == n)
        return;
    const tile_shapes c = shapes_for((int)fr_min(n, TILE_ROWS), (int)fr_max(0, n - TILE_ROWS));
    set_shapes(t, &c);
    t->rows = n;
}

enum { BYTES_OF_S = 4 * W * sizeof(REAL), BYTES_OF_PANEL = W * sizeof(REAL) }; /* from row to row */

/* Up to 16 rows by nv vectors, all of whose sums stay in registers. */
static ALWAYS_INLINE void low_tile(tiles *t, const int nv, const term *a, ptrdiff_t apart, const REAL *panel, ptrdiff_t blocks, REAL *s)
{
    (void)t;
    tile_load(t, 0, s, BYTES_OF_S);
    if (nv > 1)
        tile_load(t, 1, s + W, BYTES_OF_S);
    if (nv > 2)
        tile_load(t, 2, s + 2 * W, BYTES_OF_S);
    if (nv > 3)
        tile_load(t, 3, s + 3 * W, BYTES_OF_S);
    for (; blocks > 0; blocks--, a += BLOCK, panel += PAIRS * nv * W) {
        tile_load(t, 4, a, apart);
        tile_load(t, 6, panel, BYTES_OF_PANEL);
        tile_product(t, 0, 4, 6);
        if (nv > 1) {
            tile_load(t, 7, panel + NEXT_VECTOR, BYTES_OF_PANEL);
            tile_product(t, 1, 4, 7);
        }
        if (nv > 2) {
            tile_load(t, 6, panel + 2 * NEXT_VECTOR, BYTES_OF_PANEL);
            tile_product(t, 2, 4, 6);
        }
        if (nv > 3) {
            tile_load(t, 7, panel + 3 * NEXT_VECTOR, BYTES_OF_PANEL);
            tile_product(t, 3, 4, 7);
        }
    }
    tile_store(t, 0, s, BYTES_OF_S);
    if (nv > 1)
        tile_store(t, 1, s + W, BYTES_OF_S);
    if (nv > 2)
        tile_store(t, 2, s + 2 * W, BYTES_OF_S);
    if (nv > 3)
        tile_store(t, 3, s + 3 * W, BYTES_OF_S);
}

/* 17 to 32 rows by one or two vectors of a panel of nv: each register is used twice. */
static ALWAYS_INLINE void high_tile(tiles *t, const int two, int nv, const term *a, ptrdiff_t apart, const REAL *panel, ptrdiff_t blocks,
                                    REAL *s)
{
    const ptrdiff_t lower = TILE_ROWS * apart / (ptrdiff_t)sizeof(term);
    REAL *below = s + TILE_ROWS * 4 * W;
    (void)t;
    tile_load(t, 0, s, BYTES_OF_S);
    tile_load(t, 2, below, BYTES_OF_S);
    if (two) {
        tile_load(t, 1, s + W, BYTES_OF_S);
        tile_load(t, 3, below + W, BYTES_OF_S);
    }
    for (; blocks > 0; blocks--, a += BLOCK, panel += PAIRS * nv * W) {
        tile_load(t, 6, panel, BYTES_OF_PANEL);
        tile_load(t, 4, a, apart);
        tile_product(t, 0, 4, 6);
        tile_load(t, 5, a + lower, apart);
        tile_product(t, 2, 5, 6);
        if (two) {
            tile_load(t, 7, panel + NEXT_VECTOR, BYTES_OF_PANEL);
            tile_product(t, 1, 4, 7);
            tile_product(t, 3, 5, 7);
        }
    }
    tile_store(t, 0, s, BYTES_OF_S);
    tile_store(t, 2, below, BYTES_OF_S);
    if (two) {
        tile_store(t, 1, s + W, BYTES_OF_S);
        tile_store(t, 3, below + W, BYTES_OF_S);
    }
}

/* One row takes its panels one by one: its products wait for the panels, not for the sums. */
static inline int strip_panels(int nv)
{
    (void)nv;
    return 1;
}

/* n <= MAX_ROWS rows, all the same distance apart, by one panel. s: [row][4] vectors. */
static void tile(tiles *t, int n, int np, int nv, const term *const *a, const REAL *panel, ptrdiff_t pstride, ptrdiff_t K, REAL *s)
{
    const ptrdiff_t blocks = terms_of(K) / BLOCK, apart = n > 1 ? (a[1] - a[0]) * (ptrdiff_t)sizeof(term) : BLOCK * (ptrdiff_t)sizeof(term);
    (void)np, (void)pstride;
    all_is_written(s);
    tiles_for(t, n);
    if (n <= TILE_ROWS) {
        switch (nv) {
        case 1: low_tile(t, 1, a[0], apart, panel, blocks, s); break;
        case 2: low_tile(t, 2, a[0], apart, panel, blocks, s); break;
        case 3: low_tile(t, 3, a[0], apart, panel, blocks, s); break;
        default: low_tile(t, 4, a[0], apart, panel, blocks, s);
        }
        return;
    }
    for (int v = 0; v < nv; v += 2) {
        if (v + 1 < nv)
            high_tile(t, 1, nv, a[0], apart, panel + v * NEXT_VECTOR, blocks, s + v * W);
        else
            high_tile(t, 0, nv, a[0], apart, panel + v * NEXT_VECTOR, blocks, s + v * W);
    }
}

#endif
