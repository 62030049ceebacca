from kullback.kernels.recipe import Array

Summary = tuple[float, int, int, int, int]

def family(
    sigmoid: bool,
    operation: int,
    name: str,
    parameters: list[float],
    smoothing: float,
    inverse_temperature: float,
    class_weight: Array | None,
    positive_weight: Array | None,
    logits: Array,
    first: Array | None,
    second: Array | None,
    share: Array | None,
    rows: Array | None,
    row_weight: Array | None,
    ignore_index: int | None,
    scale: float,
    direction: Array | None,
    per_example: Array | None,
    out: Array | None,
    shift: Array | None = None,
    offset: Array | None = None,
    softcap: float = 0.0,
    z_loss: float = 0.0,
    divergence: bool = False,
    log_sum_exp: Array | None = None,
    prediction: Array | None = None,
    tally: Array | None = None,
) -> Summary: ...
def targets(
    sigmoid: bool,
    n: int,
    classes: int,
    class_weight: Array | None,
    first: Array | None,
    second: Array | None,
    share: Array | None,
    rows: Array | None,
    row_weight: Array | None,
    ignore_index: int | None,
    known: Array | None,
) -> Summary: ...
def probabilities(sigmoid: bool, logits: Array, inverse_temperature: float, logarithm: bool, out: Array) -> None: ...
def csr_product(
    indptr: Array,
    ends: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    base: int,
    by_row: Array | None,
    by_column: Array | None,
) -> int: ...
def csr_transposed(
    indptr: Array, ends: Array, indices: Array, data: Array, dense: Array, out: Array, base: int
) -> int: ...
def descent(
    block_start: Array,
    matrix_start: Array,
    block_of: Array,
    matrix: Array,
    left: Array,
    right: Array,
    group_start: Array,
    member: Array,
    threshold: Array,
    slope: Array,
    x: Array,
    moved: Array,
    tolerance: float,
    sweeps: int,
) -> int: ...

class LinearPass:
    def __init__(
        self,
        sigmoid: bool,
        name: str,
        parameters: list[float],
        smoothing: float,
        inverse_temperature: float,
        class_weight: Array | None,
        positive_weight: Array | None,
        shift: Array | None,
        offset: Array | None,
        softcap: float,
        z_loss: float,
        divergence: bool,
        matrix: Array,
        in_double: bool,
        ones: bool,
        centre: Array | None,
        inverse: Array | None,
        classes: int,
        first: Array | None,
        second: Array | None,
        share: Array | None,
        rows: Array | None,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None: ...
    def evaluate(self, weights: Array, sums: Array) -> Summary: ...
    def product(self, weights: Array, along: Array, sums: Array) -> Summary: ...

def elementary(which: int, x: Array, y: Array) -> None: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def use_openmp(parallel: int, most_threads: int) -> None: ...
def level() -> str: ...
def families(sigmoid: bool) -> list[str]: ...
