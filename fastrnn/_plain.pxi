# Plain calls: arrays of the right dtype whose rows are contiguous, a state that is absent or plain, no lengths, reset or mask. One
# compiled function goes from Python's arguments to the kernel. Whatever is not plain gets None here and goes the general way, through
# fastrnn._api and fastrnn._engine, which gives the same bits, and words the errors.

cdef object schedules = None  # the module fastrnn._engine.schedule

cdef enum:
    REMEMBERED = 64

cdef struct Remembered:
    # A call's sizes, and the schedule that was chosen for them.
    int gates, threads, backward, lent, bf16
    ptrdiff_t T, B, I, H
    fr_schedule schedule
    int team
    long long patience_ns

cdef fr_guard remembered_guard  # of the table; held for nanoseconds
cdef Remembered remembered[REMEMBERED]


def use_schedules(module):
    """Who chooses schedules: its functions forward and backward, of T, B, I, H, G, the number of threads, and whether they are lent."""
    global schedules
    schedules = module


def forget_schedules():
    """Ask for all of them again: for tests that change what chooses them."""
    fr_guard_wait(&remembered_guard)
    memset(remembered, 0, sizeof(remembered))
    fr_guard_leave(&remembered_guard)


cdef void forget_after_fork() noexcept:
    """In a child whose parent's threads may have been at the table."""
    if fr_guard_taken(&remembered_guard):
        memset(remembered, 0, sizeof(remembered))
        fr_guard_leave(&remembered_guard)


cdef inline bint same_sizes(const Remembered *a, const Remembered *b) noexcept:
    return a.T == b.T and a.B == b.B and a.I == b.I and a.H == b.H and (
        a.gates == b.gates and a.threads == b.threads and a.backward == b.backward and a.lent == b.lent and a.bf16 == b.bf16)


cdef int choose(Remembered *r) except -1:
    """Fill in the schedule for these sizes."""
    cdef size_t key = <size_t>(((r.T * 31 + r.B) * 31 + r.I) * 31 + r.H) * 31 + <size_t>(r.gates * 4 + r.threads * 2 + r.backward)
    cdef Remembered *place = &remembered[(key ^ key >> 7) % REMEMBERED]
    cdef bint known
    fr_guard_wait(&remembered_guard)
    known = same_sizes(place, r)
    if known:
        r[0] = place[0]
    fr_guard_leave(&remembered_guard)
    if known:
        return 0
    how = schedules.backward if r.backward else schedules.forward
    sizes = r.T, r.B, r.I, r.H, r.gates, r.threads
    how = how(*sizes, lent=True) if r.lent else how(*sizes)
    cdef fr_schedule *s = &r.schedule
    r.team, s.split_units, s.input_first, s.chunk, r.patience_ns, s.row_blocks, s.direct = how
    fr_guard_wait(&remembered_guard)
    place[0] = r[0]
    fr_guard_leave(&remembered_guard)
    return 0


# --- arguments ----------------------------------------------------------------------------------------------------------

cdef struct Form:
    # What came in: x as the kernels take it, with a batch or without, and the initial state or NULL.
    ptrdiff_t T, B
    bint unbatched, rows_first
    fr_seq x
    const char *h0
    const char *c0


cdef inline bint is_of(object a, int type_number) noexcept:
    """A plain array of this type, aligned and in this machine's byte order."""
    return type(a) is cnp.ndarray and cnp.PyArray_TYPE(<cnp.ndarray>a) == type_number and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>a)


cdef bint is_plain(object array, int type_number, int ndim, const ptrdiff_t *shape) noexcept:
    """Is this of the type and the shape, and in C order?"""
    if not is_of(array, type_number):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>array
    cdef int i
    if cnp.PyArray_NDIM(a) != ndim or not cnp.PyArray_IS_C_CONTIGUOUS(a):
        return False
    for i in range(ndim):
        if cnp.PyArray_DIM(a, i) != shape[i]:
            return False
    return True


cdef bint plain_rows(object array, int type_number, ptrdiff_t n, bint one_step, bint batch_first, Form *f) noexcept:
    """Is this a sequence of rows of n contiguous numbers, none of its axes empty? Then its layout is in f: (T, B, n), (B, T, n) with
    batch_first, (T, n); or for one step (B, n), (n,)."""
    if not is_of(array, type_number):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>array
    cdef int ndim = cnp.PyArray_NDIM(a) + one_step
    cdef ptrdiff_t size = cnp.PyArray_ITEMSIZE(a)
    if ndim != 2 and ndim != 3:
        return False
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(a) - one_step
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(a) - one_step
    if shape[ndim - 1] != n or n == 0 or (n > 1 and strides[ndim - 1] != size):
        return False
    f.unbatched = ndim == 2
    f.rows_first = batch_first and ndim == 3
    cdef int rows = 0 if f.rows_first else 1, time = 1 - rows
    f.B = 1 if ndim == 2 else shape[rows]
    f.T = 1 if one_step else shape[time]
    f.x.p = cnp.PyArray_DATA(a)
    f.x.sb = 0 if ndim == 2 else strides[rows] // size
    f.x.st = 0 if one_step else strides[time] // size
    return f.T > 0 and f.B > 0


cdef bint plain_state(object state, int type_number, ptrdiff_t cells, ptrdiff_t n, const Form *f, const char **to) noexcept:
    """Is this a state (cells, B, n), of a cell (B, n), or None? Then its numbers are at `to`, or NULL."""
    cdef ptrdiff_t shape[3]
    cdef int ndim = 0
    to[0] = NULL
    if state is None:
        return True
    if cells:
        shape[ndim] = cells
        ndim += 1
    if not f.unbatched:
        shape[ndim] = f.B
        ndim += 1
    shape[ndim] = n
    if not is_plain(state, type_number, ndim + 1, shape):
        return False
    to[0] = <const char *>cnp.PyArray_DATA(<cnp.ndarray>state)
    return True


cdef inline object new_array(int ndim, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, int type_number):
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1], shape[2] = a, b, c
    return cnp.PyArray_EMPTY(ndim, shape + 3 - ndim, type_number, 0)


cdef object new_like(cnp.ndarray like):
    """Of the same shape and dtype, uninitialised, in C order; a large one from the free list."""
    cdef int ndim = cnp.PyArray_NDIM(like), type_number = cnp.PyArray_TYPE(like)
    if cnp.PyArray_NBYTES(like) < SMALL:
        return cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(like), type_number, 0)
    cdef Memory memory = Memory(cnp.PyArray_NBYTES(like))
    cdef cnp.ndarray a = cnp.PyArray_SimpleNewFromData(ndim, cnp.PyArray_DIMS(like), type_number, memory.start)
    cnp.set_array_base(a, memory)
    return a


cdef inline void set_arrays(fr_weights *to, tuple w):
    """From w_ih, w_hh, b_ih, b_hh, peephole, w_hr."""
    to.w_ih, to.w_hh, to.b_ih = data(w[0]), data(w[1]), data(w[2])
    to.b_hh, to.peephole, to.w_hr = data(w[3]), data(w[4]), data(w[5])


cdef inline void moved(fr_weights *to, const fr_weights *w, ptrdiff_t by) noexcept:
    """The same places in another vector, so many bytes further."""
    to.w_ih = NULL if w.w_ih == NULL else <char *>w.w_ih + by
    to.w_hh = NULL if w.w_hh == NULL else <char *>w.w_hh + by
    to.w_hr = NULL if w.w_hr == NULL else <char *>w.w_hr + by
    to.b_ih = NULL if w.b_ih == NULL else <char *>w.b_ih + by
    to.b_hh = NULL if w.b_hh == NULL else <char *>w.b_hh + by
    to.peephole = NULL if w.peephole == NULL else <char *>w.peephole + by


cdef inline bint gemm_is_own(int table) noexcept:
    """Do the kernels of this table make the large products, too?"""
    cdef int engine = fr_shared_get(&gemm)
    return engine == GEMM_OWN or table == FR_BF16 or (engine == GEMM_UNSET and fr_shared_get(&isa) != 0)


# --- the calls of a layer or a cell -----------------------------------------------------------------------------------

cdef class PlainCalls:
    """The plain calls of the layers of a stack, in one direction, or of a cell: what they are, and where their weights stand."""
    cdef int gates, type_number
    cdef int table  # of kernels, for the arrays' type and the precision of products
    cdef const fr_kernels *packed_for  # those that can read packed weights; NULL: those in use
    cdef int threads  # at most so many; 0: as many as are in use
    cdef ptrdiff_t layers, size, P, H
    cdef ptrdiff_t stacked  # the layers, where a state has an axis over them; else 0
    cdef bint has_c, saves
    cdef fr_call *calls  # of each layer: cell, sizes and weights
    cdef double *counts  # of each layer's weights
    cdef object weights  # keep the arrays alive
    cdef object flat  # the vector whose parts they are, or None

    def __init__(self, cell, form, list weights, cnp.ndarray flat, bint stacked):
        """Of weights that are parts of a vector; stacked: a state has an axis over the layers."""
        cdef ptrdiff_t k
        self.describe(cell, form, flat, len(weights))
        self.table = table_of_weights(weights[0])
        self.weights, self.flat = weights, flat
        self.stacked = self.layers if stacked else 0
        for k in range(self.layers):
            self.counts[k] = take_weights(&self.calls[k], weights[k])
            if weights[k].packed is not None:
                self.take_packed(&self.calls[k], weights[k].packed)
        self.P, self.H = self.calls[0].P, self.calls[0].H

    cdef int describe(self, cell, form, cnp.ndarray like, ptrdiff_t layers) except -1:
        """The cell, the dtype of an array, and a table of layers."""
        self.gates = <int>len(form.letters)
        self.has_c, self.saves = form.has_c, form.saves
        self.type_number, self.size = cnp.PyArray_TYPE(like), cnp.PyArray_ITEMSIZE(like)
        self.layers = layers
        self.calls = <fr_call *>PyMem_RawMalloc(layers * sizeof(fr_call))
        self.counts = <double *>PyMem_RawMalloc(layers * sizeof(double))
        if self.calls == NULL or self.counts == NULL:
            raise MemoryError("cannot allocate a table of layers")
        memset(self.calls, 0, layers * sizeof(fr_call))
        cdef ptrdiff_t k
        for k in range(layers):
            set_cell(&self.calls[k], cell)
        return 0

    cdef int take_packed(self, fr_call *t, PackedWeights packed) except -1:
        self.packed_for = packed.kernels
        t.memory.packed, t.memory.packed_ready = packed.memory.start, True
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.calls)
        PyMem_RawFree(self.counts)

    cdef bint read(self, object x, object state, bint one_step, bint batch_first, Form *f):
        """Is the call plain? Then f is what came."""
        if not plain_rows(x, self.type_number, self.calls[0].I, one_step, batch_first, f):
            return False
        if <double>f.T * f.B * (self.calls[0].I + 6 * self.H) > 1e15:
            return False
        f.c0 = NULL
        if self.has_c and state is not None:
            if type(state) is not tuple or len(<tuple>state) != 2:
                return False
            if not plain_state((<tuple>state)[1], self.type_number, self.stacked, self.H, f, &f.c0):
                return False
            state = (<tuple>state)[0]
        return plain_state(state, self.type_number, self.stacked, self.P, f, &f.h0)

    cdef int begin(self, ptrdiff_t k, const Form *f, const fr_seq *x, fr_call *t) noexcept:
        """The call of layer k on x."""
        t[0] = self.calls[k]
        t.plan.T = t.range.s1 = f.T
        t.plan.B = f.B
        t.x = x[0]
        t.range.first = t.range.last = 1
        t.h0 = t.c0 = NULL
        if f.h0 != NULL:
            t.h0 = f.h0 + k * f.B * self.P * self.size
        if f.c0 != NULL:
            t.c0 = f.c0 + k * f.B * self.H * self.size
        return 0

    cdef inline const fr_kernels *kernels(self) noexcept:
        return kernels_now(self.table) if self.packed_for == NULL else self.packed_for

    cdef bint borrows(self) noexcept:
        """Are the threads another library's?"""
        return False

    cdef int most_threads(self) except -1:
        return self.threads or fr_shared_get(&threads)

    cdef int run(self, ptrdiff_t k, fr_call *t, bint backward) except -1:
        """Layer k."""
        cdef const fr_kernels *kernels = self.kernels()
        return self.run_kernel(kernels, kernels.backward if backward else kernels.forward, self.counts[k], t, backward)

    cdef int run_kernel(self, const fr_kernels *kernels, fr_work *kernel, double weights, fr_call *t, bint backward) except -1:
        """Choose the schedule, allocate, run."""
        cdef Remembered r
        cdef fr_sizes sizes
        cdef fr_team alone
        r.gates, r.threads, r.backward, r.lent = self.gates, self.most_threads(), backward, self.borrows()
        r.bf16 = self.table == FR_BF16
        r.T, r.B, r.I, r.H = t.plan.T, t.plan.B, t.I, t.H
        choose(&r)
        t.schedule = r.schedule
        if t.memory.packed_ready:
            t.schedule.direct = False
        if backward:
            kernels.backward_sizes(t, r.team, &sizes)
        else:
            kernels.forward_sizes(t, r.team, &sizes)
        cdef ptrdiff_t packing = 0 if t.memory.packed_ready else sizes.packed_bytes
        cdef Memory memory = Memory(packing + sizes.work_bytes)
        if not t.memory.packed_ready:
            t.memory.packed = memory.start
        t.memory.work = <char *>memory.start + packing
        if is_short(r.team, <double>t.plan.T * t.plan.B * (1 + backward), t.memory.packed_ready, weights):
            memset(&alone, 0, sizeof(alone))
            alone.n = 1
            kernel(t, 0, &alone)
        else:
            with nogil:
                self.run_team(r.team, 2 * r.schedule.split_units + backward, r.patience_ns, kernel, t)
        return 0

    cdef void run_team(self, int team, int kind, long long patience_ns, fr_work *kernel, const fr_call *t) noexcept nogil:
        fr_pool_run(&pool, team, kind, patience_ns, kernel, t)

    cdef object new_sequence(self, const Form *f, ptrdiff_t n, fr_seq *to):
        """An array in the form of x, with n numbers in a row."""
        cdef cnp.ndarray a
        if f.unbatched:
            a = new_array(2, 0, f.T, n, self.type_number)
        elif f.rows_first:
            a = new_array(3, f.B, f.T, n, self.type_number)
        else:
            a = new_array(3, f.T, f.B, n, self.type_number)
        to.p = cnp.PyArray_DATA(a)
        to.st = n if f.rows_first else f.B * n
        to.sb = f.T * n if f.rows_first else n
        return a

    cdef object new_state(self, const Form *f, ptrdiff_t n, const char *source):
        """(L, B, n) or (B, n), without B where x has none: uninitialised, or a copy."""
        cdef cnp.ndarray a
        if self.stacked and f.unbatched:
            a = new_array(2, 0, self.stacked, n, self.type_number)
        elif self.stacked:
            a = new_array(3, self.stacked, f.B, n, self.type_number)
        elif f.unbatched:
            a = new_array(1, 0, 0, n, self.type_number)
        else:
            a = new_array(2, 0, f.B, n, self.type_number)
        if source != NULL:
            memcpy(cnp.PyArray_DATA(a), source, cnp.PyArray_NBYTES(a))
        return a

    cdef object new_zeros(self, const Form *f, ptrdiff_t n, const char *source):
        """The same, of zeros where there is no source."""
        cdef cnp.ndarray a = self.new_state(f, n, source)
        if source == NULL:
            memset(cnp.PyArray_DATA(a), 0, cnp.PyArray_NBYTES(a))
        return a

    cdef void copy_last(self, const Form *f, const fr_seq *y, ptrdiff_t n, char *to) noexcept:
        """The rows of the last step, (B, n)."""
        cdef const char *row = <const char *>y.p + (f.T - 1) * y.st * self.size
        cdef ptrdiff_t b, bytes = n * self.size
        for b in range(f.B):
            memcpy(to + b * bytes, row + b * y.sb * self.size, bytes)

    def step(self, x, state):
        """The new state of a cell in inference, or None."""
        cdef Form f
        cdef fr_call t
        if not gemm_is_own(self.table) or not self.read(x, state, True, False, &f):
            return None
        self.begin(0, &f, &f.x, &t)
        try:
            h = self.new_state(&f, self.P, NULL)
            t.y.p, t.y.sb = cnp.PyArray_DATA(<cnp.ndarray>h), self.P
            if self.has_c:
                c = self.new_zeros(&f, self.H, f.c0)
                self.update_in_place(&t, cnp.PyArray_DATA(<cnp.ndarray>c))
            self.run(0, &t, False)
        except (MemoryError, ValueError):
            return None
        return (h, c) if self.has_c else h

    cdef inline void update_in_place(self, fr_call *t, void *c) noexcept:
        """The c (B, H) of inference."""
        t.saved.c.p = t.c0 = c
        t.saved.c.st = 0
        t.saved.c.sb = self.H

    def infer(self, x, state, bint batch_first):
        """(y, state) of a layer in inference, or None."""
        cdef Form f
        if not gemm_is_own(self.table) or not self.read(x, state, False, batch_first, &f):
            return None
        try:
            return self._infer(&f)
        except (MemoryError, ValueError):
            return None

    cdef object _infer(self, Form *f):
        cdef fr_call t
        cdef fr_seq source = f.x, target
        cdef ptrdiff_t k, B = f.B
        cdef Memory up = None, memory
        h_n = self.new_state(f, self.P, NULL)
        c_n = self.new_zeros(f, self.H, f.c0) if self.has_c else None
        cdef char *h = <char *>data(h_n)
        cdef char *c = <char *>data(c_n)
        y = self.new_sequence(f, self.P, &target)
        cdef fr_seq last = target
        for k in range(self.layers):
            memory = up
            if k + 1 < self.layers:
                up = Memory(f.T * B * self.P * self.size)
                target.p, target.st, target.sb = up.start, B * self.P, self.P
            else:
                target = last
            self.begin(k, f, &source, &t)
            t.y = target
            if self.has_c:
                self.update_in_place(&t, c + k * B * self.H * self.size)
            self.run(k, &t, False)
            self.copy_last(f, &target, self.P, h + k * B * self.P * self.size)
            source = target
        return y, (h_n, c_n) if self.has_c else h_n

    def record(self, x, state, bint one_step, bint batch_first):
        """(y, state, Recorded) of a layer, or of a cell, whose y is the new h; or None."""
        if not gemm_is_own(self.table):
            return None
        try:
            return self.recorded(x, state, one_step, batch_first)
        except (MemoryError, ValueError):
            return None

    cdef object recorded(self, x, state, bint one_step, bint batch_first):
        cdef Form f
        if not self.read(x, state, one_step, batch_first, &f):
            return None
        cdef Recorded tape = Recorded.__new__(Recorded)
        tape.set_up(self, &f, x, state, one_step)
        return tape.forward()


cdef class Recorded:
    """What a plain call keeps for its backward: of each layer y and, as its cell has them, c (T, B, H) and gates (T, B, 4*H)."""
    cdef PlainCalls of
    cdef Form form
    cdef bint one_step
    cdef object x, state
    cdef list ys, cs, gates

    def __reduce__(self):
        raise TypeError("a tape is of its call and its process: it cannot be copied or pickled")

    cdef int set_up(self, PlainCalls of, const Form *f, x, state, bint one_step) except -1:
        self.of, self.form, self.x, self.state, self.one_step = of, f[0], x, state, one_step
        self.ys, self.cs, self.gates = [], [], []
        return 0

    cdef object saved(self, ptrdiff_t n, fr_seq *to):
        """(T, B, n), uninitialised; a large one from the free list."""
        cdef Form *f = &self.form
        to.st, to.sb = f.B * n, n
        if f.T * f.B * n * self.of.size < SMALL:
            a = new_array(3, f.T, f.B, n, self.of.type_number)
        else:
            a = new_saved((f.T, f.B, n), self.of.type_number == cnp.NPY_DOUBLE)
        to.p = cnp.PyArray_DATA(<cnp.ndarray>a)
        return a

    cdef object forward(self):
        cdef PlainCalls of = self.of
        cdef Form *f = &self.form
        cdef fr_call t
        cdef fr_seq source = f.x, target
        cdef ptrdiff_t k
        h_n = of.new_state(f, of.P, NULL)
        c_n = of.new_state(f, of.H, NULL) if of.has_c else None
        for k in range(of.layers):
            of.begin(k, f, &source, &t)
            if k + 1 < of.layers or self.one_step:
                y = self.saved(of.P, &target)
            else:
                y = of.new_sequence(f, of.P, &target)
            t.y = target
            self.ys.append(y)
            if of.has_c:
                self.cs.append(self.saved(of.H, &t.saved.c))
            if of.saves:
                self.gates.append(self.saved(4 * of.H, &t.saved.gates))
            of.run(k, &t, False)
            of.copy_last(f, &target, of.P, <char *>data(h_n) + k * f.B * of.P * of.size)
            if of.has_c:
                of.copy_last(f, &t.saved.c, of.H, <char *>data(c_n) + k * f.B * of.H * of.size)
            source = target
        state = (h_n, c_n) if of.has_c else h_n
        if self.one_step:
            return h_n, state, self
        y = y.view()  # the caller's, who may give it another shape
        cnp.PyArray_CLEARFLAGS(<cnp.ndarray>y, cnp.NPY_ARRAY_WRITEABLE)
        return y, state, self

    cdef void layer(self, ptrdiff_t k, fr_call *t) noexcept:
        """Layer k as forward left it."""
        cdef PlainCalls of = self.of
        cdef Form *f = &self.form
        cdef fr_seq x = f.x
        if k:
            self.find(self.ys[k - 1], of.P, &x)
        of.begin(k, f, &x, t)
        self.find(self.ys[k], of.P, &t.y)
        if k + 1 == of.layers and f.rows_first and not self.one_step:
            t.y.st, t.y.sb = of.P, f.T * of.P
        if of.has_c:
            self.find(self.cs[k], of.H, &t.saved.c)
        if of.saves:
            self.find(self.gates[k], 4 * of.H, &t.saved.gates)

    cdef inline void find(self, object array, ptrdiff_t n, fr_seq *to) noexcept:
        to.p, to.st, to.sb = cnp.PyArray_DATA(<cnp.ndarray>array), self.form.B * n, n

    def backward(self, dy, dstate):
        """(dx, dstate of the initial state, the parameters' gradients), or None where the arguments are not plain. The gradients are one
        vector, for a function a tuple."""
        cdef Form d = self.form
        cdef const char *dh
        cdef const char *dc
        d.x.p = NULL
        if not gemm_is_own(self.of.table) or not self.read_dstate(dstate, &dh, &dc) or (dy is None and dh == NULL and dc == NULL):
            return None
        if dy is not None:
            if self.one_step or not plain_rows(dy, self.of.type_number, self.of.P, False, d.rows_first, &d):
                return None
            if d.T != self.form.T or d.B != self.form.B or d.unbatched != self.form.unbatched:
                return None
        try:
            return self._backward(&d.x, dh, dc)
        except (MemoryError, ValueError):
            return None

    cdef bint read_dstate(self, object dstate, const char **dh, const char **dc) noexcept:
        """Is this the plain gradient of a final state, or None?"""
        dc[0] = NULL
        if self.of.has_c and dstate is not None:
            if type(dstate) is not tuple or len(<tuple>dstate) != 2:
                return False
            if not plain_state((<tuple>dstate)[1], self.of.type_number, self.of.stacked, self.of.H, &self.form, dc):
                return False
            dstate = (<tuple>dstate)[0]
        return plain_state(dstate, self.of.type_number, self.of.stacked, self.of.P, &self.form, dh)

    cdef object _backward(self, const fr_seq *dy, const char *dh, const char *dc):
        cdef PlainCalls of = self.of
        cdef Form *f = &self.form
        cdef ptrdiff_t k
        cdef fr_call t
        cdef fr_seq source = dy[0], target
        cdef Memory down = None, memory
        dx = of.new_sequence(f, of.calls[0].I, &target) if not self.one_step else self.step_dx(&target)
        cdef fr_seq lowest = target
        dh0 = of.new_zeros(f, of.P, dh)
        dc0 = of.new_zeros(f, of.H, dc) if of.has_c else None
        parameters = new_like(of.flat) if of.flat is not None else tuple([None if w is None else new_like(w) for w in of.weights])
        for k in range(of.layers - 1, -1, -1):
            self.layer(k, &t)
            memory = down
            target = lowest
            if k:
                down = Memory(f.T * f.B * of.P * of.size)
                target.p, target.st, target.sb = down.start, f.B * of.P, of.P
            t.d.dy, t.d.dx = source, target
            t.d.dh = <char *>data(dh0) + k * f.B * of.P * of.size
            t.d.dc = NULL if dc0 is None else <char *>data(dc0) + k * f.B * of.H * of.size
            if of.flat is None:
                set_arrays(&t.d.dw, parameters)
            else:
                moved(&t.d.dw, &t.w, <char *>data(parameters) - <char *>data(of.flat))
            t.d.fresh = 1
            of.run(k, &t, True)
            source = target
        return dx, (dh0, dc0) if of.has_c else dh0, parameters

    cdef object step_dx(self, fr_seq *to):
        """dx of a cell, (B, I) or (I,)."""
        cdef Form *f = &self.form
        cdef ptrdiff_t I = self.of.calls[0].I
        a = new_array(1 if f.unbatched else 2, 0, f.B, I, self.of.type_number)
        to.p, to.st, to.sb = cnp.PyArray_DATA(<cnp.ndarray>a), 0, I
        return a

    def rows(self):
        """B, and whether x came without a batch."""
        return self.form.B, bool(self.form.unbatched)

    def parts(self):
        """For the general way: x, state, the lists of y, c and gates of each layer, and whether x is (B, T, I)."""
        return self.x, self.state, self.ys, self.cs, self.gates, bool(self.form.rows_first)

    def weights(self):
        """Those of each layer, in their precision; of a function the tuple of them."""
        return self.of.weights


# --- functions ----------------------------------------------------------------------------------------------------------

cdef bint plain_weights(tuple w, int type_number, ptrdiff_t gates, fr_call *t):
    """Are w_ih (G*H, I), w_hh (G*H, P) and, as far as there are any, b_ih, b_hh (G*H), peephole (3, H), w_hr (P, H) plain arrays? Then
    sizes and weights are in t."""
    cdef ptrdiff_t shape[2]
    if not is_of(w[0], type_number) or not is_of(w[1], type_number):
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray>w[0]) != 2 or cnp.PyArray_NDIM(<cnp.ndarray>w[1]) != 2:
        return False
    t.I, t.P = cnp.PyArray_DIM(<cnp.ndarray>w[0], 1), cnp.PyArray_DIM(<cnp.ndarray>w[1], 1)
    t.H = t.P
    if w[5] is not None:
        if not is_of(w[5], type_number) or cnp.PyArray_NDIM(<cnp.ndarray>w[5]) != 2:
            return False
        shape[0], shape[1] = t.P, cnp.PyArray_DIM(<cnp.ndarray>w[5], 1)
        t.H = shape[1]
        if t.P >= t.H or not is_plain(w[5], type_number, 2, shape):
            return False
    if t.P == 0 or t.H > cnp.PyArray_DIM(<cnp.ndarray>w[1], 0):
        return False
    shape[0], shape[1] = gates * t.H, t.I
    if not is_plain(w[0], type_number, 2, shape):
        return False
    shape[1] = t.P
    if not is_plain(w[1], type_number, 2, shape):
        return False
    if (w[2] is not None and not is_plain(w[2], type_number, 1, shape)) or (
            w[3] is not None and not is_plain(w[3], type_number, 1, shape)):
        return False
    shape[0], shape[1] = 3, t.H
    if w[4] is not None and not is_plain(w[4], type_number, 2, shape):
        return False
    set_arrays(&t.w, w)
    return True


def call_function(cell, form, x, tuple weights, h0, c0, bint batch_first, bint record, int threads, precision):
    """(y, state, Recorded or None) of a plain call of a function with these weights: w_ih, w_hh, b_ih, b_hh, peephole, w_hr; or None.
    threads: at most so many, 0 for as many as are in use."""
    if type(x) is not cnp.ndarray or cnp.PyArray_TYPE(<cnp.ndarray>x) not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE):
        return None
    cdef PlainCalls calls = PlainCalls.__new__(PlainCalls)
    calls.describe(cell, form, x, 1)
    calls.weights, calls.threads, calls.table = weights, threads, table_of(calls.type_number, precision)
    if calls.table < 0 or not plain_weights(weights, calls.type_number, calls.gates, &calls.calls[0]):
        return None
    calls.P, calls.H = calls.calls[0].P, calls.calls[0].H
    calls.counts[0] = <double>calls.gates * calls.H * (calls.calls[0].I + calls.P) + (calls.P * calls.H if calls.P < calls.H else 0)
    state = (h0, c0) if calls.has_c else h0
    if record:
        return calls.record(x, state, False, batch_first)
    done = calls.infer(x, state, batch_first)
    return None if done is None else (done[0], done[1], None)
