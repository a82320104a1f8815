"""The same damage in the cache of DVC and of ecgpipe: who serves wrong bytes, who notices, who computes anew.

    cargo build --release
    python3 benches/corruption/corruption.py [target/release/ecgpipe] [path/to/dvc]

Without the second argument DVC is installed from PyPI into a venv of its own. Each case is one pipeline of two steps in a fresh folder, run once; then one
object of the cache is damaged, what was published from it is deleted, and the pipeline is run again, twice. "Served" means that afterwards the output in the
project has other bytes than at first. The damage is a flipped byte, a file cut in half, an empty file: with the object writable, and read-only, as DVC's
own `cache.type` links make it (treeverse/dvc#5978, #9641). Exits with 1 if ecgpipe serves a wrong byte or does not heal itself.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

DAMAGES = {
    "one byte flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
}
ENVIRONMENT = {**os.environ, "DVC_NO_ANALYTICS": "1"}
DVC_VERSION = "3.67.1"


def call(folder, *command):
    """Runs a command and gives whether it ended well, and all that it said."""
    done = subprocess.run([str(word) for word in command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def must(folder, *command):
    ended_well, said = call(folder, *command)
    assert ended_well, f"{command}: {said}"
    return said


def install_dvc(folder):
    print(f"installing DVC {DVC_VERSION} from PyPI ...", file=sys.stderr)
    venv.create(folder, with_pip=True)
    must(folder, folder / "bin" / "pip", "install", "--quiet", f"dvc=={DVC_VERSION}")
    return folder / "bin" / "dvc"


class Dvc:
    """Two stages; the output of the first is the input of the second."""

    output = "first.txt"

    def __init__(self, program):
        self.program = program
        self.name = f"DVC {must('.', program, '--version').strip()}"

    def prepare(self, folder):
        must(folder, self.program, "init", "--no-scm")
        (folder / "raw.txt").write_text("raw bytes of a record\n" * 50)
        (folder / "dvc.yaml").write_text(
            "stages:\n"
            "  first: {cmd: cp raw.txt first.txt, deps: [raw.txt], outs: [first.txt]}\n"
            "  second: {cmd: cp first.txt second.txt, deps: [first.txt], outs: [second.txt]}\n"
        )
        must(folder, self.program, "repro")

    def run(self, folder):
        # `repro` restores a missing output from the cache; `checkout` is what one does after a clone.
        return call(folder, self.program, "repro")

    def objects(self, folder):
        found = [path for path in (folder / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
        original = (folder / self.output).read_bytes()
        return [path for path in found if path.read_bytes() == original]


class Ecgpipe:
    """A small invented database, published from one artifact a record."""

    output = "out/p001.dat"

    def __init__(self, program):
        self.program = program
        self.name = must(".", program, "--version").strip()

    def prepare(self, folder):
        (folder / "make.yaml").write_text(
            "seed: 3\n"
            "stages:\n"
            "  raw: {uses: synthesise, with: {patients_n: 1, duration_s: 20}}\n"
            "publish: {out/: raw.raw}\n"
        )
        must(folder, self.program, "run", "--offline", "make.yaml")

    def run(self, folder):
        return call(folder, self.program, "run", "--offline", "make.yaml")

    def objects(self, folder):
        return [path for path in (folder / "data/store/blobs").rglob("*") if path.is_file()]


def check(tool, damage, read_only):
    """Gives the cells of a row: served, noticed, healed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tool.prepare(folder)
        original = (folder / tool.output).read_bytes()
        objects = tool.objects(folder)
        assert len(objects) == 1, objects
        path = objects[0]
        path.chmod(0o644)
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        path.chmod(0o444 if read_only else 0o644)
        (folder / tool.output).unlink()
        served = noticed = False
        for _ in range(2):
            ended_well, said = tool.run(folder)
            words = ("damaged", "corrupt", "missing", "torn", "instead of", "not be", "failed")
            noticed |= not ended_well or any(word in said.lower() for word in words)
            output = folder / tool.output
            served |= output.exists() and output.read_bytes() != original
        healed = (folder / tool.output).exists() and (folder / tool.output).read_bytes() == original
        return served, noticed, healed, said.strip().splitlines()[-1]


def main():
    program = Path(sys.argv[1] if len(sys.argv) > 1 else "target/release/ecgpipe").resolve()
    with tempfile.TemporaryDirectory() as temporary:
        dvc = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else install_dvc(Path(temporary))
        print("| damage to the object in the cache | tool | wrong bytes served | said so | right after two runs | its last word |")
        print("|---|---|---|---|---|---|")
        good = True
        for read_only in (True, False):
            for damage in DAMAGES:
                for tool in (Dvc(dvc), Ecgpipe(program)):
                    served, noticed, healed, word = check(tool, damage, read_only)
                    mode = "read-only" if read_only else "writable"
                    yes = lambda value: "yes" if value else "no"
                    print(f"| {damage}, {mode} | {tool.name} | {yes(served)} | {yes(noticed)} | {yes(healed)} | {word[:60]} |", flush=True)
                    if isinstance(tool, Ecgpipe):
                        good &= not served and noticed and healed
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
