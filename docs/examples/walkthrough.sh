#!/bin/sh
# The guide's walkthrough, in five builds, each in a process of its own:
#   1.0 first build · 1.1 nothing changed · 1.2 the source changed · 1.3 the manifest changed ·
#   1.4 with --no-cache.
# Asserts the decision of every step from --json, and counts how often the install command really
# ran by a side effect outside the cache: a wrapper on PATH that adds a line to a file.
#
# usage: walkthrough.sh [node-app|python-app] [further options of `layercache build`]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
app=${1:-}
[ $# -gt 0 ] && shift
if [ -z "$app" ]; then
    if command -v npm >/dev/null 2>&1; then app=node-app; else app=python-app; fi
fi
case $app in
node-app) command=npm source=server.js manifest=package.json ;;
python-app) command=python3 source=server.py manifest=requirements.txt ;;
*) echo "walkthrough.sh: unknown example $app (node-app or python-app)" >&2; exit 2 ;;
esac
python=$(command -v "${PYTHON:-python3}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -R "$here/$app" "$scratch/app"
mkdir "$scratch/bin"
real=$(command -v "$command")
cat >"$scratch/bin/$command" <<WRAPPER
#!/bin/sh
echo run >>"$scratch/runs"
exec "$real" "\$@"
WRAPPER
chmod +x "$scratch/bin/$command"
: >"$scratch/runs"

# build TAG OPTIONS... : builds and leaves the JSON in $scratch/TAG.json
build() {
    tag=$1
    shift
    PATH="$scratch/bin:$PATH" "$python" -m layercache build -t "myapp:$tag" \
        --cache "$scratch/cache" --executor workspace --json "$@" "$scratch/app" \
        >"$scratch/$tag.json"
}

# expect TAG RUNS DECISION... : asserts the decisions and how often the install ran so far
expect() {
    "$python" - "$scratch" "$@" <<'CHECK'
import json, pathlib, sys

scratch, tag, runs, *wanted = sys.argv[1:]
report = json.loads(pathlib.Path(scratch, tag + ".json").read_text())
assert report["ok"], report["error"]
found = [(s["op"], s["decision"]) for s in report["steps"]]
print(f"myapp:{tag}")
for step in report["steps"]:
    reason = step["reason"]
    why = ""
    if reason:
        paths = ", ".join(c["path"] for c in reason["changes"] if c["kind"] == "file")
        why = f"  ({reason['cause']}{': ' + paths if paths else ''})"
    print(f"  {step['decision'] or '-':5} {step['text']}{why}")
decisions = [decision for _, decision in found if decision is not None]
assert decisions == wanted, f"myapp:{tag}: expected {wanted}, found {decisions}"
ran = len(pathlib.Path(scratch, "runs").read_text().split())
assert ran == int(runs), f"myapp:{tag}: the install ran {ran} times so far, expected {runs}"
if tag == "1.2":
    reason = next(s for s in report["steps"] if s["text"] == "COPY . .")["reason"]
    named = [c["path"] for c in reason["changes"]]
    assert any(path.startswith("server.") for path in named), reason
CHECK
}

# The node example has one step more: its ADD.
first=$([ "$app" = node-app ] && echo 1 || echo 0)
add_hit=$([ "$first" = 1 ] && echo hit || true)
add_miss=$([ "$first" = 1 ] && echo miss || true)

build 1.0 "$@"
expect 1.0 1 $add_miss miss miss miss
build 1.1 "$@"
expect 1.1 1 $add_hit hit hit hit
echo "// one more line" | sed "s,^//,$([ "$app" = node-app ] && echo // || echo '#')," >>"$scratch/app/$source"
build 1.2 "$@"
expect 1.2 1 $add_hit hit hit miss
if [ "$app" = node-app ]; then
    sed 's/"version": "1.0.0"/"version": "1.0.1"/' "$here/$app/$manifest" >"$scratch/app/$manifest"
else
    echo "farewell==1.0.0" >>"$scratch/app/$manifest"
fi
build 1.3 "$@"
expect 1.3 2 $add_hit miss miss miss
build 1.4 --no-cache "$@"
expect 1.4 3 $add_miss miss miss miss
echo "the walkthrough went as the guide says"
