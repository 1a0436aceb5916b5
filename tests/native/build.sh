#!/usr/bin/env bash
# build.sh FOLDER TARGET [cmake arguments]: builds a target of this project; says nothing unless it fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$1" target="$2"
shift 2
mkdir -p "$folder"
{
  cmake -S . -B "$folder" -G Ninja "$@" && cmake --build "$folder" --target "$target"
} >"$folder/log" 2>&1 || { grep -B2 -A10 -i "error" "$folder/log" | head -60 >&2; exit 1; }
