# cython: language_level=3, boundscheck=False, wraparound=False, binding=True, embedsignature=False, freethreading_compatible=True
"""Arrays to pointers and sizes to one call without the GIL. Arguments are checked by the Python around it, but for plain calls,
the steps of a stream and the arrays of optimisers. The policies that are here: when to keep the GIL, and the free list.

Python without a GIL may run all of this in many threads at once. What they share is guarded here: the blocks of memory by `list_guard`,
the pool by itself, an object with a state by its `InUse`.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_New
from cython cimport floating
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

cnp.import_array()

cdef extern from *:
    """
    /* Seen from outside, so that threadpoolctl can tell this _core from those of other packages. */
    __attribute__((visibility("default"))) extern const int fastrnn_threads;
    const int fastrnn_threads = 1;
    """

cdef extern from "team/pages.h" nogil:
    enum: FR_LARGE_PAGE
    void fr_ask_large_pages(void *p, ptrdiff_t size)

cdef extern from "team/guard.h" nogil:
    ctypedef struct fr_guard:
        pass
    int fr_guard_take(fr_guard *guard)
    void fr_guard_wait(fr_guard *guard)
    void fr_guard_leave(fr_guard *guard)
    int fr_guard_taken(fr_guard *guard)
    ctypedef struct fr_shared:
        pass
    int fr_shared_get(fr_shared *shared)
    void fr_shared_set(fr_shared *shared, int value)

cdef extern from "fastrnn.h" nogil:
    ctypedef struct fr_team:
        int n
    ctypedef void fr_work(const void *task, int member, fr_team *team) noexcept nogil
    ctypedef struct fr_pool:
        int always
    void fr_pool_run(fr_pool *pool, int threads, int kind, long long patience_ns, fr_work *work, const void *task)
    void fr_pool_run_each(fr_pool *pool, int threads, int kind, long long patience_ns, fr_work *work, const void *const *tasks, int n)
    ctypedef struct fr_lender:
        void (*parallel)(void (*body)(void *) noexcept nogil, void *data, unsigned threads, unsigned flags) noexcept nogil
        int (*number)() noexcept nogil
        int (*count)() noexcept nogil
    void fr_pool_run_borrowed(
        fr_pool *pool, const fr_lender *lender, int threads, int kind, long long patience_ns, fr_work *work, const void *task)
    void fr_pool_after_fork(fr_pool *pool)

    ctypedef struct fr_plan:
        ptrdiff_t T, B
        int reverse
        const ptrdiff_t *first
        const ptrdiff_t *row
        const ptrdiff_t *time
        const ptrdiff_t *prev
        const ptrdiff_t *rank
    ctypedef struct fr_seq:
        void *p
        ptrdiff_t st, sb
    ctypedef struct fr_weights:
        void *w_ih
        void *w_hh
        void *w_hr
        void *b_ih
        void *b_hh
        void *peephole
    ctypedef struct fr_saved:
        fr_seq c, gates
        int recompute
        ptrdiff_t first_step
    ctypedef struct fr_gradients:
        fr_seq dy, dcs
        void *dh
        void *dc
        fr_seq dx
        fr_weights dw
        int fresh
        void *dgates
        int make_dx
        ptrdiff_t truncate
    ctypedef struct fr_schedule:
        int split_units, row_blocks, input_first, direct
        ptrdiff_t chunk
    ctypedef struct fr_range:
        ptrdiff_t s0, s1
        int first, last
    ctypedef struct fr_memory:
        int packed_ready, back_ready
        void *packed
        void *work
    ctypedef struct fr_activation:
        int kind
        double alpha, beta
    ctypedef struct fr_call:
        int cell
        fr_activation activation[3]
        ptrdiff_t I, H, P
        fr_plan plan
        fr_weights w
        fr_seq x
        const void *h0
        const void *c0
        fr_seq y
        const void *xw
        const ptrdiff_t *tokens
        fr_saved saved
        fr_gradients d
        fr_schedule schedule
        fr_range range
        fr_memory memory
    ctypedef struct fr_sizes:
        ptrdiff_t packed_bytes, work_bytes, xw_width, dgates_width, dgates_x, sum_steps
    ctypedef struct fr_kernels:
        const char *isa
        int lanes, tiles
        void (*forward_sizes)(const fr_call *, int threads, fr_sizes *) noexcept nogil
        void (*backward_sizes)(const fr_call *, int threads, fr_sizes *) noexcept nogil
        fr_work *forward
        fr_work *backward
        fr_work *accumulate
        void (*token_table)(const fr_call *, void *table) noexcept nogil
        void (*input_matrix)(const fr_call *, void *matrix, void *bias) noexcept nogil
        void (*vmath)(int function, ptrdiff_t n, const void *x, void *y) noexcept nogil
        fr_work *update
    enum: FR_SQUARES, FR_PIECE, FR_MAX_ARRAYS, FR_MAX_NUMBERS
    ctypedef struct fr_row:
        ptrdiff_t n, end
        void *a[FR_MAX_ARRAYS]
    ctypedef struct fr_update:
        int rule
        double numbers[FR_MAX_NUMBERS]
        ptrdiff_t pieces
        const fr_row *rows
        double *sums
    enum: FR_F32, FR_F64, FR_BF16
    const char *fr_isa_name(int index)
    const fr_kernels *fr_kernels_of(int index, int table)
    int fr_ask_for_amx()

cdef extern from "_xla/calls.h" nogil:
    void fr_xla_start(fr_pool *pool, const fr_kernels *(*kernels)(int table) noexcept nogil, int (*threads)() noexcept nogil)
    void *fr_xla_forward(void *frame)
    void *fr_xla_backward(void *frame)


cdef fr_pool pool
cdef fr_pool borrowed_pool  # of what teams of another library's threads have brought: see _tensors.pxi
cdef fr_shared isa  # index of the instruction set in use
cdef fr_shared threads  # how many a call may use that is not told a number of its own
cdef fr_shared gemm  # what makes the large products
cdef fr_shared amx  # may this process use AMX's tiles?

cdef enum:
    AMX_NOT_ASKED
    AMX_GIVEN
    AMX_REFUSED

cdef enum:
    GEMM_UNSET  # the kernels, but for the scalar instruction set
    GEMM_OWN
    GEMM_BLAS


def after_fork():
    """A forked child has none of its parent's threads: nobody runs the pool, and a list of blocks that one of them was at is lost."""
    global blocks, free_bytes
    fr_pool_after_fork(&pool)
    give_back_threads()
    if fr_guard_taken(&list_guard):
        blocks = free_bytes = 0
        fr_guard_leave(&list_guard)
    forget_after_fork()


def always_form_teams(bint always):
    """Also where teams have lately been slower than one thread: for tests."""
    pool.always = borrowed_pool.always = always


def isas():
    """Names of the instruction sets of this processor, best last."""
    names = []
    while fr_isa_name(<int>len(names)) != NULL:
        names.append(fr_isa_name(<int>len(names)).decode())
    return names


def use_isa(int index):
    """Take this one for the calls that follow."""
    fr_shared_set(&isa, index)


def isa_in_use(str precision="float32"):
    """The name of the one that computes products of this precision; "amx" where the process has not asked for its tiles yet."""
    cdef int index = fr_shared_get(&isa)
    if precision != "bf16":
        return fr_isa_name(index).decode()
    return (fr_kernels_of(index, FR_BF16) if fr_shared_get(&amx) == AMX_NOT_ASKED else kernels_now(FR_BF16)).isa.decode()


def amx_answer():
    """What the system said when the process asked for AMX's tiles: "given", "refused", or "" where it has not asked yet."""
    return ("", "given", "refused")[fr_shared_get(&amx)]


def use_threads(int n):
    """At most so many in the calls that follow."""
    fr_shared_set(&threads, n)


def threads_in_use():
    return fr_shared_get(&threads)


def use_gemm(int engine):
    """For the large products of the calls that follow: 1 the kernels, 2 NumPy's BLAS, 0 what suits the instruction set."""
    fr_shared_set(&gemm, engine)


def gemm_in_use():
    return fr_shared_get(&gemm)


cdef const fr_kernels *kernels_now(int table) noexcept nogil:
    """Those of the instruction set in use. Whatever runs kernels that no packed weights are tied to asks here. For AMX's tiles the process
    asks the system, once, when they are first needed; where it refuses, the kernels of the instruction set below give the same bits."""
    cdef int index = fr_shared_get(&isa)
    cdef const fr_kernels *kernels = fr_kernels_of(index, table)
    if kernels.tiles:
        if fr_shared_get(&amx) == AMX_NOT_ASKED:
            fr_shared_set(&amx, AMX_GIVEN if fr_ask_for_amx() else AMX_REFUSED)
        if fr_shared_get(&amx) == AMX_REFUSED:
            return fr_kernels_of(index - 1, table)
    return kernels


cdef int threads_now() noexcept nogil:
    return fr_shared_get(&threads)


def xla_targets():
    """What XLA calls for the forward and the backward pass of a layer, as the capsules that jax.ffi takes."""
    fr_xla_start(&pool, kernels_now, threads_now)
    cdef const char *name = "xla._CUSTOM_CALL_TARGET"
    return PyCapsule_New(<void *>fr_xla_forward, name, NULL), PyCapsule_New(<void *>fr_xla_backward, name, NULL)


def lanes(bint double):
    """Elements in a vector of the instruction set in use."""
    return kernels_now(FR_F64 if double else FR_F32).lanes


cdef class InUse:
    """One user at a time of an object with a state: whoever comes second gets an error.

    >>> with self._in_use:
    ...     change()
    """
    cdef fr_guard guard
    cdef str thing, advice

    def __init__(self, str thing, str advice):
        """For the message: what is in use, and what to do."""
        self.thing, self.advice = thing, advice

    def __reduce__(self):
        return InUse, (self.thing, self.advice)  # nobody uses a copy

    cdef int refuse(self) except -1:
        raise RuntimeError(f"{self.thing}: in use by another thread, or by a call of this one that has not ended; {self.advice}")

    def __enter__(self):
        if not fr_guard_take(&self.guard):
            self.refuse()

    def __exit__(self, kind, error, trace):
        fr_guard_leave(&self.guard)


cdef inline void *data(object array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline void set_seq(fr_seq *seq, object array):
    """(T, B, n) with any strides over T and B."""
    if array is None:
        seq.p = NULL
        return
    cdef cnp.ndarray a = <cnp.ndarray>array
    cdef ptrdiff_t size = cnp.PyArray_ITEMSIZE(a)
    seq.p = cnp.PyArray_DATA(a)
    seq.st = cnp.PyArray_STRIDE(a, 0) // size
    seq.sb = cnp.PyArray_STRIDE(a, 1) // size


def add_rows(cnp.ndarray to, cnp.ndarray index, cnp.ndarray rows):
    """to[index[i]] += rows[i] for one i after the other: to (n, D), rows (..., D) and index (...) in C order, index within n."""
    cdef ptrdiff_t D = cnp.PyArray_DIM(to, 1), count = cnp.PyArray_SIZE(index)
    cdef const cnp.npy_intp *at = <const cnp.npy_intp *>cnp.PyArray_DATA(index)
    if cnp.PyArray_TYPE(to) == cnp.NPY_DOUBLE:
        with nogil:
            add_each_row(<double *>cnp.PyArray_DATA(to), at, <const double *>cnp.PyArray_DATA(rows), count, D)
    else:
        with nogil:
            add_each_row(<float *>cnp.PyArray_DATA(to), at, <const float *>cnp.PyArray_DATA(rows), count, D)


cdef void add_each_row(floating *to, const cnp.npy_intp *at, const floating *rows, ptrdiff_t count, ptrdiff_t D) noexcept nogil:
    cdef ptrdiff_t i, j
    cdef floating *row
    for i in range(count):
        row = to + at[i] * D
        for j in range(D):
            row[j] += rows[i * D + j]


# The free list: large blocks that were given back are kept for the next call of the same size, since fresh pages from the system
# cost a training step as much as 8 % of its time. At most so many bytes; small blocks are malloc's.
cdef enum:
    MAX_FREE_BLOCKS = 16
    SMALL = 1 << 16
    MAX_FREE_BYTES = 1 << 26

cdef struct Block:
    void *p
    ptrdiff_t size

cdef fr_guard list_guard  # of the three that follow; held for nanoseconds, with no call of the system
cdef Block free_list[MAX_FREE_BLOCKS]
cdef int blocks = 0
cdef ptrdiff_t free_bytes = 0


cdef void *drop(int i) noexcept:
    """Take the block out of the list; the order, oldest first, stays."""
    global blocks, free_bytes
    cdef void *p = free_list[i].p
    free_bytes -= free_list[i].size
    blocks -= 1
    while i < blocks:
        free_list[i] = free_list[i + 1]
        i += 1
    return p


cdef void *find(ptrdiff_t size) noexcept:
    """A free block of this size, or NULL."""
    cdef void *p = NULL
    cdef int i
    fr_guard_wait(&list_guard)
    for i in range(blocks - 1, -1, -1):
        if free_list[i].size == size:
            p = drop(i)
            break
    fr_guard_leave(&list_guard)
    return p


cdef bint free_oldest(ptrdiff_t room) noexcept:
    """If so many more bytes find no place in the list, give its oldest block back to the system: was there one to give?"""
    cdef void *p = NULL
    fr_guard_wait(&list_guard)
    if blocks and (blocks == MAX_FREE_BLOCKS or free_bytes + room > MAX_FREE_BYTES):
        p = drop(0)
    fr_guard_leave(&list_guard)
    PyMem_RawFree(p)
    return p != NULL


cdef bint keep_free(void *p, ptrdiff_t size) noexcept:
    """Put the block into the list, if there is a place."""
    global blocks, free_bytes
    cdef bint fits
    fr_guard_wait(&list_guard)
    fits = blocks < MAX_FREE_BLOCKS and free_bytes + size <= MAX_FREE_BYTES
    if fits:
        free_list[blocks].p = p
        free_list[blocks].size = size
        blocks += 1
        free_bytes += size
    fr_guard_leave(&list_guard)
    return fits


def empty_free_list():
    """Give the free blocks back to the system."""
    while free_oldest(MAX_FREE_BYTES):
        pass


cdef void *take(ptrdiff_t size) noexcept:
    cdef void *p = find(size)
    if p != NULL:
        return p
    p = PyMem_RawMalloc(size)
    if p == NULL:
        empty_free_list()
        p = PyMem_RawMalloc(size)
    if p != NULL:
        fr_ask_large_pages(p, size)
    return p


cdef void give_back(void *p, ptrdiff_t size) noexcept:
    if p == NULL or size < SMALL or size > MAX_FREE_BYTES:
        PyMem_RawFree(p)
        return
    while not keep_free(p, size):
        free_oldest(size)


cdef class Memory:
    """Scratch memory on a cache line, or on a large page if it fills one."""
    cdef void *block
    cdef void *start
    cdef ptrdiff_t size

    def __cinit__(self, ptrdiff_t size):
        cdef ptrdiff_t grain = FR_LARGE_PAGE if size >= FR_LARGE_PAGE else 64
        self.size = size + grain
        self.block = take(self.size)
        if self.block == NULL:
            raise MemoryError(f"cannot allocate {size} bytes of work space")
        self.start = <void *>((<uintptr_t>self.block + grain - 1) & ~<uintptr_t>(grain - 1))

    def __dealloc__(self):
        give_back(self.block, self.size)


def new_saved(tuple shape, bint double):
    """An uninitialised array (T, B, n) in memory of this kind. Its size in bytes fits."""
    cdef cnp.npy_intp sizes[3]
    cdef int i
    cdef ptrdiff_t size = 8 if double else 4
    for i in range(3):
        sizes[i] = shape[i]
        size *= sizes[i]
    cdef Memory memory = Memory(size)
    cdef cnp.ndarray a = cnp.PyArray_SimpleNewFromData(3, sizes, cnp.NPY_DOUBLE if double else cnp.NPY_FLOAT, memory.start)
    cnp.set_array_base(a, memory)
    return a


cdef int set_cell(fr_call *t, object cell) except -1:
    """A Cell of fastrnn._engine.cells: its number, and activations in place of its own."""
    cdef int k = 0
    t.cell = cell
    for kind, alpha, beta in cell.kernel_activations:
        t.activation[k].kind, t.activation[k].alpha, t.activation[k].beta = kind, alpha, beta
        k += 1
    return 0


cdef void set_weights(fr_weights *to, object w):
    """The pointers of weights, or of their gradients."""
    to.w_ih = data(w.w_ih)
    to.w_hh = data(w.w_hh)
    to.w_hr = data(w.w_hr)
    to.b_ih = data(w.b_ih)
    to.b_hh = data(w.b_hh)
    to.peephole = data(w.peephole)


cdef double take_weights(fr_call *t, object w):
    """w_ih (G*H, I), w_hh (G*H, P) and what else the weights have. Returns the number of all: multiply-adds per row and step."""
    t.I = cnp.PyArray_DIM(<cnp.ndarray>w.w_ih, 1)
    t.P = t.H = cnp.PyArray_DIM(<cnp.ndarray>w.w_hh, 1)
    if w.w_hr is not None:
        t.H = cnp.PyArray_DIM(<cnp.ndarray>w.w_hr, 1)
    set_weights(&t.w, w)
    cdef double weights = <double>cnp.PyArray_SIZE(<cnp.ndarray>w.w_ih) + <double>cnp.PyArray_SIZE(<cnp.ndarray>w.w_hh)
    return weights if w.w_hr is None else weights + <double>cnp.PyArray_SIZE(<cnp.ndarray>w.w_hr)


cdef int table_of(int type_number, object precision) except -2:
    """The table of kernels for arrays of this type and products of this precision; -1: there is none."""
    if type(precision) is not str:
        return -1
    if precision == "float32":
        return FR_F64 if type_number == cnp.NPY_DOUBLE else FR_F32
    return FR_BF16 if precision == "bf16" and type_number == cnp.NPY_FLOAT else -1


cdef int table_of_weights(object w) except -1:
    cdef int table = table_of(cnp.PyArray_TYPE(<cnp.ndarray>w.w_ih), w.precision)
    if table < 0:
        raise ValueError(f"precision: there is no {w.precision!r} of {w.w_ih.dtype}")
    return table


cdef class PackedWeights:
    """Weights in the order in which the kernels of an instruction set and a precision read them: packed once, never changed."""
    cdef Memory memory
    cdef const fr_kernels *kernels  # those that can read them

    def __init__(self, cell, w):
        self.kernels = kernels_now(table_of_weights(w))
        cdef fr_call t
        memset(&t, 0, sizeof(t))
        set_cell(&t, cell)
        take_weights(&t, w)
        t.plan.B = t.schedule.chunk = 1
        self.memory = pack(&t, self.kernels)

    def __reduce__(self):
        raise TypeError("packed weights are of their process; pickle the weights")


cdef Memory pack(fr_call *t, const fr_kernels *kernels):
    """The packed weights of a forward call, in memory that is theirs."""
    cdef fr_sizes sizes
    cdef fr_team alone
    kernels.forward_sizes(t, 1, &sizes)
    cdef Memory packed = Memory(sizes.packed_bytes), work = Memory(sizes.work_bytes)
    t.memory.packed, t.memory.work = packed.start, work.start
    t.memory.packed_ready = t.range.s0 = t.range.s1 = 0  # no steps: it packs
    memset(&alone, 0, sizeof(alone))
    alone.n = 1
    kernels.forward(t, 0, &alone)
    t.memory.packed_ready = True
    return packed


# Handing the GIL over and back takes microseconds beside a busy Python thread, and whoever wants it back waits for up to
# sys.getswitchinterval(): a call that is about as short keeps it.
cdef enum:
    SHORT = 200000  # multiply-adds of about 20 us
    PACKING = 8  # multiply-adds that take as long as packing one weight


cdef inline bint is_short(int threads, double items, bint packed, double weights) noexcept:
    """Of a call that passes each of so many weights for each of these items, on so many threads."""
    return threads == 1 and (items + (0 if packed else PACKING)) * weights < SHORT


cdef class Task:
    """One layer in one direction over one batch: what forward was given, for it and for its backward."""
    cdef fr_call t
    cdef const fr_kernels *kernels
    cdef fr_sizes sizes
    cdef int threads
    cdef long long patience_ns
    cdef double weights
    cdef fr_work *kernel  # what run() does
    cdef int kind  # of it, for the pool's experience: 0 forward, 1 backward; 2 and 3 where units are shared
    cdef object inputs, outputs, gradients  # keep the arrays alive
    cdef Memory packed, work
    cdef PackedWeights frozen  # or None

    def __init__(self, cell, plan, x, w, h0, c0):
        self.inputs = (plan, x, w, h0, c0)
        self.frozen = w.packed
        self.kernels = kernels_now(table_of_weights(w)) if self.frozen is None else self.frozen.kernels
        cdef fr_call *t = &self.t
        set_cell(t, cell)
        t.plan.T = plan.steps
        t.plan.B = plan.B
        t.plan.reverse = plan.reverse
        t.plan.first = <const ptrdiff_t *>data(plan.first)
        t.plan.row = <const ptrdiff_t *>data(plan.row)
        t.plan.time = <const ptrdiff_t *>data(plan.time)
        t.plan.prev = <const ptrdiff_t *>data(plan.prev)
        t.plan.rank = <const ptrdiff_t *>data(plan.rank)
        self.weights = take_weights(t, w)
        if isinstance(x, cnp.ndarray):
            set_seq(&t.x, x)
        else:
            t.tokens = <const ptrdiff_t *>data(x.index)
            self.weights -= <double>cnp.PyArray_SIZE(<cnp.ndarray>w.w_ih)
        t.h0 = data(h0)
        t.c0 = data(c0)

    def __reduce__(self):
        raise TypeError("a tape is of its call and its process: it cannot be copied or pickled")

    cdef void follow(self, how):
        """The schedule of the call."""
        cdef fr_schedule *s = &self.t.schedule
        self.threads, s.split_units, s.input_first, s.chunk, self.patience_ns, s.row_blocks, s.direct = how

    cdef reserve(self):
        """Memory of the sizes that the call needs."""
        self.packed = Memory(self.sizes.packed_bytes) if self.frozen is None else self.frozen.memory
        self.work = Memory(self.sizes.work_bytes)
        self.t.memory.packed = self.packed.start
        self.t.memory.work = self.work.start

    def keep(self, y, c, gates, segment=None):
        """Where the forward writes, and the backward reads. c without gates, (B, H), is updated in place. With the first step of a
        segment, c and gates are those of its steps alone, and forward makes them from y."""
        self.outputs = (y, c, gates)
        cdef fr_call *t = &self.t
        set_seq(&t.y, y)
        if c is not None and gates is None:
            t.saved.c.p = t.c0 = data(c)
            t.saved.c.st = 0
            t.saved.c.sb = t.H
        else:
            set_seq(&t.saved.c, c)
        set_seq(&t.saved.gates, gates)
        t.saved.recompute = segment is not None
        t.saved.first_step = segment or 0

    def prepare_forward(self, how):
        cdef fr_call *t = &self.t
        self.follow(how)
        t.memory.packed_ready = self.frozen is not None
        t.schedule.direct = t.schedule.direct and self.frozen is None
        self.kernels.forward_sizes(t, self.threads, &self.sizes)
        self.reserve()

    def sum_steps(self):
        """A backward in pieces has the bits of a whole one where it is cut at multiples of so many steps."""
        return self.sizes.sum_steps

    def input_width(self):
        """Columns of the input products."""
        return self.sizes.xw_width

    def input_matrix(self, matrix, bias):
        """Fill in w_ih (I, width) and the bias (width,) in the order of the input products."""
        self.kernels.input_matrix(&self.t, data(matrix), data(bias))

    def token_table(self, table):
        """Fill in the input products of all tokens, (I, width), and a row of scratch."""
        self.kernels.token_table(&self.t, data(table))

    def forward(self, ptrdiff_t s0, ptrdiff_t s1, pre):
        """Next: the steps s0 to s1, from their input products if those are given, (items, width); of tokens from their table."""
        self.kernel = self.kernels.forward
        self.kind = 2 * self.t.schedule.split_units
        self.t.range.s0 = s0
        self.t.range.s1 = s1
        self.t.xw = data(pre)
        return self

    def release(self):
        """Give back what only the forward needed."""
        self.packed = None
        self.work = None

    def prepare_backward(self, dy, dcs, dh, dc, dx, dw, ptrdiff_t truncate, how):
        """dw: the weights' gradients, in the form of the weights."""
        self.gradients = (dy, dcs, dh, dc, dx, dw)
        cdef fr_call *t = &self.t
        set_seq(&t.d.dy, dy)
        set_seq(&t.d.dcs, dcs)
        t.d.truncate = truncate
        set_seq(&t.d.dx, dx)
        t.d.dh = data(dh)
        t.d.dc = data(dc)
        set_weights(&t.d.dw, dw)
        t.xw = NULL
        self.follow(how)
        self.kernels.backward_sizes(t, self.threads, &self.sizes)
        self.reserve()

    def dgates_layout(self):
        """Columns of dgates, and the column at which the x part begins."""
        return self.sizes.dgates_width, self.sizes.dgates_x

    def backward(self, ptrdiff_t s0, ptrdiff_t s1, bint first, bint last, dgates):
        """Next: the steps s1-1 down to s0. With dgates (items, columns) given, the products are left to the caller."""
        self.kernel = self.kernels.backward
        self.kind = 2 * self.t.schedule.split_units + 1
        self.t.range.s0 = s0
        self.t.range.s1 = s1
        self.t.range.first = first
        self.t.range.last = last
        self.t.d.dgates = data(dgates)
        return self

    cdef bint is_short(self):
        cdef double items = <double>(self.t.range.s1 - self.t.range.s0) * self.t.plan.B
        items *= 2 if self.kernel == self.kernels.backward else 1
        return is_short(self.threads, items, self.t.memory.packed_ready, self.weights)

    def run(self):
        """Do what was said to be next."""
        cdef fr_team alone
        if self.is_short():
            memset(&alone, 0, sizeof(alone))
            alone.n = 1
            self.kernel(&self.t, 0, &alone)
        else:
            with nogil:
                fr_pool_run(&pool, self.threads, self.kind, self.patience_ns, self.kernel, &self.t)
        self.t.memory.packed_ready = True


include "_plain.pxi"
include "_unrolled.pxi"
include "_tensors.pxi"


cdef enum:
    MAX_TOGETHER = 2  # the directions of a layer


cdef struct Job:
    fr_work *kernel
    const fr_call *t


cdef void do_job(const void *job, int member, fr_team *team) noexcept nogil:
    (<const Job *>job).kernel((<const Job *>job).t, member, team)


def run_together(tasks):
    """What is next in each of at most so many tasks, which are for one thread each, side by side."""
    cdef Job jobs[MAX_TOGETHER]
    cdef const void *each[MAX_TOGETHER]
    cdef int n = <int>len(tasks), i
    cdef Task task
    for i in range(n):
        task = tasks[i]
        jobs[i].kernel, jobs[i].t = task.kernel, &task.t
        each[i] = &jobs[i]
    cdef long long patience_ns = n * task.patience_ns
    with nogil:
        fr_pool_run_each(&pool, n, task.kind, patience_ns, do_job, each, n)
    for task in tasks:
        task.t.memory.packed_ready = True


cdef list FUNCTIONS = ["exp", "tanh", "sigmoid", "softplus", "softsign", "expm1"]


def vmath(str function, cnp.ndarray x, str isa=None):
    """exp, tanh, sigmoid, softplus, softsign or, of numbers up to 0, expm1 of a contiguous float32 or float64 array, by the kernels' own arithmetic."""
    cdef int f = FUNCTIONS.index(function)
    cdef const fr_kernels *kernels = fr_kernels_of(
        isas().index(isa or isa_in_use()), FR_F64 if cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE else FR_F32)
    cdef cnp.ndarray y = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    cdef ptrdiff_t n = cnp.PyArray_SIZE(x)
    cdef void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(y)
    with nogil:
        kernels.vmath(f, n, source, target)
    return y


cdef class Stepper:
    """The state of a stream and its packed weights. The call is here, because a step costs less than a call of Python; what does not
    go the straight way goes to the subclass's _checked_x and _refuse_out, and to _from_below for what the layers below make of x, if
    there are any."""
    cdef fr_call t
    cdef const fr_kernels *kernels
    cdef fr_team alone
    cdef int type_number
    cdef double step_work  # multiply-adds
    cdef Memory packed, work
    cdef bint stacked  # are there layers below?
    cdef readonly InUse _in_use
    cdef readonly object h, c  # (B, P), (B, H): live
    cdef object weights, peephole

    def __cinit__(self, *arguments, **keywords):
        self._in_use = InUse("stream", "make a stream for each thread")
        fr_guard_take(&self._in_use.guard)  # nobody may call it before it is made

    def __init__(self, cell, w, h, c, ptrdiff_t chunk, bint stacked=False):
        if self.packed is not None:
            raise RuntimeError("stream: expected one that is new, got one that is made already")
        self.kernels = kernels_now(table_of_weights(w)) if w.packed is None else (<PackedWeights>w.packed).kernels
        self.type_number = cnp.PyArray_TYPE(<cnp.ndarray>h)
        self.h, self.c = h, c
        self.alone.n = 1
        cdef fr_call *t = &self.t
        set_cell(t, cell)
        t.plan.T = 1 << 20  # for the sizes: no fewer steps than any chunk has
        t.plan.B = cnp.PyArray_DIM(<cnp.ndarray>h, 0)
        self.weights = w
        self.step_work = t.plan.B * take_weights(t, w)
        t.h0 = data(h)
        t.c0 = t.saved.c.p = data(c)
        t.saved.c.sb = t.H
        t.schedule.chunk = chunk
        t.schedule.input_first = True
        cdef fr_sizes sizes
        self.kernels.forward_sizes(t, 1, &sizes)
        self.work = Memory(sizes.work_bytes)
        self._take(*self._pack())
        self.stacked = stacked
        fr_guard_leave(&self._in_use.guard)

    def _pack(self):
        """The weights of now, packed, and the peepholes: for _take."""
        cdef fr_call t = self.t
        cdef PackedWeights frozen = self.weights.packed
        set_weights(&t.w, self.weights)
        packed = pack(&t, self.kernels) if frozen is None else frozen.memory
        return packed, None if self.weights.peephole is None else self.weights.peephole.copy()

    def _take(self, Memory packed not None, peephole):
        """From here on nothing else of the weights is read."""
        cdef fr_call *t = &self.t
        self.packed, self.peephole = packed, peephole
        t.memory.packed, t.memory.work, t.memory.packed_ready = packed.start, self.work.start, True
        t.w.w_ih = t.w.w_hh = t.w.w_hr = t.w.b_ih = t.w.b_hh = NULL
        t.w.peephole = data(peephole)

    def __call__(self, x, out=None):
        if not fr_guard_take(&self._in_use.guard):
            self._in_use.refuse()
        try:
            return self.step(self._from_below(x, out) if self.stacked else x, out)
        finally:
            fr_guard_leave(&self._in_use.guard)

    cdef object step(self, x, out):
        if type(x) is not cnp.ndarray or not self.straight(<cnp.ndarray>x, self.t.I):
            x = self._checked_x(x)
        cdef cnp.ndarray source = <cnp.ndarray>x
        cdef int ndim = cnp.PyArray_NDIM(source)
        cdef cnp.npy_intp shape[3]
        cdef int i
        for i in range(ndim):
            shape[i] = cnp.PyArray_DIM(source, i)
        shape[ndim - 1] = self.t.P
        if out is None:
            out = cnp.PyArray_EMPTY(ndim, shape, self.type_number, 0)
        else:
            self._check_out(out, x, source, shape)
        cdef ptrdiff_t steps = shape[0] if ndim == 3 else 1
        cdef void *target = cnp.PyArray_DATA(<cnp.ndarray>out)
        cdef void *start = cnp.PyArray_DATA(source)
        if steps:
            self.run(start, target, steps, cnp.PyArray_ITEMSIZE(source))
        return out

    cdef inline bint straight(self, cnp.ndarray a, ptrdiff_t last):
        """Is this (last,), (B, last) or (n, B, last), of the dtype, in C order?"""
        cdef int ndim = cnp.PyArray_NDIM(a)
        if cnp.PyArray_TYPE(a) != self.type_number or not cnp.PyArray_ISCARRAY_RO(a) or ndim < 1 or ndim > 3:
            return False
        if cnp.PyArray_DIM(a, ndim - 1) != last:
            return False
        return self.t.plan.B == (1 if ndim == 1 else cnp.PyArray_DIM(a, ndim - 2))

    cdef int _check_out(self, out, x, cnp.ndarray source, cnp.npy_intp *shape) except -1:
        cdef int ndim = cnp.PyArray_NDIM(source)
        cdef bint fits = type(out) is cnp.ndarray and self.straight(<cnp.ndarray>out, self.t.P)
        cdef char *a
        cdef char *b
        if fits:
            fits = cnp.PyArray_NDIM(<cnp.ndarray>out) == ndim and cnp.PyArray_DIM(<cnp.ndarray>out, 0) == shape[0]
        if fits:
            a = <char *>cnp.PyArray_DATA(source)
            b = <char *>cnp.PyArray_DATA(<cnp.ndarray>out)
            fits = cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) and (
                a + cnp.PyArray_NBYTES(source) <= b or b + cnp.PyArray_NBYTES(<cnp.ndarray>out) <= a)
        if not fits:
            self._refuse_out(out, x)
        return 0

    cdef void run(self, void *x, void *y, ptrdiff_t steps, ptrdiff_t size):
        cdef fr_call *t = &self.t
        cdef ptrdiff_t B = t.plan.B
        t.plan.T = t.range.s1 = steps
        t.schedule.input_first = steps > 1 and B <= 4
        t.x.p = x
        t.x.sb = t.I
        t.x.st = B * t.I
        t.y.p = y
        t.y.sb = t.P
        t.y.st = B * t.P
        if steps * self.step_work < SHORT:
            self.advance(y, steps, size)
        else:
            with nogil:
                self.advance(y, steps, size)

    cdef inline void advance(self, void *y, ptrdiff_t steps, ptrdiff_t size) noexcept nogil:
        cdef ptrdiff_t bytes = self.t.plan.B * self.t.P * size
        self.kernels.forward(&self.t, 0, &self.alone)
        memcpy(<void *>self.t.h0, <char *>y + (steps - 1) * bytes, bytes)


# --- training: rules for each number of many arrays ------------------------------------------------------------------

cdef enum:
    ELEMENTWISE = 4  # for the pool's experience: see Task.kind


cdef inline bint is_real(object array):
    """Is this an array of NumPy's, float32 or float64 in this machine's byte order?"""
    return isinstance(array, cnp.ndarray) and cnp.PyArray_TYPE(<cnp.ndarray>array) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) and (
        cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array))


def alike(arrays, like):
    """Is this a list or a tuple of as many float32 or float64 arrays as the other one has, of the same shapes and dtypes?"""
    if not isinstance(arrays, (list, tuple)) or len(arrays) != len(like):
        return False
    for a, b in zip(arrays, like):
        if not is_real(a) or not is_real(b) or cnp.PyArray_TYPE(<cnp.ndarray>a) != cnp.PyArray_TYPE(<cnp.ndarray>b):
            return False
        if not cnp.PyArray_SAMESHAPE(<cnp.ndarray>a, <cnp.ndarray>b):
            return False
    return True


def apart(list arrays):
    """Are these contiguous, and none a part of another? False may also be said of those that interleave."""
    spans = []
    for a in arrays:
        if not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray?>a):
            return False
        start = <uintptr_t>cnp.PyArray_DATA(<cnp.ndarray>a)
        spans.append((start, start + cnp.PyArray_NBYTES(<cnp.ndarray>a)))
    spans.sort()
    return all([end <= start for (_, end), (start, _) in zip(spans, spans[1:])])


cdef class Rows:
    """The arrays of a call, row by row. Column k has the arrays k of all rows, or is None; the first columns change."""
    cdef fr_row *rows  # those of float32, then those of float64
    cdef fr_update[2] updates
    cdef Py_ssize_t n
    cdef Py_ssize_t[2] count
    cdef tuple columns  # keep the arrays alive, whatever becomes of the caller's lists

    def __cinit__(self, tuple changed, tuple read):
        self.columns = tuple([None if column is None else tuple(column) for column in changed + read])
        self.n = len(self.columns[0])
        self.rows = <fr_row *>PyMem_RawMalloc(2 * self.n * sizeof(fr_row))
        if self.rows == NULL:
            raise MemoryError(f"cannot allocate a table of {self.n} arrays")

    def __dealloc__(self):
        PyMem_RawFree(self.rows)

    cdef bint fill(self, Py_ssize_t changed):
        """Are the arrays what the kernels take: of one size and dtype in a row, contiguous, aligned, writable if they change?"""
        cdef Py_ssize_t k, column
        cdef int flags, double
        cdef fr_row *row
        cdef fr_update *update
        cdef cnp.ndarray a, first
        for arrays in self.columns:
            if arrays is not None and len(arrays) != self.n:
                return False
        for k in range(self.n):
            if not is_real(self.columns[0][k]):
                return False
            first = <cnp.ndarray>self.columns[0][k]
            double = cnp.PyArray_TYPE(first) == cnp.NPY_DOUBLE
            update = &self.updates[double]
            row = &self.rows[double * self.n + self.count[double]]
            self.count[double] += 1
            row.n = cnp.PyArray_SIZE(first)
            row.end = update.pieces = update.pieces + (row.n + FR_PIECE - 1) // FR_PIECE
            for column in range(FR_MAX_ARRAYS):
                row.a[column] = NULL
                if column >= len(self.columns) or self.columns[column] is None:
                    continue
                if not is_real(self.columns[column][k]):
                    return False
                a = <cnp.ndarray>self.columns[column][k]
                if not (cnp.PyArray_ISCARRAY(a) if column < changed else cnp.PyArray_ISCARRAY_RO(a)):
                    return False
                if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(first) or cnp.PyArray_SIZE(a) != row.n:
                    return False
                row.a[column] = cnp.PyArray_DATA(a)
        return True

    cdef run(self, int rule, tuple numbers, double *sums, how):
        """Those of float32, then those of float64."""
        cdef int double, k, threads = how.threads
        cdef long long patience_ns = how.patience
        cdef fr_update *u
        cdef fr_work *kernel
        if threads > 1 and not apart([a for column in self.columns for a in column or ()]):
            threads = 1
        for double in range(2):
            u = &self.updates[double]
            if u.pieces == 0:
                continue
            u.rule = rule
            for k in range(<int>len(numbers)):
                u.numbers[k] = numbers[k]
            u.rows = &self.rows[double * self.n]
            u.sums = sums
            kernel = kernels_now(FR_F64 if double else FR_F32).update
            if how.release:
                with nogil:
                    fr_pool_run(&pool, threads, ELEMENTWISE, patience_ns, kernel, u)
            else:
                fr_pool_run(&pool, 1, ELEMENTWISE, 0, kernel, u)
            if sums != NULL:
                sums += u.pieces


def update(int rule, tuple numbers, tuple changed, tuple read, how):
    """Do this to every number of these columns of arrays; False, and nothing done, if they are not what the kernels take."""
    cdef Rows rows = Rows(changed, read)
    if not rows.fill(len(changed)):
        return False
    rows.run(rule, numbers, NULL, how)
    return True


def sum_of_squares(arrays, how):
    """Of all numbers of all arrays, in float64; None if they are not what the kernels take."""
    cdef Rows rows = Rows((), (arrays,))
    if not rows.fill(0):
        return None
    cdef ptrdiff_t i, pieces = rows.updates[0].pieces + rows.updates[1].pieces
    cdef double *sums = <double *>PyMem_RawMalloc(pieces * sizeof(double))
    cdef double total = 0
    if sums == NULL:
        raise MemoryError(f"cannot allocate {pieces} sums")
    try:
        rows.run(FR_SQUARES, (), sums, how)
        for i in range(pieces):
            total += sums[i]
    finally:
        PyMem_RawFree(sums)
    return total
