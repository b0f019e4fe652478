"""The faults that the suite must notice: what tests/mutants.py puts into a copy of the sources.

Each is a piece of text that stands once in a file, what it becomes, and the tests that should notice: names of files without test_,
and what -k chooses of them. One that no test can notice has the reason as `equivalent`.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    tests: str
    k: str = ""
    equivalent: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"


def of(file: str, *faults: tuple[str, ...]) -> list[Mutant]:
    """The faults of one file, each (old, new, tests), and k and equivalent where there are any."""
    return [Mutant(file, *fault) for fault in faults]


BARRIER = "if (!barrier(m))\n"

COMPILED = [
    # --- the pool, its guards, what is around the kernels ----------------------------------------------------------------
    *of(
        "csrc/team/pool.c",
        ("if (team->n == 1) {", "if (team->n >= 1) {", "promises cross", "run_together or schedule_changes or race"),
        (
            "        atomic_store_explicit(&team->claimed, 0, memory_order_relaxed);\n        atomic_store_explicit(&team->round,",
            "        atomic_store_explicit(&team->round,",
            "promises cells",
            "run_together or several_chunks",
        ),
        ("e->team_ns <= e->alone_ns - e->alone_ns / 16", "e->team_ns >= e->alone_ns - e->alone_ns / 16", "cross", "race and pool"),
        ("team->late |= waited > team->late_ns && ", "team->late |= 0 && ", "cross", "race and pool"),
        (
            "(&pool->last_ns, now_ns(), memory_order_relaxed);\n    atomic_store(&pool->busy, 0);",
            "(&pool->last_ns, now_ns(), memory_order_relaxed);",
            "cross",
            "race and pool",
        ),
        (
            "        if (!atomic_compare_exchange_strong_explicit(&blocks[best].taken, &free, 1, memory_order_acquire, "
            "memory_order_relaxed))\n            continue;",
            "        atomic_store(&blocks[best].taken, 1 + free);",
            "promises cross",
            "run_together or race",
        ),
        ("    pool->workers = 0;\n", "", "threads", "fork"),
    ),
    *of(
        "csrc/team/guard.h",
        (
            "return !atomic_exchange_explicit(&guard->taken, 1, memory_order_acquire);",
            "return 1;",
            "free_threading",
        ),
    ),
    *of("csrc/isa/dispatch.c", ("c->kernels[table]", "c->kernels[0]", "golden math")),
    *of(
        "fastrnn/_plain.pxi",
        ("            t.d.fresh = 1\n", "", "plain"),
        ("if not gemm_is_own(self.table) or not self.read(x, state, False,", "if not self.read(x, state, False,", "plain", "blas"),
        ("engine == GEMM_OWN or table == FR_BF16 or", "engine == GEMM_OWN or", "precision", "blas"),
        ("row = <const char *>y.p + (f.T - 1) * y.st * self.size", "row = <const char *>y.p", "plain"),
        ("        cnp.PyArray_CLEARFLAGS(<cnp.ndarray>y, cnp.NPY_ARRAY_WRITEABLE)\n", "", "plain layers"),
        ("(n > 1 and strides[ndim - 1] != size)", "False", "plain layers"),
        ("if shape[ndim - 1] != n or n == 0", "if n == 0", "plain bad_input"),
        ("if d.T != self.form.T or d.B != self.form.B or", "if", "bad_input plain"),
    ),
    *of(
        "fastrnn/_unrolled.pxi",
        ("        t.d.make_dx = True\n", "", "unrolled"),
        ("        copy_or_clear(<char *>kept.y.p", "        memcpy(<char *>kept.y.p", "unrolled"),
        ("        self.kept.plan.T = self.kept.d.fresh = 0\n", "        self.kept.plan.T = 0\n", "unrolled"),
    ),
    *of(
        "fastrnn/_tensors.pxi",
        (" and not tensor.is_neg()", "", "torch_plain"),
        ("(shape[i] != 1 and t.strides[i] != stride)", "False", "torch_plain"),
        ("copy_or_clear(t.d.dh, d[0],", "copy_or_clear(t.d.dh, NULL,", "torch_plain"),
        ("    lender.parallel = NULL\n", "    pass\n", "torch_plain", "fork"),
    ),
    *of(
        "fastrnn/_core.pyx",
        ("        free_list[i] = free_list[i + 1]\n", "        pass\n", "free_threading memory leaks"),
        (
            "    def __exit__(self, kind, error, trace):\n        fr_guard_leave(&self.guard)",
            "    def __exit__(self, kind, error, trace):\n        pass",
            "train_optim",
        ),
        ("<char *>y + (steps - 1) * bytes", "<char *>y", "stream"),
        ("if cnp.PyArray_DIM(a, ndim - 1) != last:", "if False:", "stream"),
        (
            "a + cnp.PyArray_NBYTES(source) <= b or b + cnp.PyArray_NBYTES(<cnp.ndarray>out) <= a)",
            "a != b)",
            "stream",
        ),
        ("t.saved.first_step = segment or 0", "t.saved.first_step = 0", "stacks", "checkpoints"),
        ("if threads > 1 and not apart(", "if False and not apart(", "train_optim silent_inputs", "not torch"),
        (
            "if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(first) or cnp.PyArray_SIZE(a) != row.n:",
            "if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(first):",
            "train_optim free_threading",
        ),
    ),
    *of(
        "fastrnn/_xla/plan.c",
        ("front = rows->reverse ? t + 1 : t;", "front = t;", "jax"),
        ("l->plan->gaps = l->first[steps] < rows->T * rows->B;", "l->plan->gaps = 0;", "jax"),
        ("l->held[t * rows->B + b] = from;", "l->held[t * rows->B + b] = FR_FROM_INITIAL;", "jax"),
    ),
    *of(
        "fastrnn/_xla/calls.c",
        ("return (least + sum - 1) / sum * sum;", "return least;", "jax", "checkpoints"),
        ("if (length < 0 || length > c->T) {", "if (length < 0 || length > c->T + 1) {", "jax", "wrong_value"),
        ("c->frame.options->fewer_threads && how->threads > most", "0 && how->threads > most", "jax", "threads"),
    ),
    *of("fastrnn/_xla/sums.tmpl.h", ("to[j] = from >= 0 ? to[j] + sum : sum;", "to[j] = sum;", "jax", "functions or held")),
    # --- cells ---------------------------------------------------------------------------------------------------------------
    *of(
        "csrc/cells/lstm.h",
        ("c = v_fma(f, c, i * g);", "c = v_fma(i, c, f * g);", "cells", "lstm"),
        ("v.di = v_dsigmoid(v.i)", "v.di = v_dtanh(v.i)", "cells", "lstm"),
        ("peep && m->call->saved.recompute ? 1 : n", "n", "activations", "same_bits"),
        ("activate_slots(&f[2], s + PASS_C, n, np, 1);", "activate_slots(&f[0], s + PASS_C, n, np, 1);", "cells", "lstm-activated"),
        (
            "ao = v_fma(v_load_n(w + 2 * H + u, lanes), c, ao);",
            "ao = v_fma(v_load_n(w + H + u, lanes), c, ao);",
            "cells",
            "peephole",
        ),
        ("dc = v_fma(dao, v_load_n(w + 2 * H", "dc = v_fma(v_zero(), v_load_n(w + 2 * H", "cells", "peephole"),
        ("v_store_n(e->dc + u, e->cut ? v_zero() : dc, lanes);", "v_store_n(e->dc + u, dc, lanes);", "cells", "lstm"),
        ("{3, 2, C_CURRENT}", "{3, 2, C_PREVIOUS}", "cells", "peephole"),
        ("    if (e->dcs)\n", "    if (0)\n", "cells", "lstm"),
    ),
    *of(
        "csrc/cells/gru.h",
        ("v_fma(z, h - n, n), lanes);\n    if (e->gates)", "v_fma(z, n - h, h), lanes);\n    if (e->gates)", "cells", "gru-after"),
        ("v_store_n(e->dgates + u, dan * g.r, lanes);", "v_store_n(e->dgates + u, dan, lanes);", "cells", "gru-after"),
        (".order = {2, 0, 1}, .epilogue = gru_after_back", ".order = {0, 1, 2}, .epilogue = gru_after_back", "cells", "gru-after"),
        (".b_ih = {2, 0, 1, -1},", ".b_ih = {2, 0, 1, 2},", "cells", "gru-after"),
        ("r * v_load_n(e->h_prev + u, lanes), lanes);", "v_load_n(e->h_prev + u, lanes), lanes);", "cells", "gru-before"),
        ("v_fma(drh, r, v_load_n(e->dh + u, lanes))", "v_fma(drh, r, v_zero())", "cells", "gru-before"),
        (".row = 2, .operand = OPERAND_RH", ".row = 2, .operand = OPERAND_H", "cells", "gru-before"),
    ),
    *of(
        "csrc/cells/rnn.h",
        ("v_select_gt(v_load_n(e->y + u, lanes), v_zero(), v_load(s), v_zero())", "v_load(s)", "cells", "relu"),
        ("v_max(v_zero(), v_load(s))", "v_max(v_load(s), v_zero())", "promises", "finite and relu"),
    ),
    # --- whole arrays --------------------------------------------------------------------------------------------------------
    *of(
        "csrc/elementwise/optim.h",
        ("g = k[3] != 0 ? v * momentum + g : v;", "g = v;", "train_optim"),
        ("g * g * v_set1(k[5])", "g * g * v_set1(k[3])", "train_optim"),
        ("variance = v_max(v_zero(), v - m * m);", "variance = v;", "train_optim"),
        ("variance = v_max(v_zero(), v - m * m);", "variance = v - m * m;", "train_optim"),
        ("weight_decay != 0 ? p * v_set1(weight_decay) + g : g;", "p * v_set1(weight_decay) + g;", "train_optim train"),
        ("for (ptrdiff_t i = whole; i < n; i++)", "for (ptrdiff_t i = whole + 1; i < n; i++)", "train train_optim"),
        ("while (piece >= row->end)", "while (piece > row->end)", "train_optim"),
        ("for (; i < n; i++)\n        x[i]", "for (; i + 1 < n; i++)\n        x[i]", "train train_optim"),
    ),
    # --- arithmetic ----------------------------------------------------------------------------------------------------------
    *of(
        "csrc/simd/vmath.h",
        ("lost = s - (s1 - v_set1(1));", "lost = v_zero();", "math"),
        ("#define VM_TANH_MAX 10", "#define VM_TANH_MAX 6", "math", "not selftest"),
        ("v_select_gt(a, v_set1((REAL)VM_TANH_SMALL), large, small)", "large", "math", "not selftest"),
        ("#define VM_SIGMOID_MIN (-88)", "#define VM_SIGMOID_MIN (-60)", "math", "not selftest"),
        ("v_max(v_set1(VM_EXP_MIN), x));", "v_max(x, v_set1(VM_EXP_MIN)));", "math", "not selftest"),
    ),
    *of(
        "csrc/simd/fpstate.h",
        ("_mm_setcsr(0x1F80 | 0x8000 | 0x0040);", "_mm_setcsr(0x1F80 | 0x8000);", "promises", "denormals"),
        ("_mm_setcsr((unsigned)caller.control);", "(void)caller;", "promises", "denormals or rounding or flag or environment"),
    ),
    # --- tiles and products --------------------------------------------------------------------------------------------------
    *of("csrc/simd/common.h", ("return n / m * i + fr_min(n % m, i);", "return n / m * i;", "promises", "schedule")),
    *of(
        "csrc/tile/tile.h",
        ("longer = n % tiles;", "longer = 0;", "cells"),
        ("from[r] += k;", "from[r] += 0;", "cells promises cross", "forward_and_backward or by_the_schedule or natively"),
        ("if (K <= SUM_TERMS)\n", "if (K <= 2 * SUM_TERMS)\n", "promises cross", "by_the_schedule or natively"),
        ("c->v3 = v_fma(a, b->v3, c->v3);", "c->v3 = v_fma(a, b->v2, c->v3);", "cells"),
    ),
    *of("csrc/tile/pack.h", ("        for (; j < cols; j++)\n", "        for (; j + 1 < cols; j++)\n", "cells")),
    *of(
        "csrc/tile/direct.h",
        ("ld, k, fr_min(W, end - k), sum[v]);", "ld, k, fr_min(W - 1, end - k), sum[v]);", "cells promises single_steps"),
        ("                next_columns(&b[v]);\n", "", "single_steps plain"),
        ("b->w + b->order[g] * b->H * b->ld;", "b->w + g * b->H * b->ld;", "cells promises", "gru-after"),
        ("ptrdiff_t k = 0, end = SUM_TERMS;", "ptrdiff_t k = 0, end = 2 * SUM_TERMS;", "promises cross", "schedule or natively"),
        ("end = fr_min(K, k + SUM_TERMS);", "end = fr_min(K, k + 2 * SUM_TERMS);", "promises cross", "schedule or natively"),
    ),
    *of(
        "csrc/tile/pack.h",
        ("opaque(first + q * PIECE * ld);", "opaque(first + q * ld);", "cells golden single_steps"),
    ),
    *of(
        "csrc/sequence/stage.h",
        ("if (m->units && !barrier(m))", "if (0)", "promises cross", "schedule_changes or run_together or race"),
        ("if (nv < g->nv && np > 1) {", "if (0) {", "cells single_steps"),
    ),
    *of(
        "csrc/sequence/products.h",
        ("g->b + p * 4 * W * n + k0 * nv * W", "g->b + p * 4 * W * n + k0 * 4 * W", "cells promises", "T64 or schedule or several"),
        ("g->dgates_at == c->dgates_x + g->row;", "1;", "cells", "gru-after"),
        (
            "i < first + pieces; i = fr_claim(m->team)) {",
            "i < first + pieces; i++) {",
            "promises",
            "run_together or by_the_schedule",
        ),
        (
            f"    {BARRIER}        return 0;\n    sum_weights",
            "    sum_weights",
            "promises cross",
            "schedule_changes or run_together or race",
        ),
        (
            "v_store_n(e[r].dx + (p * 4 + v) * W, v_load(s + (r * 4 + v) * W), fr_min(W, m->I - (p * 4 + v) * W));",
            "v_store_n(e[r].dx + (p * 4 + v) * W, v_load(s + (r * 4 + v) * W), fr_min(W, m->I - (p * 4 + v) * W - 1));",
            "cells",
        ),
        ("if (full < nv)", "if (full < nv && rest > 1)", "cells"),
    ),
    # --- sequences -----------------------------------------------------------------------------------------------------------
    *of(
        "csrc/sequence/chunk.h",
        ("over = (s + 1) % whole;", "over = 0 * whole;", "promises", "schedule_changes"),
        ("s % d->truncate == 0);", "(s + 1) % d->truncate == 0);", "cells promises", "truncate"),
        ("e->dh_carry = m->cell->direct_dh || !m->next_dgates[row] ? e->dh : m->zero;", "e->dh_carry = e->dh;", "cells", "lstm"),
        ("if (q == 0 || (direction < 0 && (s + 1) % group == 0))", "if (q == 0)", "promises", "schedule_changes"),
        ("e->c_prev = prev == FR_FROM_ZERO ? m->zero : e->c;", "e->c_prev = e->c;", "promises layers", "reset or function"),
        ("m->next_dgates[row] = e->cut ? m->zero : e->dgates;", "m->next_dgates[row] = e->dgates;", "cells"),
        ("after = saved->recompute ? kept + 1 : time,", "after = saved->recompute ? kept : time,", "stacks", "checkpoints"),
    ),
    *of(
        "csrc/sequence/forward.h",
        ("if (t->plan.first && !barrier(m))", "if (0)", "promises cross", "far_ahead or run_together or race"),
        (
            "t->range.s0 + m->row_blocks[i].chunks * most;",
            "m->row_blocks[i].chunks * most;",
            "stacks promises",
            "checkpoints or again",
        ),
        ("&& bh && o->b_hh[v] >= 0)", "&& 0)", "cells"),
        (
            "transpose(to + j * W, width, from, t->I, lanes, t->I);",
            "transpose(to + j * W, width, from, t->I, lanes - 1, t->I);",
            "cells",
            "blas",
        ),
    ),
    *of(
        "csrc/sequence/backward.h",
        ("if (e[r]->next_dgates == m->zero) /*", "if (0) /*", "promises", "infinite"),
        (
            "memcpy(mine, m->next_dgates[b], m->cell->dgates * m->H * sizeof(REAL));",
            "memset(mine, 0, m->cell->dgates * m->H * sizeof(REAL));",
            "promises",
            "schedule_changes",
        ),
        (
            f"        {BARRIER}            return;\n        if (t->d.dgates && !t->d.make_dx)",
            "        if (t->d.dgates && !t->d.make_dx)",
            "promises cross",
            "schedule_changes or run_together or race",
        ),
        ("if (m->units && !barrier(m)) /*", "if (0) /*", "promises cross", "schedule_changes or run_together or race"),
        ("e->dh_carry = m->cell->direct_dh || !m->next_dgates[b] ? e->dh : m->zero;", "e->dh_carry = e->dh;", "cells", "lstm"),
        ("sizes->dgates_x = c->dgates_x * t->H;", "sizes->dgates_x = 0;", "cells", "gru-after and blas"),
    ),
]

PYTHON = [
    # --- the engine ----------------------------------------------------------------------------------------------------------
    *of(
        "fastrnn/_engine/plan.py",
        (
            "self._resets[high + 1, row] > self._resets[low + 1, row]",
            "self._resets[high, row] > self._resets[low, row]",
            "promises",
            "reset",
        ),
        ("step = self.count[row] - 1 - done if self.reverse else done - 1", "step = done - 1", "promises", "held"),
        ('order = np.argsort(-rows.count, kind="stable")', 'order = np.argsort(rows.count, kind="stable")', "promises", "lengths"),
    ),
    *of(
        "fastrnn/_engine/states.py",
        ("sequence[0 if plan.reverse else -1].copy()", "sequence[-1].copy()", "cells"),
        ("(np.diff(row) != 0) | (np.diff(source) != 0)", "np.diff(source) != 0", "cells promises", "hold or held"),
        ("state[plan.last == FROM_ZERO] = 0", "state[plan.last == FROM_ZERO] *= 1", "cells promises", "reset"),
    ),
    *of("fastrnn/_engine/recompute.py", ("self._c[s0 // self.most]", "self._c[-1]", "stacks engine", "checkpoints")),
    *of(
        "fastrnn/_engine/run.py",
        ("min(truncate or 0, sys.maxsize)", "0", "promises", "truncated"),
        ('return self.weights.precision == "float32" and', "return", "precision", "blas"),
        ("self.c[gap] = 0  #", "self.c[gap] += 0  #", "cells layers stacks", "lstm"),
        ("        if out is not None and self._has_gaps():\n", "        if False:\n", "stacks", "lengths or mask or cells"),
        (
            "return self._threads if isinstance(self._threads, int) else self._threads()",
            "return 64",
            "threads",
            "may_use or calls_get",
        ),
    ),
    *of(
        "fastrnn/_engine/schedule.py",
        ("if not max(1, min(B, threads)) < runs", "if not max(1, min(B, threads)) <= runs", "stacks", "side_by_side"),
    ),
    *of(
        "fastrnn/_engine/stack.py",
        ("self.scale = 1 / (1 - p) if p < 1 else 0.0", "self.scale = 1.0", "stacks", "dropout"),
        ("dy = dx if dropout is None or dx is None else dropout(dx)", "dy = dx", "stacks", "gradients"),
        ("                    dx += other\n", "                    pass\n", "stacks"),
        ("need_x or first > 0))", "need_x))", "torch_modules torch_ways"),
    ),
    *of("fastrnn/_engine/blas.py", ("return get is not None and get() <= threads", "return get is not None", "threads", "may_use")),
    *of(
        "fastrnn/_engine/blas_products.py",
        ("place = time if self._first_step is None else", "place = time if True else", "engine", "blas"),
        ("dx_part = d[:, self._x_at : self._x_at + GH]", "dx_part = d[:, :GH]", "cells", "gru-after and blas"),
    ),
    *of("fastrnn/_engine/cores.py", ("else ceil(least)", "else int(least)", "neighbours", "quota")),
    *of(
        "fastrnn/_engine/cells.py",
        (
            "HiddenGradient(1, 2, 0), HiddenGradient(0, 1, 2)",
            "HiddenGradient(0, 2, 0), HiddenGradient(2, 1, 2)",
            "cells",
            "gru-after and blas",
        ),
    ),
    # --- arguments, tapes, parameters ----------------------------------------------------------------------------------------
    *of(
        "fastrnn/_api/checks.py",
        (
            "return value if value.flags.aligned else _copy(name, value, kind)",
            "return value",
            "bad_input",
            "misaligned",
            "x86 reads numbers that are not aligned; make sanitize finds it",
        ),
        ("(array < 0) | (array > most)", "(array < 0) | (array > most + 1)", "bad_input"),
        ("if value.shape[-1] > 1 and value.strides[-1] != value.itemsize:", "if False:", "bad_input layers stream"),
        ("if not isinstance(value, (bool, np.bool_)):", "if not isinstance(value, (bool, np.bool_, int)):", "bad_input"),
        ("if not math.isfinite(number) or (", "if (", "train_optim bad_input"),
        ("np.ndarray) or isinstance(value, np.ma.MaskedArray):", "np.ndarray):", "bad_input"),
        ("        value = np.asarray(value)\n    value = value.view()", "    value = value.view()", "bad_input"),
        ('if kind.char not in "fd":', 'if kind.char not in "fdg":', "bad_input"),
        ("if dtype is not None and kind is not dtype and kind != dtype:", "if False:", "bad_input"),
        ("if ndim and value.ndim not in ndim:", "if False:", "bad_input"),
        ("    if value.shape != shape:\n", "    if value.size != math.prod(shape):\n", "bad_input"),
        ("return value if value.flags.c_contiguous else", "return value if True else", "bad_input"),
        ('if array.dtype.kind not in "iu":', 'if array.dtype.kind not in "iub":', "bad_input"),
        ('if array.dtype.kind not in "iu":', 'if array.dtype.kind not in "iuf":', "bad_input"),
        ("(array < 0) | (array > most)", "array > most", "bad_input"),
        ("    if array.dtype != np.bool_:\n", '    if array.dtype.kind not in "bu":\n', "bad_input"),
        ("    if array.shape != shape:\n", "    if array.size != math.prod(shape):\n", "bad_input"),
        ("if number < least or (most is not None and number > most):", "if number < least:", "bad_input"),
        ("        if isinstance(value, (bool, np.bool_)):\n            raise TypeError\n", "", "bad_input"),
        ("if isinstance(value, (bool, np.bool_)) or not isinstance(", "if not isinstance(", "bad_input"),
        ("if not 0 <= number <= 1:", "if not 0 <= number:", "bad_input"),
        ("if number >= hidden_size:", "if number > hidden_size:", "bad_input"),
        ("kind = None if value is None else np.dtype(value)", "kind = np.dtype(value)", "bad_input"),
        ("if kind is None or (kind != F32 and kind != F64):", 'if kind is None or kind.char not in "fd":', "bad_input"),
        ("    if isinstance(value, np.ma.MaskedArray):\n        raise", "    if False:\n        raise", "bad_input"),
    ),
    *of(
        "fastrnn/_api/layer_tape.py",
        ("view.flags.writeable = False", "view.flags.writeable = True", "stacks", "outputs"),
        ("\n            self._kept = None\n", "\n", "layers stacks", "tape"),
    ),
    *of(
        "fastrnn/_api/layout.py",
        ("if not np.array_equal(lengths, self.lengths):", "if False:", "packed"),
        ("(self.B, self.T, *n) if self.batch_first", "(self.T, self.B, *n) if self.batch_first", "layers stacks packed"),
        ("if x.shape[-1] != I:", "if x.shape[-1] < I:", "bad_input"),
        ("if value.shape != self.shape(n):", "if value.size != self.T * self.B * n:", "bad_input"),
        ("symbols, shape).reshape(cells", "symbols, array.shape).reshape(cells", "bad_input"),
    ),
    *of(
        "fastrnn/_api/packed.py",
        ("back[order] = np.arange(B)", "back[:] = order", "packed"),
        (" or (sizes <= 0).any():", ":", "packed"),
    ),
    *of(
        "fastrnn/_api/tape.py",
        ("        self._run = None\n        dx", "        dx", "single_steps cells bad_input layers free_threading"),
        ("(run.P, run.H))]", "(run.P, run.P))]", "cells", "projected"),
        ("d = checks.floats(name, d, run.x.dtype)", "d = checks.floats(name, d)", "bad_input"),
        ('"(H,)", (H,))', '"(H,)", member.shape)', "bad_input"),
        ('"(B, H)", (B, H)).copy()', '"(B, H)", member.shape).copy()', "bad_input"),
    ),
    *of(
        "fastrnn/_api/pickling.py",
        ("carried = _carried.get(id(value))", "carried = None", "pickles"),
        ('"array" if value.flags.writeable else "read-only"', '"array"', "pickles compat_madmom"),
    ),
    *of(
        "fastrnn/_api/parameters.py",
        (
            "checks.floats(name, mapping[name], self.dtype).copy()",
            "checks.floats(name, mapping[name], self.dtype)",
            "parameters formats",
        ),
        ("limit = 1 / math.sqrt(self.hidden_size)", "limit = 1 / self.hidden_size", "layers", "initial"),
        ('_not_pickled = ("_of_cells", "_plain")', "_not_pickled = ()", "parameters pickles"),
        ("            vars(self).pop(name, None)\n", "            pass\n", "precision"),
        ("        checks.precision(self._precision, new.dtype)\n", "", "precision"),
    ),
    *of("fastrnn/_api/optional.py", ("if absent == package or (", "if absent or (", "import", "package")),
    *of("fastrnn/_bridge.py", ("if isinstance(value, np.ma.MaskedArray):  #", "if False:  #", "silent_inputs", "masked")),
    # --- functions, layers, cells, streams, settings -------------------------------------------------------------------------
    *of(
        "fastrnn/functional.py",
        ("if not 0 < P < H:", "if not 0 < P <= H:", "bad_input"),
        ('w_hh = checks.floats("w_hh", w_hh, dtype, (2,))', 'w_hh = checks.floats("w_hh", w_hh, None, (2,))', "bad_input"),
        ('w_hr = checks.floats("w_hr", w_hr, dtype, (2,))', 'w_hr = checks.floats("w_hr", w_hr, None, (2,))', "bad_input"),
        ('f"({rows}, I)", (G * H, w_ih.shape[1]))', 'f"({rows}, I)", w_ih.shape)', "bad_input"),
        ('b_ih = checks.shaped("b_ih", b_ih, dtype, f"({rows},)", (G * H,))', "b_ih = np.asarray(b_ih)", "bad_input"),
        ('b_hh = checks.shaped("b_hh", b_hh,', 'b_hh = checks.shaped("b_ih", b_hh,', "bad_input"),
        ('"(3, H)", (3, H))', '"(3, H)", peephole.shape)', "bad_input"),
        ("if x.shape[-1] != I:", "if x.shape[-1] < I:", "bad_input"),
        ("(*rows, w.P)).reshape(B, w.P)", "np.shape(h0)).reshape(B, w.P)", "bad_input"),
        ("(*rows, w.H)).reshape(B, w.H)", "np.shape(c0)).reshape(B, w.H)", "bad_input"),
        ('("mask", mask, T, B, unbatched, batch_first)', '("mask", mask, T, B, unbatched, False)', "bad_input"),
        ('checks.integer("threads", threads, 1)', "threads", "bad_input"),
        ('checks.integer("checkpoint", options.checkpoint, 1)', 'checks.integer("checkpoint", options.checkpoint, 0)', "bad_input"),
        ('checks.flag("reverse", options.reverse)', "options.reverse", "bad_input"),
        ("    y.flags.writeable = False\n", "", "engine"),
    ),
    *of(
        "fastrnn/layers.py",
        (">= p", "< p", "stacks", "dropout"),
        ('lengths = checks.integers("lengths", lengths, "(B,)", B, T)', "lengths = np.asarray(lengths)", "bad_input"),
        ('layout.flags("mask", mask)', "np.asarray(mask, bool)", "bad_input"),
        ('checks.integer("checkpoint", checkpoint, 1)', "checkpoint", "bad_input"),
        ('checks.projection("proj_size", proj_size, checks.size("hidden_size", hidden_size))', "proj_size", "bad_input"),
        ("self.dropout if record and self._drops else", "self.dropout if self._drops else", "stacks", "inference"),
        ("np.fill_diagonal(array, self.recurrent_scale)", "np.fill_diagonal(array, 1)", "layers parameters", "irnn"),
        ('masked == "hold") for reverse in ways', "False) for reverse in ways", "layers stacks"),
    ),
    *of(
        "fastrnn/frozen.py",
        ("        copied.flat.flags.writeable = False\n", "", "frozen"),
        ("        copied: Any = owner.astype(owner.dtype)\n", "        copied: Any = owner\n", "frozen"),
    ),
    *of(
        "fastrnn/unrolled.py",
        ("cell.flat.copy() if cell._cell.form.peephole else cell.flat", "cell.flat", "unrolled"),
        ("            self._kept = self._steps = None  # and what they hold\n", "", "unrolled"),
    ),
    *of(
        "fastrnn/stream.py",
        ("layer, weights in zip(self._layers, packed):", "layer, weights in [(self, packed[-1])]:", "frozen", "refresh"),
    ),
    *of(
        "fastrnn/cells.py",
        ("np.zeros_like(end) if d is None else d.copy()", "np.zeros_like(end) if d is None else d", "single_steps"),
    ),
    *of(
        "fastrnn/stream.py",
        ("index.shape == (B,) and ((index == 0) | (index == 1)).all():", "False:", "stream"),
        ("if out is not None and not self._fits(out, x):  #", "if False:  #", "stream"),
        (
            "for member in self._live():\n                    for array in member:",
            "for member in self._live()[:1]:\n                    for array in member:",
            "stream",
        ),
    ),
    *of(
        "fastrnn/config.py",
        ("if not 1 <= n <= _MAX_THREADS:", "if not 0 <= n <= _MAX_THREADS:", "threads", "stops_the_import"),
        ("after_in_child=_core.after_fork", "after_in_child=lambda: None", "threads", "fork"),
    ),
    # --- other frameworks ----------------------------------------------------------------------------------------------------
    *of(
        "fastrnn/jax.py",
        ('axis = 1 if x.ndim == 3 and options.get("batch_first") else 0', "axis = 0", "jax silent_inputs", "not torch"),
        (
            "layer.options(sizes, True, layer.checkpoint if layer.cell.form.saves else 0)",
            "layer.options(sizes, True, 0)",
            "jax",
            "checkpoints",
        ),
        ("of_rows |= {name: of_rows[name].T for", "of_rows |= {name: of_rows[name] for", "jax silent_inputs", "not torch"),
    ),
    *of("fastrnn/autograd.py", ("except IndexError:  #", "except KeyError:  #", "autograd")),
    *of(
        "fastrnn/keras.py",
        ("outputs = y[:, ::-1] if go_backwards else y", "outputs = y", "keras"),
        ("if not standard or x.ndim", "if x.ndim", "keras"),
        ('"zero" if zero else "hold"', '"zero"', "keras"),
        ("all(map(bytearray.__eq__, self.bytes, lying))", "True", "keras"),
    ),
    *of(
        "fastrnn/torch/calls.py",
        (
            "if not call.has_tape() or any(alias._version != version for alias, version in ctx.exposed):",
            "if not call.has_tape():",
            "torch_ways torch_modules",
        ),
        (
            "if torch.is_grad_enabled() or watched() or are_special(present):",
            "if watched() or are_special(present):",
            "torch_ways torch_modules",
        ),
    ),
    *of(
        "fastrnn/torch/tensors.py",
        ("        or forward_ad._current_level >= 0\n", "", "torch_ways"),
        ("if weight is None or weight.dtype not in DTYPES or", "if weight is None or", "torch_modules torch_ways torch_accelerate"),
    ),
    *of("fastrnn/torch/layers.py", (".bernoulli_(1 - p,", ".bernoulli_(p,", "torch_modules")),
    *of(
        "fastrnn/torch/steps.py",
        ("into.b_ih, into.b_hh][", "into.b_hh, into.b_ih][", "torch_plain torch_modules torch_ways"),
        (" or self.stand_in.grad_fn.done:", ":", "torch_plain", "", "a node may stay: what it holds is freed later"),
        ("all(a is b for a, b in zip(weights, self.weights, strict=True))", "True", "torch_plain"),
        ("if node is not None and not _will_run(node):", "if False:", "torch_plain torch_ways", "", "gradients that nobody takes"),
        ("sums = ctx.sums.pop(task, None)", "sums = ctx.sums.get(task, None)", "torch_plain", "", "no task comes twice"),
        ("special = _records() or watched()", "special = watched()", "torch_plain torch_ways"),
        (" or precision != self.precision", "", "torch_precision"),
    ),
    *of(
        "fastrnn/torch/frozen.py",
        ("0 if parameter.is_inference() else parameter._version", "0", "torch_plain"),
        ("return parameter.data_ptr(), ", "return 0, ", "torch_plain"),
        ("    if module.training:\n", "    if False:\n", "torch_plain"),
    ),
    *of(
        "fastrnn/torch/autocast.py",
        ("carried = (x if state is None else state).dtype", "carried = x.dtype", "torch_precision"),
        ("torch.bfloat16 if projected else carried", "carried", "torch_precision"),
    ),
    *of("fastrnn/torch/replace.py", ('if "forward" in vars(module) and', "if False and", "torch_accelerate")),
    *of("fastrnn/torch/forward.py", ("if kind.forward is self._inherited:", "if True:", "torch_accelerate")),
    *of("fastrnn/torch/lightning.py", ("if report.replaced or self.report is None:  #", "if True:  #", "torch_callbacks")),
    # --- training ------------------------------------------------------------------------------------------------------------
    *of(
        "fastrnn/train/optim.py",
        ("(1 - beta2**self.t) ** -0.5", "(1 - beta2**self.t) ** -1.0", "train train_optim"),
        ("1 - lr * self.weight_decay", "1 - self.weight_decay", "train_optim"),
        ("(self.t - 1) * self.lr_decay", "self.t * self.lr_decay", "train_optim"),
        (
            "eps: float = 1e-8,\n        *,\n        weight_decay: float = 0.0,",
            "eps: float = 1e-7,\n        *,\n        weight_decay: float = 0.0,",
            "train train_optim",
        ),
        ("            if math.isfinite(norm):\n", "            if True:\n", "train_optim"),
    ),
    *of(
        "fastrnn/train/clip.py",
        ("if math.isfinite(norm) and factor < 1:", "if factor < 1:", "train"),
        ("if norm < SMALLEST or math.isinf(norm):", "if math.isinf(norm):", "train"),
        ("factor = max_norm / (norm + 1e-6)", "factor = max_norm / (norm + 1e-3)", "train train_optim"),
    ),
    *of("fastrnn/train/average.py", ("else 1 - self.decay", "else self.decay", "train_optim")),
    *of("fastrnn/train/schedules.py", ("schedule(0) * (t + 1) / steps", "schedule(0) * t / steps", "train_optim")),
    *of(
        "fastrnn/train/losses.py",
        ("within & self.valid", "within | self.valid", "train_losses"),
        ('"rows": self.n_rows', '"rows": len(d)', "train_losses"),
        ("dtype=np.float64), d)\n\n\ndef sigmoid", "dtype=np.float32), d)\n\n\ndef sigmoid", "train_losses"),
    ),
    *of("fastrnn/train/padding.py", ("np.where(time < ends, ends", "np.where(time <= ends, ends", "train_losses")),
    *of("fastrnn/train/checkpoint.py", ("_restore(name, part, before[name])", "pass", "train_optim")),
    *of("fastrnn/train/state.py", ("        if value.dtype != array.dtype:\n", "        if False:\n", "train_optim train_losses")),
    *of("fastrnn/train/vectors.py", ("if not _core.apart(arrays):", "if False:", "train train_optim silent_inputs", "not torch")),
    *of("fastrnn/train/parallel.py", ("np.multiply(g, weight, out=sent)", "np.multiply(g, 1, out=sent)", "train_parallel")),
    *of(
        "fastrnn/train/beam.py",
        ("[: 2 * self.width]", "[: self.width]", "train_sampling"),
        ("self._rank(float(self.scores[0]), self.steps)", "self._rank(float(self.scores[0]), len(self.ids))", "train_sampling"),
    ),
    *of(
        "fastrnn/train/sampling.py",
        ("before = p.cumsum(axis=1) - p", "before = p.cumsum(axis=1)", "train_sampling"),
        ("self._x[self._rows, self._hot] = 0", "pass", "train_sampling"),
    ),
    *of("fastrnn/train/readout.py", ("limit = 1 / math.sqrt(self.input_size)", "limit = 1 / math.sqrt(self.output_size)", "train")),
    *of("fastrnn/train/recurrences.py", ("own = np.where(self._cut[:, :, None], 0, dfed)", "own = dfed", "train_recurrences")),
    *of(
        "fastrnn/train/initialisers.py",
        ("q *= np.where(np.diag(r) < 0, -1, 1)", "q *= 1", "train_initialisers"),
        ("array[H : 2 * H] = value", "array[:H] = value", "train_initialisers"),
    ),
    # --- weights and models of other systems ---------------------------------------------------------------------------------
    *of(
        "fastrnn/formats/table.py",
        ('lstm=Cell("iofg", {**_ONNX', 'lstm=Cell("ifog", {**_ONNX', "formats onnx"),
        ('gru_after=Cell("zrn", {**_KERAS, "bias?"', 'gru_after=Cell("rzn", {**_KERAS, "bias?"', "formats"),
        ('offset={"f": 1.0}', 'offset={"f": 0.0}', "formats"),
        ('dict.fromkeys("ifo", 2.0)', 'dict.fromkeys("ifo", 1.0)', "formats"),
    ),
    *of(
        "fastrnn/formats/pulling.py",
        ("rows if scale == 1 else rows * scale", "rows if scale == 1 else rows / scale", "formats", "gradients"),
    ),
    *of(
        "fastrnn/formats/containers.py",
        ("return [layer[:half], layer[half:]] if", "return [layer[half:], layer[:half]] if", "formats", "directions"),
    ),
    *of(
        "fastrnn/formats/axes.py",
        ("if len(unknown) > 1 or length % max(others, 1) or (", "if len(unknown) > 1 or (", "formats", "wrong_array"),
        ("= source[k : k + rows]", "= source[:1]", "compat_steps", "lies_transposed"),
    ),
    *of("fastrnn/formats/slots.py", ('PEEPHOLES = "ifo"', 'PEEPHOLES = "iof"', "formats")),
    *of(
        "fastrnn/onnx/attributes.py",
        ('checks.integer("input_forget", given.get("input_forget", 0), 0, 1) == 1', "False", "onnx"),
        ('None if clip is None else _positive("clip", clip),', "None,", "onnx"),
    ),
    *of("fastrnn/onnx/activations.py", ('Activation("HardSigmoid", 0.2, 0.5)', 'Activation("HardSigmoid", 0.25, 0.5)', "onnx")),
    *of("fastrnn/onnx/plain.py", ("np.clip(a, -clip, clip)", "np.clip(a, None, clip)", "onnx")),
    *of("fastrnn/onnx/inputs.py", ("s.take(d, 1 if attributes.batch_first else 0)", "s.take(d, 0)", "onnx")),
    *of("fastrnn/onnx/export.py", ("int(self.layer.reset_after)", "0", "onnx_models")),
    *of("fastrnn/onnx/model.py", ("if np.any(node.constants.get(name, 0)):", "if False:", "onnx_models")),
    *of("fastrnn/onnx/snapshot.py", ("return isinstance(array, bytes)", "return True", "onnx_models")),
    *of("fastrnn/onnx/operator.py", ("(i.lengths == 0,)", "(i.lengths < 0,)", "onnx")),
    *of(
        "fastrnn/onnx/quantised.py",
        ("integers.astype(np.float32) - (", "integers.astype(np.float32) + (", "onnx_models onnx_unread"),
    ),
    *of("fastrnn/onnx/unread.py", ("    if again:\n", "    if False:\n", "onnx_unread")),
    # --- drop-in replacements ------------------------------------------------------------------------------------------------
    *of("fastrnn/compat/_recorded.py", ("tape = self._tapes.pop()", "tape = self._tapes[-1]", "compat_cs231n compat_karpathy")),
    *of("fastrnn/compat/_one_user.py", ("with self._in_use:", "if True:", "free_threading")),
    *of("fastrnn/compat/_step.py", ("dc * c_prev * f * (1 - f)", "dc * c_prev * f", "compat_coursera")),
    *of("fastrnn/compat/karpathy.py", ("np.clip(gradient, -5, 5,", "np.clip(gradient, -50, 50,", "compat_karpathy")),
    *of("fastrnn/compat/cs231n.py", ("dnext_h * (1 - next_h * next_h)", "dnext_h * (1 - next_h)", "compat_cs231n")),
    *of("fastrnn/compat/coursera.py", ("f, i, o = _step.sigmoid", "i, f, o = _step.sigmoid", "compat_coursera")),
    *of("fastrnn/compat/numpy_ml.py", ("self.gradients[name] += gradient", "self.gradients[name] = gradient", "compat_numpy_ml")),
    *of(
        "fastrnn/compat/madmom.py",
        ("self._prev = self.init if init is None else", "self._prev = self.init if True else", "compat_madmom"),
    ),
    # --- diagnostics, checks, the reference ----------------------------------------------------------------------------------
    *of("fastrnn/diagnostics/chain.py", ("cuts[t + 1 : t + 2] if t + 1 < T", "cuts[t : t + 1] if t + 1 < T", "diagnostics")),
    *of(
        "fastrnn/diagnostics/finding.py",
        ("Finding(steps.order[s], steps.cell.suffix[1:], name", "Finding(s, steps.cell.suffix[1:], name", "diagnostics"),
    ),
    *of("fastrnn/diagnostics/jacobian.py", ("products[k + 1] @ jacobians[k]", "jacobians[k] @ products[k + 1]", "diagnostics")),
    *of(
        "fastrnn/diagnostics/spectrum.py",
        ("np.abs(np.linalg.eigvals(w)).max()", "np.abs(np.linalg.eigvals(w)).min()", "diagnostics"),
    ),
    *of(
        "fastrnn/gradcheck.py",
        ("return (4 * central(h) - central(2 * h)) / 3", "return central(2 * h)", "gradcheck"),
        ("    finally:\n        array[index] = value\n", "    finally:\n        pass\n", "gradcheck"),
    ),
    *of(
        "fastrnn/reference.py",
        ("dag = dnew * i * dg", "dag = dnew * i * di", "reference"),
        ("np.where(a.real > 0, 1, alpha * np.exp(_negative(a)))", "np.where(a.real > 0, 1, alpha)", "reference", "activations"),
        ("            s[seq.cut[t]] = 0\n", "            pass\n", "reference"),
    ),
]

MUTANTS = [*PYTHON, *COMPILED]
