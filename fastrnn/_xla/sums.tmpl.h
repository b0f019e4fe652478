/* sums.tmpl.h - what fastrnn/_engine/states.py adds up, for REAL being float or double; included once for each. */

/* A sum in NumPy's order, whose bits those of the functions are: eight sums side by side, halves where there are many. */
static REAL NAME(pairwise)(const REAL *p, ptrdiff_t n, ptrdiff_t stride)
{
    if (n > 128) {
        const ptrdiff_t half = n / 2 - n / 2 % 8;
        return NAME(pairwise)(p, half, stride) + NAME(pairwise)(p + half * stride, n - half, stride);
    }
    REAL sum = (REAL)-0.0, r[8];
    ptrdiff_t i = 0;
    if (n >= 8) {
        for (int j = 0; j < 8; j++)
            r[j] = p[j * stride];
        for (i = 8; i < n - n % 8; i += 8)
            for (int j = 0; j < 8; j++)
                r[j] += p[(i + j) * stride];
        sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    }
    for (; i < n; i++)
        sum += p[i * stride];
    return sum;
}

/* The gradients of outputs (T, B, P) that a step's state was held for, added to that of the step; or, to `first` (B, P). */
static void NAME(add_held)(const fr_row_plan *plan, const fr_seq *d, ptrdiff_t T, ptrdiff_t P, void *first_)
{
    const ptrdiff_t B = plan->items.B;
    REAL *all = d->p, *first = first_;
    for (ptrdiff_t b = 0; b < B; b++)
        for (ptrdiff_t t = 0, n; t < T; t += n) {
            const ptrdiff_t from = plan->held[t * B + b];
            for (n = 1; from != FR_NOT_HELD && t + n < T && plan->held[(t + n) * B + b] == from; n++)
                ;
            if (from == FR_NOT_HELD || from == FR_FROM_ZERO)
                continue;
            const REAL *run = all + t * d->st + b * d->sb;
            REAL *to = from >= 0 ? all + from * d->st + b * d->sb : first + b * P;
            for (ptrdiff_t j = 0; j < P; j++) {
                const REAL sum = n > 1 ? run[j] + NAME(pairwise)(run + d->st + j, n - 1, d->st) : run[j];
                to[j] = from >= 0 ? to[j] + sum : sum;
            }
        }
}

static void NAME(add)(void *to_, const void *more_, ptrdiff_t n)
{
    REAL *to = to_;
    const REAL *more = more_;
    for (ptrdiff_t i = 0; i < n; i++)
        to[i] += more[i];
}
