#!/usr/bin/env bash
# Runs an image's own command as the image says: called by deploy/prove_image.sh inside fresh mount and network
# namespaces, with the image's files, its user, and a folder of its settings (Env, Entrypoint, Cmd, Healthcheck.Test).
#
# It proves, with a root that the kernel mounts read-only, /tmp as a tmpfs, no capability and no-new-privileges: the
# command becomes ready as process 1 on its own ports, the health check agrees, the client gets an answer, writing
# fails, and SIGTERM ends it with code 0.
set -euo pipefail

image=$1 user=$2 settings=$3
mapfile -t environment <"$settings/Env"
mapfile -t command < <(cat "$settings/Entrypoint" "$settings/Cmd")
mapfile -t check < <(tail -n +2 "$settings/Healthcheck.Test") # the first word is CMD
output=$settings/output

fail() { printf 'try_image: %s\n' "$*" >&2; cat "$output" >&2; exit 1; }
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

furnish() { # the mounts that an engine makes
    ip link set lo up
    mount --bind "$image" "$image"
    mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev,noexec tmp "$image/tmp"
    mount -t tmpfs dev "$image/dev"
    local device
    for device in null zero random urandom; do
        touch "$image/dev/$device"
        mount --bind "/dev/$device" "$image/dev/$device"
    done
    mount -t proc proc "$image/proc"
    mount -o remount,ro,bind "$image"
}

inside=(setpriv --no-new-privs chroot "--userspec=$user" --groups= "$image" env --ignore-environment "${environment[@]}")

wait_until_ready() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        grep -q 'is ready' "$output" && return
        kill -0 "$launcher" 2>/dev/null || fail "the command ended before it was ready"
        sleep 0.05
    done
    fail "not ready within 30 s"
}

status() { sed -n "s/^$1:\s*//p" "/proc/$server/status"; }

furnish
# shellcheck disable=SC2016 # expanded inside
"${inside[@]}" sh -c 'for place in / /opt/anther /models; do ! touch "$place/x" 2>/dev/null || exit 1; done; touch /tmp/x' ||
    fail "the root can be written to, or /tmp cannot"
echo "read-only root, writable /tmp"

started=$(now_ms)
unshare --pid --fork --kill-child "${inside[@]}" "${command[@]}" >"$output" 2>&1 &
launcher=$!
wait_until_ready
echo "'${command[*]}' ready after $(($(now_ms) - started)) ms"
sed 's/^/  /' "$output"
server=$(pgrep --parent "$launcher")
[[ $(status CapEff) == 0000000000000000 && $(status NoNewPrivs) == 1 ]] || fail "the process has capabilities"
echo "user $(status Uid | cut -f1), no capability, resident $(($(status VmRSS | tr -dc 0-9) / 1024)) MB"

"${inside[@]}" "${check[@]}" || fail "the health check fails"
echo "the health check passes"

"${inside[@]}" python -c "import pathlib; from bundle.golden import draw; pathlib.Path('/tmp/scene.jpg').write_bytes(draw()['jpeg-420'])"
"${inside[@]}" anther classify --json /tmp/scene.jpg || fail "no answer"

"${inside[@]}" python -c "
import os, sys, onnxruntime, service.app, service.commands.serve
missing = [m.__file__ for m in sys.modules.values() if getattr(m, '__cached__', None) and not os.path.exists(m.__cached__)]
sys.exit('without bytecode: ' + ' '.join(missing) if missing else 0)" || fail "every start compiles modules again"
echo "all that the server imports has its bytecode"

started=$(now_ms)
kill -TERM "$server"
code=0
wait "$launcher" || code=$?
[[ $code == 0 ]] || fail "SIGTERM ended it with code $code"
echo "SIGTERM ended it with code 0 after $(($(now_ms) - started)) ms"
if "${inside[@]}" "${check[@]}" 2>/dev/null; then fail "the health check passes without a server"; fi

if [[ ! -e /dev/nvidiactl ]]; then
    if "${inside[@]}" anther serve --device cuda >"$output" 2>&1; then fail "--device cuda serves without a GPU"; fi
    grep -q 'anther: --device cuda was asked for' "$output" || fail "--device cuda fails for another reason"
    echo "without a GPU, --device cuda is refused"
fi
