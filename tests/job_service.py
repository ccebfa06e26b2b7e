"""Beam's job service as a program, with as many workers for a job as its options say; Beam 2.77's has one."""

import sys
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability import local_job_service_main
from apache_beam.runners.portability.fn_api_runner import fn_runner


class Runner(fn_runner.FnApiRunner):
    def run_via_runner_api(self, pipeline_proto: Any, options: PipelineOptions) -> Any:
        self._num_workers = int(options.view_as(DirectOptions).direct_num_workers)
        return super().run_via_runner_api(pipeline_proto, options)


if __name__ == "__main__":
    fn_runner.FnApiRunner = Runner
    local_job_service_main.run(sys.argv[1:])
