"""Options of runners: what cannot be is refused in one line; every stage's jobs are built for any runner."""

import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.portability.api import beam_runner_api_pb2 as api
from apache_beam.runners.portability.portable_runner import PortableRunner
from clusters import IN_MEMORY
from helpers import Run, run_chain, sidmill, small_dump
from sharding import assert_same, by_shards

from sid_flows.recipe import load_recipe
from sid_pipelines.beam import BeamEngine
from sid_pipelines.beam.pipeline import RunTasks, pipeline_of
from sid_pipelines.beam.runners import runner_of
from sid_pipelines.beam.spread import ByKey, OnDask
from sid_pipelines.sharded import SHARDED
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import Job
from sid_pipelines.stage import Resources
from sid_schemas import RecipeError, WarehouseError
from sidmill.app import overrides_of

DASK = "--runner=DaskRunner --dask_client_address=tcp://127.0.0.1:1"


def test_without_a_runner_every_core_has_a_process() -> None:
    flags = runner_of("").flags
    assert flags[0] == "--direct_running_mode=multi_processing"
    assert flags[1].startswith("--direct_num_workers=")
    assert runner_of("--direct_num_workers=7").flags.count("--direct_num_workers=7") == 1
    assert runner_of("--direct_num_workers 7").flags[:2] == ("--direct_num_workers", "7")
    assert runner_of("--runner=FnApiRunner").flags == ()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--runner=fnapi", "FnApiRunner"),
        ("--runner dask --dask_client_address=tcp://h:1", "DaskRunner"),
        ("--runner=apache_beam.runners.dask.dask_runner.DaskRunner --dask_scheduler_file=x", "DaskRunner"),
        ("--runner=PortableRunner --job_endpoint=embed --environment_type=LOOPBACK", "PortableRunner"),
        ("--runner=FlinkRunner --flink_master=h:8081 --parallelism=8", "FlinkRunner"),
        ("--runner=SparkRunner --spark_master_url=spark://h:7077", "SparkRunner"),
        ("--runner=DataflowRunner --project=p --region=r --temp_location=gs://b/t", "DataflowRunner"),
        ("--runner=our.own.Runner --anything=1", "our.own.Runner"),
    ],
)
def test_runners_are_known_by_their_names(options: str, name: str) -> None:
    assert runner_of(options).name == name


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            "--runner=DirectRunner",
            "--runner=DirectRunner downloads a binary; leave --runner out for",
        ),
        ("--runner=prism", "--runner=PrismRunner downloads a binary"),
        (
            "--runner=Flinkk",
            "no runner is called 'Flinkk'; expected one of FnApiRunner, PortableRunner,",
        ),
        (
            "--direct_num_worker=2",
            "unknown key '--direct_num_worker'; the nearest known one is '--direct_num",
        ),
        (
            f"{DASK} --dask_npartition=2",
            "unknown key '--dask_npartition'; the nearest known one is '--dask_n",
        ),
        ("direct_num_workers=2", "unknown key 'direct_num_workers'"),
        ("--direct_num_workers=two", "argument --direct_num_workers: invalid int value: 'two'"),
        ("--direct_running_mode=many", "invalid choice: 'many'"),
        ("--experiments='a", "cannot be read (No closing quotation)"),
        (
            "--runner=PortableRunner",
            "PortableRunner needs --job_endpoint=HOST:PORT of a job service, or embed",
        ),
        (f"{DASK} --dask_partition_size=1", "expected --dask_npartitions, not --dask_partition_size"),
        (
            "--runner=DaskRunner",
            "DaskRunner needs --dask_client_address=tcp://HOST:PORT of a running cluster",
        ),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    options: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError) as error:
        BeamEngine(options)
    assert told in str(error.value)
    assert str(error.value).startswith("engine.options")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_dask_has_two_partitions_for_each_thread_unless_told(dask_cluster: str) -> None:
    assert runner_of(dask_cluster).spread() == OnDask(4)
    assert runner_of(f"{DASK} --dask_npartitions=9").spread() == OnDask(9)
    assert "--dask_npartitions=9" in str(runner_of(DASK).options(OnDask(9))._flags)


def test_a_cluster_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    engine = BeamEngine(
        "--runner=PortableRunner --job_endpoint=localhost:1 --job_server_timeout=1", attempts=1
    )
    with pytest.raises(
        WarehouseError, match=r"empty: PortableRunner failed 1 times, with 0 tasks done; "
    ) as told:
        engine.run(Job("empty", (), ()), tmp_path, Resources())
    assert "\n" not in str(told.value)


class Portable(Inline):
    """Builds the pipeline of every job as Flink, Spark and Dataflow get it; then runs it in this process."""

    def __init__(self, options: str) -> None:
        super().__init__()
        self.runner, self.steps = runner_of(options), 0

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        options = self.runner.options(ByKey())
        pipeline = pipeline_of(job, scratch, resources, options=options, spread=ByKey())
        made = PortableRunner._create_environment(options.view_as(PortableOptions))
        proto = PortableRunner._optimize_pipeline(pipeline.to_runner_api(default_environment=made), options)
        found = {}
        for transform in proto.components.transforms.values():
            if transform.spec.urn == "beam:transform:pardo:v1":
                payload = api.ParDoPayload.FromString(transform.spec.payload)
                do_fn = pickler.loads(payload.do_fn.payload)[0]
                if isinstance(do_fn, RunTasks):
                    found[do_fn.step.name] = do_fn.step
                    assert len(payload.do_fn.payload) < 20_000, "params travel in the pipeline: use files"
        assert [found[step.name] for step in job.steps] == list(job.steps)  # as workers will have them
        self.steps += len(found)
        super().run(job, scratch, resources)


@pytest.mark.parametrize(
    "options",
    [
        "--runner=FlinkRunner --environment_type=DOCKER --environment_config=example.org/sidmill:1",
        '--runner=SparkRunner --environment_type=PROCESS --environment_config={"command":"/opt/boot"}',
    ],
)
def test_every_stages_jobs_can_be_built_for_flink_spark_and_dataflow(
    small: Run, tmp_path: Path, options: str
) -> None:
    engine = Portable(options.replace("{", "'{").replace("}", "}'"))
    for planned in small.plan.stages:
        if planned.stage.name in SHARDED:
            before = engine.steps
            sharded = by_shards(small, planned.label, tmp_path / planned.label, 3, engine=engine)
            assert engine.steps > before or planned.stage.name == "tokenize"
            assert_same(small.outputs[planned.label], sharded)


def test_without_beam_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['apache_beam'] = None\n"
        "from sid_schemas import MissingExtraError\n"
        "try: import sid_pipelines.beam\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "[engine] kind = 'beam' (apache_beam) needs an optional package. Run: pip install 'sidmill[beam]'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.replace("apache_beam", "distributed")], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")  # only DaskRunner needs it


@pytest.mark.e2e
def test_the_command_runs_on_beam_and_stays_quiet(small: Run, tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    done = sidmill(
        "run", str(recipe), "--until", "clean", "-w", str(tmp_path / "w"),
        "--engine", "beam", "--beam-options", IN_MEMORY,  # test_beam_faults.py has quiet processes
    )  # fmt: skip
    assert done.stderr == ""
    assert "stopped after clean" in done.stdout
    local = run_chain(recipe, tmp_path / "w", until="clean")  # takes what the cluster made
    assert local.outputs["clean"].manifest["engine"] == {"kind": "beam", "runner": "FnApiRunner", "shards": 0}
    assert_same(small.outputs["clean"], local.outputs["clean"])
    assert not list((tmp_path / "w/scratch").rglob("*.*"))


def test_the_command_refuses_options_that_cannot_be(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    more = ["-w", str(tmp_path / "w"), "--engine", "beam", "--beam-options", "--runner=DirectRunner"]
    done = sidmill("run", str(recipe), *more, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert "--runner=DirectRunner downloads a binary" in done.stderr
    assert not (tmp_path / "w/stages").exists()  # before anything ran


def test_options_of_the_command_are_keys_of_the_recipe(tmp_path: Path) -> None:
    recipe, options = small_dump(tmp_path), '--runner=X --experiments="a b" -c'
    engine = load_recipe(recipe, overrides_of(["engine.shards=3"], None, options)).engine
    assert (engine.kind, engine.options, engine.shards) == ("beam", options, 3)
    assert load_recipe(recipe, overrides_of(None, "beam", None)).engine.options == ""
    assert overrides_of(None, None, None) == ()
    with pytest.raises(RecipeError, match="--beam-options: expected with --engine beam, got --engine local"):
        overrides_of(None, "local", options)
    with pytest.raises(RecipeError, match=r"engine\.kind: Input should be 'local' or 'beam', got 'spark'"):
        load_recipe(recipe, overrides_of(None, "spark", None))
