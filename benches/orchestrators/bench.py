"""Runs the same work under ecgpipe, DVC, Snakemake and a plain shell script: `bench.py ECGPIPE [--tools ...] [--shapes ...]`.

The work: nine steps over 48 files of 2 MB, every body the same `step.sh`. Shape `records`: steps 1 to 4 run once per file (192 bodies), step
5 gathers, steps 6 to 9 follow (5 bodies): 197 jobs. Shape `coarse`: each step takes the whole folder (9 bodies; in ecgpipe, where a source is
always read record by record, step 1 is 48 bodies and the other eight take all files as one bundle).

The scenarios, one after another in one working folder: cold, nothing changed, every input touched, one file changed, a parameter of step 7
that changes bytes, the parameter set back, a parameter of step 7 that no byte depends on.

Prints CPU seconds (user + system of the tool and all its children, bodies included), wall seconds and bodies run, and peak memory of the
largest process. DVC and Snakemake are installed from PyPI into `--venvs` unless they are there.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
FILE_N, FILE_BYTES = 48, 2_000_000
NAMES = [f"r{idx:03}" for idx in range(FILE_N)]
PER_RECORD, GATHERED = (1, 2, 3, 4), (5, 6, 7, 8, 9)


def write_inputs(folder):
    folder.mkdir(parents=True)
    generator = random.Random(1)
    for name in NAMES:
        (folder / f"{name}.txt").write_bytes(bytes(generator.choices(range(97, 123), k=FILE_BYTES)))


class Tool:
    """A tool in a working folder of its own. `parameter` and `remark` are the two parameters of step 7."""

    def __init__(self, work, arguments, shape):
        self.work, self.arguments, self.shape = work, arguments, shape
        self.raw = work / "data" / "raw" / "texts"
        self.bodies = work / "bodies.log"
        self.environment = dict(os.environ, BODIES=str(self.bodies), DVC_NO_ANALYTICS="1", PYTHONDONTWRITEBYTECODE="1")
        shutil.copy(HERE / "step.sh", work / "step.sh")
        self.parameter, self.remark = "1", "none"

    def run(self):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        self.bodies.write_text("")
        command = ["/usr/bin/env", "time", "-f", "%M", "-o", str(self.work / "memory"), *self.command()]
        done = subprocess.run(command, cwd=self.work, env=self.environment, capture_output=True, text=True)
        wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(f"{self.name} failed:\n{done.stdout}\n{done.stderr}")
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        memory_mb = int((self.work / "memory").read_text().split()[-1]) // 1024
        return {"cpu_s": cpu_s, "wall_s": wall_s, "bodies": len(self.bodies.read_text().split()), "memory_mb": memory_mb}


class Shell(Tool):
    """Every step, every time."""

    name = "shell"

    def setup(self):
        self.configure()

    def configure(self):
        lines = ["set -eu", "mkdir -p out"]
        for name in NAMES:
            source = f"data/raw/texts/{name}.txt"
            for step in PER_RECORD:
                lines.append(f"sh step.sh {step} - out/{name}.{step} {source}")
                source = f"out/{name}.{step}"
        lines.append("sh step.sh 5 - out/5 " + " ".join(f"out/{name}.4" for name in NAMES))
        for step in GATHERED[1:]:
            parameter = self.parameter if step == 7 else "-"
            lines.append(f"sh step.sh {step} {parameter} out/{step} out/{step - 1}")
        (self.work / "all.sh").write_text("\n".join(lines) + "\n")

    def command(self):
        return ["sh", "all.sh"]


def coarse_command(step, parameter):
    """Step `step` over whole folders: out/<step>/ from out/<step-1>/ (step 1 from the raw files)."""
    source = "data/raw/texts" if step == 1 else f"out/{step - 1}"
    if step in PER_RECORD:
        # One body: the loop is inside, so that the tool sees one stage.
        return (
            f"mkdir -p out/{step} && echo {step} >> $BODIES && "
            f"for f in {source}/*; do BODIES=/dev/null sh step.sh {step} - out/{step}/$(basename $f) $f; done"
        )
    inputs = f"{source}/*" if step == 5 else source
    return f"sh step.sh {step} {parameter} out/{step} {inputs}"


class Dvc(Tool):
    name = "dvc"

    def setup(self):
        dvc = self.arguments.venvs / "dvc" / "bin" / "dvc"
        self.dvc = str(dvc)
        for command in (["git", "init", "-q"], [self.dvc, "init", "-q"]):
            subprocess.run(command, cwd=self.work, check=True, env=self.environment, capture_output=True)
        self.configure()

    def configure(self):
        (self.work / "params.yaml").write_text(f"parameter: '{self.parameter}'\nremark: '{self.remark}'\n")
        stages = {}
        for step in PER_RECORD + GATHERED:
            parameter = "${parameter}" if step == 7 else "-"
            if self.shape == "coarse":
                source = "data/raw/texts" if step == 1 else f"out/{step - 1}"
                stage = {"cmd": coarse_command(step, parameter), "deps": ["step.sh", source], "outs": [f"out/{step}"]}
            elif step in PER_RECORD:
                source = "data/raw/texts/${item}.txt" if step == 1 else f"out/${{item}}.{step - 1}"
                out = f"out/${{item}}.{step}"
                inner = {"cmd": f"mkdir -p out && sh step.sh {step} - {out} {source}", "deps": ["step.sh", source], "outs": [out]}
                stage = {"foreach": NAMES, "do": inner}
            else:
                sources = [f"out/{name}.4" for name in NAMES] if step == 5 else [f"out/{step - 1}"]
                command = f"sh step.sh {step} {parameter} out/{step} {' '.join(sources)}"
                stage = {"cmd": command, "deps": ["step.sh", *sources], "outs": [f"out/{step}"]}
            if step == 7:
                stage["params"] = ["parameter", "remark"]
            stages[f"s{step}"] = stage
        (self.work / "dvc.yaml").write_text(json.dumps({"stages": stages}))

    def command(self):
        return [self.dvc, "repro", "-q"]


class Snakemake(Tool):
    name = "snakemake"

    def setup(self):
        self.snakemake = str(self.arguments.venvs / "snakemake" / "bin" / "snakemake")
        self.configure()

    def configure(self):
        text = [f"NAMES = {NAMES!r}", "rule all:", "    input: 'out/9'"]
        for step in PER_RECORD + GATHERED:
            parameter = "{params.parameter}" if step == 7 else "-"
            if self.shape == "coarse":
                source = "'data/raw/texts'" if step == 1 else f"'out/{step - 1}'"
                if step == 1:
                    # A folder's own time does not change with its files': the files are the inputs.
                    source = "expand('data/raw/texts/{name}.txt', name=NAMES)"
                elif step - 1 in PER_RECORD:
                    source = f"rules.s{step - 1}.output"
                output = f"directory('out/{step}')" if step in PER_RECORD else f"'out/{step}'"
                command = coarse_command(step, parameter)
            elif step in PER_RECORD:
                source = "'data/raw/texts/{name}.txt'" if step == 1 else f"'out/{{name}}.{step - 1}'"
                output = f"'out/{{name}}.{step}'"
                command = f"sh step.sh {step} - {{output}} {{input}}"
            else:
                source = "expand('out/{name}.4', name=NAMES)" if step == 5 else f"'out/{step - 1}'"
                output = f"'out/{step}'"
                command = f"sh step.sh {step} {parameter} {{output}} {{input}}"
            text += [f"rule s{step}:", f"    input: {source}", f"    output: {output}"]
            if step == 7:
                text.append(f"    params: parameter='{self.parameter}', remark='{self.remark}'")
            text.append(f"    shell: {command!r}")
        (self.work / "Snakefile").write_text("\n".join(text) + "\n")

    def command(self):
        return [self.snakemake, "--quiet", "all", "--cores", "2", "all"]


class Ecgpipe(Tool):
    name = "ecgpipe"

    def setup(self):
        for step in PER_RECORD + GATHERED:
            self.plugin(step)
        self.configure()

    def plugin(self, step):
        coarse = self.shape == "coarse"
        source, per_record = step == 1, step == 1 or (step in PER_RECORD and not coarse)
        gathers = step == (2 if coarse else 5)
        parameter = "$(sed -n 's/.*\"parameter\": *\"\\([^\"]*\\)\".*/\\1/p' job.json)" if step == 7 else "-"
        lines = ["set -eu", f"export BODIES={self.bodies}", f"step={self.work}/step.sh", "mkdir -p outputs/out"]
        if source:
            lines.append("raw=$(sed -n 's/.*\"path\": *\"\\([^\"]*\\.txt\\)\".*/\\1/p' job.json | head -n 1)")
            lines.append('sh $step 1 - outputs/out/data "$raw"')
        elif coarse and step in PER_RECORD:
            pattern = "inputs/in/*/data" if gathers else "inputs/in/*"
            name = "$(basename $(dirname $f))" if gathers else "$(basename $f)"
            lines.append(f"echo {step} >> $BODIES")
            lines.append(f"for f in {pattern}; do BODIES=/dev/null sh $step {step} - outputs/out/{name} $f; done")
        elif step == 5:
            lines.append(f"sh $step 5 - outputs/out/data {'inputs/in/*' if coarse else 'inputs/in/*/data'}")
        else:
            lines.append(f'sh $step {step} "{parameter}" outputs/out/data inputs/in/data')
        lines.append("echo '{\"format\": 1}' > result.json")
        cardinality = "each" if per_record else "one"
        description = {
            "name": f"step{step}",
            "summary": f"Step {step} of the benchmark.",
            "command": ["sh", "run.sh"],
            "outputs": {"out": {"kind": "files", "cardinality": cardinality, "doc": "What it makes."}},
        }
        if source:
            description["records"] = {"folder": "texts", "suffix": ".txt"}
        else:
            taken = "all" if gathers else cardinality
            description["inputs"] = {"in": {"kind": "files", "cardinality": taken, "doc": "What it takes."}}
        if step == 7:
            text = {"type": "text", "doc": "A word."}
            description["params"] = {"parameter": {**text, "default": "1"}, "remark": {**text, "default": "none"}}
        folder = self.work / "stages" / f"step{step}"
        folder.mkdir(parents=True)
        (folder / "run.sh").write_text("\n".join(lines) + "\n")
        (folder / "stage.yaml").write_text(json.dumps(description))

    def configure(self):
        stages = {}
        for step in PER_RECORD + GATHERED:
            stages[f"s{step}"] = {"uses": f"step{step}"}
            if step > 1:
                stages[f"s{step}"]["in"] = {"in": f"s{step - 1}.out"}
        stages["s7"]["with"] = {"parameter": self.parameter, "remark": self.remark}
        (self.work / "bench.yaml").write_text(json.dumps({"name": "bench", "stages": stages}))

    def command(self):
        return [str(self.arguments.ecgpipe.resolve()), "run", "bench.yaml", "--quiet", "--offline"]


def touch(tool):
    for path in tool.raw.iterdir():
        path.touch()


def change_one(tool):
    path = tool.raw / f"{NAMES[7]}.txt"
    path.write_bytes(b"z" + path.read_bytes()[1:])


def set_parameter(name, value):
    def edit(tool):
        setattr(tool, name, value)
        tool.configure()

    return edit


SCENARIOS = [
    ("cold", lambda tool: None),
    ("nothing changed", lambda tool: None),
    ("inputs touched", touch),
    ("one file changed", change_one),
    ("parameter of step 7", set_parameter("parameter", "2")),
    ("parameter set back", set_parameter("parameter", "1")),
    ("parameter without effect", set_parameter("remark", "other")),
]


def install(venvs, name):
    folder = venvs / name
    if not (folder / "bin" / name).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "-q", name], check=True)
    version = subprocess.run([str(folder / "bin" / name), "--version"], capture_output=True, text=True, check=True)
    print(f"{name} {version.stdout.strip()}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ecgpipe", type=pathlib.Path, help="the program, for example target/release/ecgpipe")
    parser.add_argument("--tools", nargs="+", default=["shell", "ecgpipe", "snakemake", "dvc"])
    parser.add_argument("--shapes", nargs="+", default=["records", "coarse"])
    parser.add_argument("--venvs", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "ecgpipe-bench-venvs")
    arguments = parser.parse_args()
    arguments.venvs = arguments.venvs.resolve()
    arguments.venvs.mkdir(parents=True, exist_ok=True)
    for name in ("dvc", "snakemake"):
        if name in arguments.tools:
            install(arguments.venvs, name)
    kinds = {kind.name: kind for kind in (Shell, Ecgpipe, Snakemake, Dvc)}
    for shape in arguments.shapes:
        for name in arguments.tools:
            with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
                tool = kinds[name](pathlib.Path(folder), arguments, shape)
                write_inputs(tool.raw)
                tool.setup()
                print(f"\n{name}, {shape}\n{'scenario':<26}{'CPU s':>8}{'wall s':>8}{'bodies':>8}{'MB':>7}")
                for scenario, edit in SCENARIOS:
                    edit(tool)
                    result = tool.run()
                    print(
                        f"{scenario:<26}{result['cpu_s']:>8.2f}{result['wall_s']:>8.2f}{result['bodies']:>8}{result['memory_mb']:>7}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
