#!/bin/sh
# What an agent does when this repository is given to `agentlab job run` and the
# profile names no agent: look at the code, write a report, commit it.
set -eu

echo "task: ${AGENTLAB_TASK:-none}"
echo "a secret that arrived in the environment prints as: ${AGENTLAB_DEMO_TOKEN:-not set}"
cd "$AGENTLAB_REPO_DIR"

echo "reading $(git ls-files | wc -l) files at $(git rev-parse --short HEAD)"
python3 - "$AGENTLAB_ARTIFACTS_DIR/report.md" <<'PY'
import collections, pathlib, subprocess, sys

files = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
lines, count = collections.Counter(), collections.Counter()
for name in filter(None, files):
    path = pathlib.Path(name)
    if path.suffix != ".go" or name.endswith(".pb.go") or path.is_symlink():
        continue
    top = "/".join(path.parts[:2])
    kind = "tests" if name.endswith("_test.go") else "code"
    with path.open(errors="replace") as f:
        lines[top, kind] += sum(1 for _ in f)
    count[top] += 1

out = ["# The size of this repository", "", "| package | files | code | tests |", "|---|---:|---:|---:|"]
for top in sorted(count):
    out.append(f"| {top} | {count[top]} | {lines[top, 'code']} | {lines[top, 'tests']} |")
out.append(f"| **all** | {sum(count.values())} | {sum(n for (_, k), n in lines.items() if k == 'code')} "
           f"| {sum(n for (_, k), n in lines.items() if k == 'tests')} |")
pathlib.Path(sys.argv[1]).write_text("\n".join(out) + "\n")
print(f"counted {sum(lines.values())} lines of Go in {len(count)} packages")
PY

cp "$AGENTLAB_ARTIFACTS_DIR/report.md" SIZE.md
git add SIZE.md
git -c user.name=agent -c user.email=agent@localhost commit -q -m "docs: write down the size of the repository"
git log -1 --format='committed %h: %s'
