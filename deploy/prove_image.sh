#!/usr/bin/env bash
# Builds deploy/service.Dockerfile and tries the image on a machine without a container engine.
#
#   sudo deploy/prove_image.sh cpu|gpu [OPTION OF buildah bud...]
#
# Options reach pip's own configuration into the build where the machine needs one, for example
#   --secret id=pip.conf,src=/etc/pip.conf --volume /etc/ssl/certs:/etc/ssl/certs:ro
# ANTHER_PROOF_ROOTFS names a finished Debian tree to start from; without it, debootstrap makes one.
#
# Needs root, Debian's buildah, debootstrap, iproute2 and util-linux, and under TMPDIR 3 GB (cpu) or 15 GB (gpu).
#
# It proves: the Dockerfile builds; the image holds no torch, compiler, pip or pip cache, and nothing that its user may
# write to; it has the bytecode of all that the server imports; and what deploy/try_image.sh says.
# It does not prove: the official Python image as base (a Debian tree stands in), a registry, the engine's own seccomp
# and AppArmor profiles, memory limits, published ports, volumes, and anything on a GPU.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
extra=${1:?"which image: cpu or gpu"}
shift
[[ $EUID == 0 ]] || { echo "prove_image: needs root; run it with sudo" >&2; exit 1; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/anther-image.XXXXXX")
storage=(--root "$scratch/storage" --runroot "$scratch/run" --storage-driver vfs)
# One file system: whatever an interrupted step left mounted below belongs to the machine.
trap 'rm -rf --one-file-system "$scratch"' EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'prove_image: %s\n' "$*" >&2; exit 1; }
megabytes() { du -sm "$1" | cut -f1; }

make_base() {
    local rootfs=${ANTHER_PROOF_ROOTFS:-$scratch/rootfs} container
    if [[ ! -d $rootfs ]]; then
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$rootfs" \
            >"$scratch/debootstrap.log" 2>&1 || { tail -5 "$scratch/debootstrap.log"; fail "debootstrap failed"; }
    fi
    tar -C "$rootfs" --exclude='./dev/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
        -cf "$scratch/base.tar" .
    container=$(buildah "${storage[@]}" from scratch)
    buildah "${storage[@]}" add --quiet "$container" "$scratch/base.tar" / >/dev/null
    buildah "${storage[@]}" commit --quiet --rm "$container" base >/dev/null
    rm -rf "$scratch/rootfs" "$scratch/base.tar"
}

build() {
    local started=$SECONDS
    # The Docker format: an OCI image has no place for a health check.
    buildah "${storage[@]}" bud --isolation chroot --format docker --file "$here/service.Dockerfile" \
        --build-arg BASE=localhost/base --build-arg "EXTRA=$extra" --tag "service:$extra" "$@" "$here/.." \
        >"$scratch/build.log" 2>&1 || { tail -20 "$scratch/build.log"; fail "the build failed"; }
    echo "built in $((SECONDS - started)) s"
}

mounted() { buildah "${storage[@]}" mount "$(buildah "${storage[@]}" from "$1")"; }

refuse() {  # refuse WHAT FIND-ARGUMENTS...: no such file may be in the image
    local what=$1 found
    shift
    found=$(find "$image" -xdev "$@" -print -quit)
    [[ -z $found ]] || fail "$what in the image: ${found#"$image"}"
    echo "no $what"
}

check_contents() {
    refuse "torch" -path '*-packages/torch*'
    refuse "compiler" -path '*/bin/*' \( -name 'gcc*' -o -name 'cc' -o -name 'g++*' -o -name 'c++*' -o -name 'clang*' \)
    refuse "pip" -path '*/opt/*-packages/pip'
    refuse "pip cache" -path '*/.cache/pip'
    refuse "file that everyone may write to" -type f -perm /o+w
    refuse "folder that everyone may write to" -type d -perm /o+w ! -perm -1000
    refuse "file of the service's user" -uid "${user%%:*}"
    echo "size: $(megabytes "$image") MB, of which the base $base_size MB, anther and its packages" \
        "$(megabytes "$image/opt/anther") MB, models $(megabytes "$image/models") MB"
}

inspect() { buildah "${storage[@]}" inspect --type image --format "$1" "service:$extra"; }

say "base"
make_base
base=$(mounted base)
base_size=$(megabytes "$base")
say "build, EXTRA=$extra"
build "$@"
say "contents"
image=$(mounted "service:$extra")
user=$(inspect '{{.Docker.Config.User}}')
[[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]] || fail "the user is '$user'; expected a number over 0 and its group"
echo "user $user"
check_contents
say "in service"
for part in Env Entrypoint Cmd Healthcheck.Test; do
    inspect "{{range .Docker.Config.$part}}{{println .}}{{end}}" | sed '/^$/d' >"$scratch/$part"
done
unshare --mount --net --fork "$here/try_image.sh" "$image" "$user" "$scratch"
