"""Which runner a recipe's options name, and Beam's options for it.

Beam takes words that it does not know in silence, and its default runner downloads a binary: both are refused
here, in one line. Runners behind a job service (Flink, Spark, ...) have options that only the service knows.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from sid_pipelines.beam.spread import ByKey, OnDask
from sid_schemas import MissingExtraError, RecipeError
from sid_schemas.nearest import unknown

DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
KNOWN = ("FnApiRunner", "PortableRunner", "DaskRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")
SERVED = ("PortableRunner", "FlinkRunner", "SparkRunner")
DOWNLOADING = ("DirectRunner", "SwitchingDirectRunner", "PrismRunner")
# Beam would run `pip freeze` for every job, and send what it says.
QUICK = "--experiments=disable_logging_submission_environment"
WORKER = f"exec {shlex.quote(sys.executable)} -m sid_pipelines.beam.worker"
MODE = "--direct_running_mode"
PLACES = 2  # partitions for each thread of a Dask cluster: more level out the load, and cost their square ...
MANY = 16  # ... so that beyond these it is one for each thread


@dataclass(frozen=True)
class Runner:
    """A runner with its options. name: as in `KNOWN`, or a class's full name. flags: all but --runner."""

    name: str
    flags: tuple[str, ...]

    @property
    def on_dask(self) -> bool:
        """Say whether this is DaskRunner, which needs to be guarded."""
        return self.name == "DaskRunner"

    def spread(self) -> ByKey | OnDask:
        """Give how tasks find their places; asks the cluster for its size where it is Dask's."""
        if not self.on_dask:
            return ByKey()
        given = _value(self.flags, "--dask_npartitions")
        threads = 0 if given else self._threads()
        return OnDask(max(int(given), 1) if given else max(threads, min(PLACES * threads, MANY)))

    def options(self, spread: ByKey | OnDask) -> PipelineOptions:
        """Give Beam's options."""
        flags = list(self.flags)
        if isinstance(spread, OnDask):
            flags.append(f"--dask_npartitions={spread.places}")
        if self._starts_processes:
            flags = _without(flags, MODE)  # Beam's own would print their logs
        return PipelineOptions([f"--runner={DASK if self.on_dask else self.name}", QUICK, *flags])

    def made(self) -> PipelineRunner | None:
        """Give the runner where it is not for Beam to make: FnApiRunner with silent worker processes."""
        if not self._starts_processes:
            return None
        return FnApiRunner(SubprocessSDKEnvironment.from_command_string(WORKER))

    @property
    def _starts_processes(self) -> bool:
        return self.name == "FnApiRunner" and _value(self.flags, MODE) == "multi_processing"

    def _threads(self) -> int:
        from distributed import Client

        given = self.options(ByKey()).get_all_options()
        with Client(given["address"], scheduler_file=given["scheduler_file"], set_as_default=False) as client:
            threads: dict[str, int] = client.nthreads()
            return max(sum(threads.values()), 1)


def runner_of(text: str) -> Runner:
    """Give the runner that options name; without one, processes of this machine, one for each core.

    Raises RecipeError for options that cannot be, MissingExtraError where the runner is not installed.
    """
    try:
        flags = shlex.split(text)
    except ValueError as error:
        raise _refused(text, f"cannot be read ({error}); expected words as on a command line") from error
    chosen = _value(flags, "--runner")
    name = _known(chosen) if chosen else "FnApiRunner"
    if name == "DaskRunner":
        _load_dask()
    values, others = _parsed(text, flags)
    if others and name not in SERVED and "." not in name:
        raise _refused(text, unknown(others[0].partition("=")[0], _options()))
    if name == "PortableRunner" and not values["job_endpoint"]:
        raise _refused(text, "PortableRunner needs --job_endpoint=HOST:PORT of a job service, or embed")
    if name == "DaskRunner" and not (values["address"] or values["scheduler_file"]):
        raise _refused(text, "DaskRunner needs --dask_client_address=tcp://HOST:PORT of a running cluster")
    if name == "DaskRunner" and values["partition_size"]:
        raise _refused(text, "expected --dask_npartitions, not --dask_partition_size: elements are few")
    return Runner(name, (*_without(flags, "--runner"), *([] if chosen else _processes(flags))))


def _known(chosen: str) -> str:
    """Give the runner's name as Beam spells it; a class's full name is taken as it is."""
    short = chosen.rpartition(".")[2] if chosen.startswith("apache_beam.") else chosen
    if "." in short:
        return short
    for name in (*KNOWN, *DOWNLOADING):
        if short.lower() in (name.lower(), name.lower().removesuffix("runner")):
            break
    else:
        raise RecipeError(
            f"engine.options: no runner is called {chosen!r}; expected one of {', '.join(KNOWN)}, or the "
            "full name of a class"
        )
    if name in DOWNLOADING:
        raise RecipeError(
            f"engine.options: --runner={name} downloads a binary; leave --runner out for processes of this "
            f"machine, or take one of {', '.join(KNOWN)}"
        )
    return name


def _processes(flags: Sequence[str]) -> list[str]:
    """Give the flags by which FnApiRunner starts a worker process for each core, unless they are given."""
    cores = len(os.sched_getaffinity(0))
    defaults = {MODE: "multi_processing", "--direct_num_workers": str(cores)}
    return [f"{name}={value}" for name, value in defaults.items() if _value(flags, name) is None]


def _value(flags: Sequence[str], name: str) -> str | None:
    """Give what `--name=value` or `--name value` says last, or None."""
    found = None
    for flag, after in zip(flags, [*flags[1:], ""], strict=False):
        if flag == name:
            found = after
        elif flag.startswith(f"{name}="):
            found = flag.partition("=")[2]
    return found


def _without(flags: Sequence[str], name: str) -> list[str]:
    """Give the words without `--name=value` and `--name value`."""
    kept = [flag for flag in flags if not flag.startswith(f"{name}=")]
    while name in kept:
        place = kept.index(name)
        del kept[place : place + 2]
    return kept


def _parsed(text: str, flags: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Give every option's value, and the words that Beam does not know."""

    class Parser(_BeamArgumentParser):
        def error(self, message: str) -> NoReturn:  # argparse's would print and exit
            raise _refused(text, message)

    parser = Parser(allow_abbrev=False, add_help=False)
    _add_all(parser)
    values, others = parser.parse_known_args(list(flags))
    return vars(values), others


def _options() -> list[str]:
    parser = _BeamArgumentParser(allow_abbrev=False, add_help=False)
    _add_all(parser)
    return [name for action in parser._actions for name in action.option_strings]


def _add_all(parser: _BeamArgumentParser) -> None:
    """Add the options of all that Beam has loaded, as Beam does itself."""
    for section in {str(one): one for one in PipelineOptions.__subclasses__()}.values():
        section._add_argparse_args(parser)


def _load_dask() -> None:
    """Load DaskRunner, so that its options are known."""
    try:
        import distributed  # noqa: F401
        from apache_beam.runners.dask import dask_runner  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("DaskRunner (distributed)", "beam") from error


def _refused(text: str, why: str) -> RecipeError:
    return RecipeError(f"engine.options = {text!r}: {why}")
