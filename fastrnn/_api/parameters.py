"""Named parameters in one vector, and what everything that owns some can do: save, load, copy, convert, show."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._engine.activations import Activation, ActivationLike
from .._engine.cells import Cell
from .._engine.weights import Weights
from . import checks
from . import model_parts as parts
from .pickling import Pickled, portable, rebuilt

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]
Self = TypeVar("Self", bound="Module")

# The arguments of the kernels, and what PyTorch calls them (peepholes are ours), in the order in which they stand in the vector.
NAMES = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "w_hr": "weight_hr",
    "peephole": "weight_ch",
}


class Parameters(Mapping[str, Array]):
    """Named arrays that are views of one contiguous vector, `flat`, in its order: a mapping, made by a layer or a cell.

    Assignment to a name writes into its view, so that names and vector are always the same numbers.

    Raises
    ------
    KeyError
        The name is none of the parameters'.
    TypeError, ValueError
        When an array of another dtype or shape is assigned.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> params = fastrnn.GRU(3, 4, rng=0).params
    >>> params["bias_ih_l0"] = np.zeros(12, np.float32)
    >>> params["weight_hh_l0"] *= 0.5
    >>> {name: array.shape for name, array in params.items()}
    {'weight_ih_l0': (12, 3), 'weight_hh_l0': (12, 4), 'bias_ih_l0': (12,), 'bias_hh_l0': (12,)}
    """

    def __init__(self, shapes: Shapes, flat: Array) -> None:
        self._flat, self._shapes = flat, shapes

    @cached_property
    def named(self) -> dict[str, Array]:
        """The arrays by name."""
        return self.views()

    @property
    def flat(self) -> Array:
        """All numbers in one vector, the same one at each access, so write into it."""
        return self._flat

    def views(self) -> dict[str, Array]:
        """The arrays by name, new ones at each call: for a caller who must be sure that nobody reshapes them in place.

        Returns
        -------
        arrays : dict of arrays
        """
        named, end = {}, 0
        for name, shape in self._shapes.items():
            start, end = end, end + math.prod(shape)
            named[name] = self.flat[start:end].reshape(shape)
        return named

    def __getitem__(self, name: str) -> Array:
        return self.named[name]

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self._shapes:
            raise KeyError(f"{name!r}: expected one of {list(self)}")
        if value is not self.named[name]:  # it is behind `params[name] -= step`
            self.named[name][...] = checks.shaped(name, value, self.flat.dtype, "its shape", self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.named)

    def __len__(self) -> int:
        return len(self.named)

    def __repr__(self) -> str:
        return repr(self.named)

    def __reduce__(self) -> Any:
        return rebuilt, (type(self), (self._shapes, portable(self.flat)), {})


def shapes_of(cell: Cell, I: int, H: int, P: int, bias: bool) -> Shapes:
    """The parameters of one cell, with outputs of P numbers: P < H is an LSTM with a projection."""
    rows = cell.gates * H
    shapes: Shapes = {"weight_ih": (rows, I), "weight_hh": (rows, P)}
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    if P < H:
        shapes["weight_hr"] = (P, H)
    if cell.form.peephole:
        shapes["weight_ch"] = (3, H)
    return shapes


class Module(Pickled):
    """What layers and cells share: parameters by name and as one vector."""

    _not_pickled = ("_of_cells", "_plain")

    dtype: np.dtype[Any]
    rng: np.random.Generator
    hidden_size: int
    _sizes = "input_size, hidden_size"  # the arguments that say how many parameters there are
    _precision = "float32"  # also of pickles that say nothing of it
    _parameters: Parameters
    _shapes: Shapes
    _suffixes: list[str]  # what follows the names of each cell's parameters
    _names: list[list[str]]  # those of each cell, in the order in which the kernels take them

    def _set_up(self, shapes: list[Shapes], suffixes: list[str], dtype: DTypeLike, rng: Any, precision: str = "float32") -> None:
        """Make and initialise the parameters: of each cell its shapes, with its suffix."""
        self.dtype = checks.float_dtype("dtype", dtype)
        self._precision = checks.precision(precision, self.dtype)
        self.rng = checks.generator("rng", rng)
        self._suffixes = suffixes
        self._names = [[NAMES[field] + suffix for field in Weights.NAMES] for suffix in suffixes]
        self._shapes = {name + suffix: shape for cell, suffix in zip(shapes, suffixes) for name, shape in cell.items()}
        try:
            self._parameters = self._zeros()
            self._initialise()
        except (MemoryError, ValueError, OverflowError) as error:  # ValueError, OverflowError: not even countable
            raise checks.out_of_memory(self._sizes, error) from None

    def _zeros(self) -> Parameters:
        """As the parameters, all 0."""
        return Parameters(self._shapes, np.zeros(sum(map(math.prod, self._shapes.values())), self.dtype))

    def _initialise(self) -> None:
        """PyTorch's: all from U(-1/sqrt(H), 1/sqrt(H))."""
        limit = 1 / math.sqrt(self.hidden_size)
        self.flat[:] = self.rng.uniform(-limit, limit, self.flat.shape)

    @property
    def params(self) -> Parameters:
        """The parameters by PyTorch's names.

        A mapping of names to arrays of the layer's dtype that may be written to; the next call sees it.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell = fastrnn.LSTMCell(3, 4, rng=0)
        >>> cell.params["bias_ih"][4:8] = 1  # the forget gate, as Gers et al. 2000
        >>> {name: array.shape for name, array in cell.params.items()}
        {'weight_ih': (16, 3), 'weight_hh': (16, 4), 'bias_ih': (16,), 'bias_hh': (16,)}
        """
        return self._parameters

    @property
    def flat(self) -> Array:
        """All parameters as one contiguous vector, for optimisers: the same numbers as those of `params`, in its order.

        Raises
        ------
        TypeError, ValueError
            When a vector of another dtype or length is assigned.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.RNN(3, 4, rng=0)
        >>> y, h_n, tape = layer.forward(np.ones((7, 2, 3), np.float32))
        >>> layer.flat -= 0.1 * tape.backward(y).flat
        >>> layer.flat.shape
        (36,)
        """
        return self._parameters.flat

    @flat.setter
    def flat(self, value: Array) -> None:
        if value is not self._parameters.flat:  # it is behind `layer.flat -= step`
            self._parameters.flat[:] = checks.shaped("flat", value, self.dtype, "its shape", self._parameters.flat.shape)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name, as torch's state_dict in NumPy.

        Returns
        -------
        parameters : dict of arrays

        Examples
        --------
        >>> import fastrnn
        >>> {name: array.shape for name, array in fastrnn.RNN(3, 4, bias=False, rng=0).state_dict().items()}
        {'weight_ih_l0': (4, 3), 'weight_hh_l0': (4, 4)}
        """
        return {name: array.copy() for name, array in self.params.items()}

    def load_state_dict(self, mapping: Mapping[str, Array]) -> None:
        """Copy the parameters from a mapping of names to arrays; all or none.

        Parameters
        ----------
        mapping : mapping of names to arrays
            Of the names and shapes of `params` and of the layer's dtype.

        Raises
        ------
        KeyError
            Names are missing or unexpected; the message has all of them, and all shapes that are wrong.
        ValueError
            Shapes alone are wrong; the message has all of them.
        TypeError
            A wrong dtype, or no mapping.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer, other = fastrnn.GRU(3, 4, rng=0), fastrnn.GRU(3, 4, rng=1)
        >>> layer.load_state_dict(other.state_dict())
        >>> np.array_equal(layer.flat, other.flat)
        True
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}")
        missing = [name for name in self.params if name not in mapping]
        unexpected = [name for name in mapping if name not in self.params]
        new = {  # copies, because the arrays may be views of these very parameters, in another order
            name: checks.floats(name, mapping[name], self.dtype).copy() for name in self.params if name not in missing
        }
        misshapen = "; ".join(
            f"{name}: expected its shape = {self.params[name].shape}, got {a.shape}"
            for name, a in new.items()
            if a.shape != self.params[name].shape
        )
        if missing or unexpected:
            text = f"mapping: expected the names of params, missing {missing}, unexpected {unexpected}"
            names = self._shapes.keys()
            more = parts.advice("mapping", mapping, lambda part: part.keys() == names, lambda part: not names.isdisjoint(part))
            raise KeyError(f"{text}; {misshapen}{more}" if misshapen else text + more)
        if misshapen:
            raise ValueError(misshapen)
        for name, array in new.items():
            self.params[name][...] = array

    def astype(self: Self, dtype: DTypeLike) -> Self:
        """A copy of another dtype: its parameters rounded, its generator a copy.

        Parameters
        ----------
        dtype : dtype
            float32 or float64.

        Returns
        -------
        copy : layer or cell
            Of the same class and arguments.

        Raises
        ------
        TypeError
            Another dtype; float64 for a layer or cell whose precision is "bf16".

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.GRU(3, 4, rng=0).astype("float64").flat.dtype
        dtype('float64')
        """
        new = copy.copy(self)
        new.dtype = checks.float_dtype("dtype", dtype)
        checks.precision(self._precision, new.dtype)
        new.rng = copy.deepcopy(self.rng)
        new._parameters = Parameters(self._shapes, self.flat.astype(new.dtype))
        return new

    def __repr__(self) -> str:
        """The constructor's arguments, as far as they are not its defaults."""
        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if not hasattr(self, name):  # a subclass's own
                continue
            value = getattr(self, name)
            if parameter.default is parameter.empty:
                shown.append(repr(value))
            elif name != "rng" and value != parameter.default:
                shown.append(f"{name}={value if name == 'dtype' else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _weights(self, precision: str | None = None) -> list[Weights]:
        """The parameters of each cell as the kernels take them. They are views, and made once; for another precision anew."""
        if precision is not None and checks.precision(precision, self.dtype) != self._precision:
            return self._by_cell(self._parameters.views(), precision)
        made = vars(self).get("_of_cells")
        if made is None:  # two threads may both make them: each of other views, and these are the same numbers
            made = self._of_cells = self._by_cell(self._parameters.views())
        return made

    def _by_cell(self, named: dict[str, Array], precision: str | None = None) -> list[Weights]:
        """precision: of products with them; None: that of this layer or cell."""
        precision = precision or self._precision
        return [Weights(*map(named.get, names), precision=precision) for names in self._names]  # type: ignore[arg-type]


def add_forget_bias(params: Parameters, H: int, value: float) -> None:
    """To the forget rows of an LSTM's bias_ih, in all layers and directions."""
    for name, array in params.items():
        if value and name.startswith("bias_ih"):
            array[H : 2 * H] += value


class RecurrentModule(Module):
    """What layers and cells share besides: their activations, and the precision of their products."""

    # also of pickles that say nothing of them; an RNN has its nonlinearity
    activation: ActivationLike = "tanh"
    recurrent_activation: ActivationLike = "sigmoid"

    def _take_activations(self, activation: Any, recurrent_activation: Any) -> tuple[Activation, Activation]:
        g, f = checks.activation("activation", activation), checks.activation("recurrent_activation", recurrent_activation)
        self.activation, self.recurrent_activation = g.given, f.given
        return g, f

    @property
    def precision(self) -> str:
        """The precision of products: "float32" or "bf16". It may be assigned, while no other thread is in a call.

        With "bf16" the operands of all products, forward and backward, are rounded to bfloat16 (to nearest, ties to even, with
        denormals as 0); sums, biases, activations, states, gradients and parameters stay float32. With "float32", which is the name
        for float64 too, products are of the numbers themselves. Tapes, frozen layers and cells, streams and unrolled steps keep the
        precision that they were made with.

        Raises
        ------
        ValueError
            Another name is assigned.
        TypeError
            "bf16" is assigned to what is float64.

        Examples
        --------
        >>> import fastrnn
        >>> layer = fastrnn.GRU(3, 4, rng=0)
        >>> layer.precision = "bf16"
        >>> layer
        GRU(3, 4, precision='bf16')
        """
        return self._precision

    @precision.setter
    def precision(self, value: str) -> None:
        self._precision = checks.precision(value, self.dtype)
        for name in self._not_pickled:  # what is made for the precision of before
            vars(self).pop(name, None)
