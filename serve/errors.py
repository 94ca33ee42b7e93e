"""Every error that edgetune raises on purpose. The command line turns them into a message in one place.

    EdgetuneError                 exit 1
    ├── MissingDependency         an extra is not installed
    ├── RecipeError               what the user asked for cannot be read          exit 2
    ├── DataError                 the labelled data cannot be used
    │   └── UndecidedColumns      two columns may be what is looked for            exit 2
    ├── ModelError                the base model cannot be used
    ├── MergeError                the merged model does not answer as the adapted one did
    ├── OutOfMemory               training wanted more memory than there is
    ├── ExportError               no graph could be made
    │   └── ParityError           the graph does not answer as the model did
    ├── CompressError             a scheme failed on a graph
    ├── GateError                 a gate or budget was not met                     exit 3
    ├── WorkError                 a folder or file cannot be read or written
    ├── BundleError               the folder is no bundle
    │   ├── BundleDamaged         it was one, but bytes are missing or changed
    │   └── BundleFormatError     it is one of a format that this release cannot read
    ├── ProviderError             the execution provider asked for does not run
    ├── RunError                  the graph or the tokenizer failed while it ran
    ├── InputError                what was given to predict cannot be answered
    │   └── PromptTooLong         it has more characters than the model reads
    ├── Overloaded                more is waiting for an answer than may wait
    └── Interrupted               the user stopped the work                        exit 130

Anything else that escapes is a bug and keeps its traceback.
"""


class EdgetuneError(Exception):
    """An error told as facts: what was found, what was expected, what to do, what that costs.

    Args:
        found: what is wrong, naming the file, column, tensor or node.
        expected: what would have been right.
        action: what the user can do now.
        cost: what that action costs, where it costs something.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", action: str = "", cost: str = "") -> None:
        self.found = found
        self.expected = expected
        self.action = action
        self.cost = cost
        lines = [
            found,
            f"Expected: {expected}" if expected else "",
            f"To do: {action}" if action else "",
            f"Cost: {cost}" if cost else "",
        ]
        super().__init__("\n".join(line for line in lines if line))


class MissingDependency(EdgetuneError):
    """A package of an extra is not installed."""


class RecipeError(EdgetuneError):
    """The recipe or the flags cannot be understood."""

    exit_code = 2


class DataError(EdgetuneError):
    """The labelled data cannot be read or cannot be learnt from."""


class UndecidedColumns(DataError):
    """Two columns of the data may be the one that is looked for, and the user has to name one."""

    exit_code = 2


class ModelError(EdgetuneError):
    """The base model cannot be opened or has no classifier."""


class MergeError(EdgetuneError):
    """The merged model does not give the logits that the adapted one gave."""


class OutOfMemory(EdgetuneError):
    """Training wanted more memory than there is."""


class ExportError(EdgetuneError):
    """No graph could be made of the model."""


class ParityError(ExportError):
    """The graph, or the saved tokenizer, does not give what the model gave."""


class CompressError(EdgetuneError):
    """A compression scheme failed on a graph."""


class GateError(EdgetuneError):
    """No candidate passed the gate, or a budget was not met: nothing was written."""

    exit_code = 3


class WorkError(EdgetuneError):
    """A folder or file cannot be read or written."""


class BundleError(EdgetuneError):
    """The folder is no bundle."""


class BundleDamaged(BundleError):
    """A file of the bundle is missing, or its bytes are not those that were packed."""


class BundleFormatError(BundleError):
    """The bundle has a format that this release does not read."""


class ProviderError(EdgetuneError):
    """The execution provider that was asked for does not run here."""


class RunError(EdgetuneError):
    """ONNX Runtime or a tokenizer failed in the middle: it cannot do what its inputs ask for, or memory ended."""


class InputError(EdgetuneError):
    """What was given to predict cannot be answered."""


class PromptTooLong(InputError):
    """A prompt has more characters than tokens of any length could stand for in the model's context."""


class Overloaded(EdgetuneError):
    """The queue of a predictor is full: asking again a little later may succeed."""


class Interrupted(EdgetuneError):
    """The user stopped the work; what is finished is kept."""

    exit_code = 130
