#!/usr/bin/env bash
# Build the image of the Dockerfile, and that of singularity.def, without a daemon or a registry, run
# both levels inside as a stranger without network, and compare with a run outside.
#   tests/container/run.sh FOLDER_OF_COMMANDS
# Needs root, buildah and debootstrap. Base and images are kept in CONTAINER_TEST_DIR.
set -euo pipefail
commands=$(realpath "$1")
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ] || ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
    echo 'container test skipped: it needs root, buildah and debootstrap'
    exit 0
fi
work=${CONTAINER_TEST_DIR:-/var/tmp/bids_muscle-container}
base=localhost/bids_muscle_base
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs TMPDIR="$work"
# Images are copied whole (vfs) only where they cannot be laid over each other.
mkdir -p "$work/try/lower" "$work/try/upper" "$work/try/work" "$work/try/merged"
if mount -t overlay overlay "$work/try/merged" 2>/dev/null \
    -o "lowerdir=$work/try/lower,upperdir=$work/try/upper,workdir=$work/try/work"; then
    umount "$work/try/merged"
    STORAGE_DRIVER=overlay
fi
# The work area must not lie within what is copied.
storage=(--root "$work/storage" --runroot "$work/runroot")
buildah() { command buildah "${storage[@]}" "$@"; }

# The base in place of the one that the recipes pin and no registry gives here: Debian's own Python.
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    rm -rf "$work/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        bookworm "$work/base" >/dev/null
    ln -sf /usr/bin/python3 "$work/base/usr/bin/python"
    rm -rf "$work/base/var/cache/apt/archives" "$work/base/var/lib/apt/lists"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/base" /
    buildah config --env PATH=/usr/local/bin:/usr/bin:/bin "$container"
    buildah commit --quiet --rm "$container" "$base"
    rm -rf "$work/base"
fi

# Inside, pip asks the indexes that it asks here: its settings and the folders they name go with it.
python3 -m pip config list | sed -nE "s/^(:env:|global)\.(cert|find-links|index-url|extra-index-url)=/\2 = /p" |
    tr -d "'" | sort -u | sed '1i [global]' > "$work/pip.conf"
volumes=(--volume "$work/pip.conf:/etc/pip.conf:ro")
for place in $(grep -oE '(/[A-Za-z0-9_.-]+)+' "$work/pip.conf" | sort -u); do
    place=${place%/simple}  # the files of an index lie beside its list
    [ ! -e "$place" ] || volumes+=(--volume "$place:$place:ro")
done

# Where the usual index holds a CPU build of torch under the plain version, no second one is asked.
index=${TORCH_INDEX:-https://pypi.org/simple}

echo '== Dockerfile'
buildah bud --quiet --layers=false "${volumes[@]}" --build-arg "TORCH_INDEX=$index" \
    --build-arg "BASE=$base" --tag bids_muscle . > /dev/null

data=$work/run/data
rm -rf "$work/run"
mkdir -p "$work/run"
"$commands/bids_muscle-phantom" "$data" --participants 2 --nprocs 1 \
    --shape 96 80 6 --voxel-size 3 3 12 > /dev/null
chmod a+rx "$work" "$work/run"
mkdir "$work/run/outside" "$work/run/inside"
chown 12345:12345 "$work/run/inside"
for level in participant group; do
    "$commands/bids_muscle" "$data" "$work/run/outside" "$level" --nprocs 1 > /dev/null
done

# run IMAGE COMMAND...: as a user whom nobody knows, without network, home, or the right to write
# anywhere but /out and /tmp, with the 64 MB of shared memory that Docker gives.
run() {
    container=$(buildah from "$1")
    script='mount -t tmpfs -o size=64m tmpfs /dev/shm; exec buildah "$@"'
    unshare --net --mount bash -c "$script" buildah "${storage[@]}" run --user 12345:12345 \
        --env HOME=/nowhere --volume "$data:/data:ro" --volume "$work/run/inside:/out" \
        "$container" -- "${@:2}"
    buildah rm "$container" > /dev/null
}
compare() {
    # Times and memory stand in logs and on pages.
    diff -r --exclude=logs --exclude='*.html' "$work/run/outside" "$work/run/inside"
    [ -s "$work/run/inside/group.html" ]
    echo "$(find "$work/run/inside" -type f | wc -l) files as outside"
}
for level in participant group; do
    run bids_muscle bids_muscle /data /out "$level" --nprocs 1 > /dev/null
done
compare

echo '== singularity.def'
# spython forgets the ENV of some lines, and makes a HEALTHCHECK of %test that nothing understands.
"$commands/spython" recipe singularity.def |
    sed -E "s/^[A-Z_]+=/ENV &/; /^HEALTHCHECK/d; s|^FROM .*|FROM $base\nARG TORCH_INDEX=$index|" \
        > "$work/Singularity.Dockerfile"
buildah bud --quiet --layers=false "${volumes[@]}" \
    --file "$work/Singularity.Dockerfile" --tag bids_muscle_sif . > /dev/null
sed -n '/^%test/,$p' singularity.def | tail -n +2 > "$work/run/test.sh"
run bids_muscle_sif sh -c "$(cat "$work/run/test.sh")"
rm -rf "$work/run/inside"/* "$work/run/inside"/.bidsignore
run bids_muscle_sif bids_muscle /data /out participant --nprocs 1 > /dev/null
run bids_muscle_sif bids_muscle /data /out group > /dev/null
compare

for image in bids_muscle bids_muscle_sif; do
    container=$(buildah from "$image")
    echo "$image: $(du -sm "$(buildah mount "$container")" | cut -f1) MB"
    buildah umount "$container" > /dev/null
    buildah rm "$container" > /dev/null
done
buildah rmi --force bids_muscle bids_muscle_sif > /dev/null
rm -rf "$work/run"
.ci/inputs container > .ci/container-tested
