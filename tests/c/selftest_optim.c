/* selftest_optim.c: the elementwise rules of a training, by the interface in csrc/fastrnn.h alone.
 *
 *     cc -pthread -Icsrc tests/c/selftest_optim.c *.o -lm -o selftest_optim
 *     ./selftest_optim [isa]
 *
 * Every rule, ten times over rows of many sizes, alone and by teams of two to four: the same bits, nothing written beside the arrays or
 * into what is only read, and no denormal number left. Prints a hash of all float32 results and one of all float64 results of each
 * instruction set; all of them, on all machines, must be equal. Exit code 1 if anything is wrong.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastrnn.h"

static const ptrdiff_t SIZES[] = {1, 3, 17, 0, 64, 100, FR_PIECE - 1, FR_PIECE, 5 * FR_PIECE + 21};
enum { KIND = 4, ROWS = sizeof SIZES / sizeof *SIZES, TIMES = 10, MOST_PIECES = 16, MAX_THREADS = 4 };

typedef struct {
    int rule, arrays, changed;
    double numbers[FR_MAX_NUMBERS];
} example;
static const example EXAMPLES[] = {
    {FR_SGD, 3, 2, {0.1, 0.01, 0.9, 1}},
    {FR_SGD, 3, 2, {0.1, 0, 0.9, 0}},
    {FR_RMSPROP, 5, 4, {0.01, 0.1, 0.9, 0.1, 1e-4, 0.9}},
    {FR_ADAGRAD, 3, 2, {0.1, 0.01, 1e-10}},
    {FR_ADAM, 4, 3, {0.01, 0.01, 0.5, 0.5, 0.9, 0.1, 1.25, 1e-8, 0.99}},
    {FR_AVERAGE, 2, 1, {0.1}},
    {FR_EXCHANGE, 2, 2, {0}},
    {FR_SCALE, 1, 1, {0.7}},
    {FR_SQUARES, 1, 0, {0}},
};
enum { LENGTH = sizeof EXAMPLES / sizeof *EXAMPLES };

static fr_pool pool;
static int wrong;

static void expect(int fine, const char *isa, const example *e, const char *what)
{
    if (fine)
        return;
    wrong = 1;
    printf("%s, rule %d: %s\n", isa, e->rule, what);
}

static uint64_t hash_of(uint64_t hash, const void *bytes, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return hash;
}

static double get(const void *a, int dtype, ptrdiff_t i)
{
    return dtype == FR_F32 ? (double)((const float *)a)[i] : ((const double *)a)[i];
}

static void set(void *a, int dtype, ptrdiff_t i, double x)
{
    if (dtype == FR_F32)
        ((float *)a)[i] = (float)x;
    else
        ((double *)a)[i] = x;
}

/* n numbers and one more, which stays. Every third number is tiny, now and then denormal. */
static void *draw(int dtype, ptrdiff_t n, uint64_t *state)
{
    const double tiny = dtype == FR_F32 ? 1e-38 : 2e-308;
    void *a = malloc((size_t)(n + 1) * sizeof(double));
    for (ptrdiff_t i = 0; i <= n; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        const double x = (double)(*state >> 40) / (1 << 24);
        set(a, dtype, i, i % 3 ? x : x * tiny);
    }
    return a;
}

/* All results of one example, hashed. */
static uint64_t results_of(const fr_kernels *kernels, const example *e, int dtype, int threads)
{
    fr_row rows[ROWS] = {0};
    double sums[MOST_PIECES] = {0}, sizes[ROWS][FR_MAX_ARRAYS], last = 0;
    fr_update u = {.rule = e->rule, .rows = rows, .sums = e->rule == FR_SQUARES ? sums : NULL};
    memcpy(u.numbers, e->numbers, sizeof u.numbers);
    uint64_t state = 1, hash = 0xcbf29ce484222325;
    const ptrdiff_t item = dtype == FR_F32 ? 4 : 8;
    for (int r = 0; r < ROWS; r++) {
        rows[r].n = SIZES[r];
        rows[r].end = u.pieces += (SIZES[r] + FR_PIECE - 1) / FR_PIECE;
        for (int j = 0; j < e->arrays; j++) {
            rows[r].a[j] = draw(dtype, SIZES[r], &state);
            sizes[r][j] = get(rows[r].a[j], dtype, SIZES[r]);
        }
    }
    for (int k = 0; k < TIMES; k++)
        fr_pool_run(&pool, threads, KIND, 1000000000, kernels->update, &u);
    state = 1;
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < e->arrays; j++) {
            void *a = rows[r].a[j], *before = draw(dtype, SIZES[r], &state);
            last = get(a, dtype, SIZES[r]);
            expect(last == sizes[r][j], kernels->isa, e, "wrote behind an array");
            if (j >= e->changed)
                expect(!memcmp(a, before, (size_t)(SIZES[r] * item)), kernels->isa, e, "changed what is only read");
            for (ptrdiff_t i = 0; j < e->changed && e->rule != FR_EXCHANGE && i < SIZES[r]; i++) {
                const double x = fabs(get(a, dtype, i));
                expect(x == 0 || x >= (dtype == FR_F32 ? 0x1p-126 : 0x1p-1022), kernels->isa, e, "left a denormal number");
            }
            hash = hash_of(hash, a, SIZES[r] * item);
            free(a), free(before);
        }
    return hash_of(hash, sums, (ptrdiff_t)sizeof sums);
}

int main(int count, char **names)
{
    pool.always = 1;
    for (int index = 0; fr_isa_name(index); index++) {
        uint64_t hash[2] = {0, 0};
        if (count > 1 && strcmp(names[1], fr_isa_name(index)))
            continue;
        for (int dtype = 0; dtype < 2; dtype++)
            for (const example *e = EXAMPLES; e < EXAMPLES + LENGTH; e++) {
                const fr_kernels *kernels = fr_kernels_of(index, dtype);
                const uint64_t alone = results_of(kernels, e, dtype, 1);
                for (int threads = 2; threads <= MAX_THREADS; threads++)
                    expect(results_of(kernels, e, dtype, threads) == alone, kernels->isa, e, "other bits by a team");
                hash[dtype] = hash_of(hash[dtype], &alone, sizeof alone);
            }
        printf("%-8s float32 %016llx float64 %016llx\n", fr_isa_name(index), (unsigned long long)hash[0], (unsigned long long)hash[1]);
    }
    return wrong;
}
