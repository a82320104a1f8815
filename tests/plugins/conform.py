"""The stage of the suite in Python without packages: `mode` says what it does."""

import json
import os
import shutil
import signal
import sys
import time

job = json.load(open(sys.argv[1]))
params = job["params"]
mode = params["mode"]
result = {"format": 1}


def finish(code=0):
    json.dump(result, open("result.json", "w"))
    sys.exit(code)


def patched(old, new):
    """The beats with some of their bytes replaced."""
    content = open(job["inputs"]["beats"]["path"], "rb").read()
    assert old in content
    open(beats, "wb").write(content.replace(old, new))


files, beats = job["outputs"]["files"]["path"], job["outputs"]["beats"]["path"]
shutil.copytree(job["inputs"]["files"]["path"], files)
shutil.copy(job["inputs"]["beats"]["path"], beats)
with open(files + "/facts.txt", "w") as facts:
    print(f"mode={mode} salt={params['salt']!r} seed={job['seed']} record={job['record']} threads={job['threads']}", file=facts)

if mode == "error":
    result["error"] = {"message": "told to fail", "help": "tell it not to", "record": "a"}
    finish(1)
elif mode == "error_and_exit_0":
    result["error"] = {"message": "told to fail"}
elif mode == "exit_1":
    raise ValueError("what was wrong")
elif mode == "exit_1_without_error":
    finish(1)
elif mode == "abort":
    os.kill(os.getpid(), signal.SIGABRT)
elif mode == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "hang":
    pipe = open(params["pipe"], "w")
    time.sleep(1000)
elif mode == "events":
    print(json.dumps({"event": "progress", "done": 1, "total": 2, "unit": "parts"}))
    print(json.dumps({"event": "metric", "key": "loss", "step": 3, "value": 0.25}))
    print(json.dumps({"event": "note", "text": "a note"}))
    print(json.dumps({"event": "warning", "text": "a warning"}))
elif mode == "results":
    result["metrics"] = [{"key": "loss", "step": 3, "value": 0.25}]
    result["warnings"] = ["a warning"]
elif mode == "strange_stdout":
    print('{"event": "party"}\n{"event": \nplain text')
elif mode == "huge_stderr":
    sys.stderr.write("x" * 40_000_000)
elif mode == "memory":
    bytearray(4 << 30)
elif mode == "missing_output":
    os.remove(beats)
elif mode == "wrong_kind":
    shutil.copy(job["inputs"]["other"]["path"], beats)
elif mode == "garbage":
    open(beats, "wb").write(bytes(range(256)) * 12)
elif mode == "truncated":
    os.truncate(beats, 500)
elif mode == "other_version":
    patched(b"beats v1", b"beats v2")
elif mode == "other_record":
    patched(b'"a"', b'"z"')
elif mode == "other_unit":
    patched(b"samples", b"seconds")
elif mode == "link":
    os.remove(beats)
    os.symlink("../inputs/beats.parquet", beats)
elif mode == "no_result":
    sys.exit(0)
elif mode == "other_format":
    result["format"] = 2
finish()
