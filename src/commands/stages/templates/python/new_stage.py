"""Multiplies every lead about its baseline: a skeleton that `ecgpipe stages new` wrote. Say here what the stage does.

Run by ecgpipe as `python3 new_stage.py job.json` in a folder of its own; the protocol is in ecgpipe's docs/plugins.md.
"""

import json
import sys
import traceback

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class Failure(Exception):
    """What the user is told when the work cannot be done, and what to do about it."""

    def __init__(self, message, help=None):
        super().__init__(message)
        self.help = help


def scale(samples, baseline_adu, factor):
    """One lead: ADC values, NaN where a sample is missing."""
    return np.rint((samples - baseline_adu) * factor + baseline_adu)


def run(job):
    """Does the work of one job."""
    table = pq.read_table(job["inputs"]["signals"]["path"])
    # What belongs to the whole record, as JSON: record, patient, sampling_frequency_hz, leads, comments.
    metadata = table.schema.metadata
    columns = []
    for idx, lead in enumerate(json.loads(metadata[b"leads"])):
        column = table.column(f"lead_{idx}").combine_chunks()
        missing = column.is_null().to_numpy(zero_copy_only=False)
        samples = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        scaled = scale(samples, lead["baseline_adu"], job["params"]["factor"])
        scaled[missing] = 0
        # The smallest integer of 32 bits stands for a missing sample inside ecgpipe.
        if scaled.size and (scaled.min() <= -(2.0**31) or scaled.max() >= 2.0**31):
            raise Failure(f"lead {lead['name']}: a sample does not fit 32 bits", "use a smaller factor")
        columns.append(pa.array(scaled.astype(np.int32), mask=missing))
    names = [f"lead_{idx}" for idx in range(len(columns))]
    result = pa.Table.from_arrays(columns, names=names).replace_schema_metadata(metadata)
    pq.write_table(result, job["outputs"]["signals"]["path"], compression="none")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    result, status = {"format": 1, "metrics": [], "warnings": []}, 0
    try:
        run(job)
    except Failure as failure:
        result, status = {"format": 1, "error": {"message": str(failure), "help": failure.help}}, 1
    except Exception as error:
        traceback.print_exc()
        result, status = {"format": 1, "error": {"message": f"{type(error).__name__}: {error}"}}, 1
    with open("result.json", "w", encoding="utf-8") as file:
        json.dump(result, file)
    return status


if __name__ == "__main__":
    sys.exit(main())
