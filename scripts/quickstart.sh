#!/usr/bin/env bash
# From a bare machine to a trained and sampled model:
#   bash scripts/quickstart.sh [--workdir DIR] [--config.section.key=value …]
#   bash scripts/quickstart.sh BOOK …      for a book of your own, a file or a folder;
#                                          --config.corpus.path=BOOK means the same
# The run is kept in DIR, else in $WORKDIR, else in runs/tiny, or runs/<book's name>, of the
# project. Run again, it resumes or tells that it is done.
set -euo pipefail
fail() { echo "quickstart: error: $1" >&2 && exit 2; }
from="$PWD" given="${WORKDIR:-}" relative="" path="" words=()
while (($#)); do
  word="$1" book=""
  case "$word" in
    -h | --help) sed -n '1d;/^#/!q;s/^# //p' "${BASH_SOURCE[0]}" && exit ;;
    --workdir)
      given="${2:-}" relative=1
      if (($# > 1)); then shift; fi ;;
    --workdir=*) given="${word#--workdir=}" relative=1 ;;
    --config.corpus.path | --config.corpus.path=)
      fail "--config.corpus.path needs a book: write --config.corpus.path=BOOK" ;;
    --config.corpus.path=*) book="${word#--config.corpus.path=}" ;;
    --config | --coordinator_address | --num_processes | --process_id)
      words+=("$word")
      if (($# > 1)); then words+=("$2") && shift; fi ;;
    -*) words+=("$word") ;;
    *) book="$word"
      [ -e "$book" ] || fail "'$book': no such book; config keys are set as --config.section.key=value" ;;
  esac
  if [ -n "$book" ]; then
    [ -z "$path" ] || fail "give the book once"
    # environment.sh changes the folder: a relative path is meant from where the command was given.
    case "$book" in [/~]*) path="$book" ;; *) path="$from/$book" ;; esac
    words+=("--config.corpus.path=$path")
  fi
  shift
done
[ -z "$relative" ] || [ -n "$given" ] || fail "--workdir needs a folder"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
workdir="${given:-runs/tiny}"
if [ -n "$relative" ]; then
  case "$workdir" in [/~]*) ;; *) workdir="$from/$workdir" ;; esac
fi
fit="" prompt=黛玉听了，
if [ -n "$path" ]; then
  name="$(basename "${path%.*}")"
  if [ -d "$path" ]; then name="$(cd "$path" && basename "$PWD")"; fi # also of . and ..
  workdir="${given:+$workdir}" workdir="${workdir:-runs/$name}"
  # The vocabulary and the number of steps that suit the book; words given above come after them.
  keys=()
  for word in "${words[@]}"; do case "$word" in --config.*) keys+=("$word") ;; esac; done
  fit="$("$PYTHON" scripts/book.py --settings "${keys[@]}")"
fi
trap 'stopped=1' INT TERM HUP # the training gets the signal too, saves and ends
# shellcheck disable=SC2086 # $fit is words
"$PYTHON" -m hlm_jax.train --config configs/tiny.py --workdir "$workdir" \
  $fit ${words[@]+"${words[@]}"} # an empty list is unset in bash 3
if [ -n "${stopped:-}" ]; then exit 0; fi
trap - INT TERM HUP
if [ -n "$path" ]; then # continue the beginning of a chapter of that book
  read_opening='import json, sys; print(json.load(open(sys.argv[1], encoding="utf-8"))["opening"])'
  prompt="$("$PYTHON" -c "$read_opening" "$workdir/corpus.json")"
fi
set -- --workdir "$workdir" --prompt "$prompt" --max_new_tokens 200
if [ -n "$path" ]; then set -- "$@" --seed 1; fi # seed 0 wrote the passage that ended the training
printf '\n.venv/bin/python scripts/sample.py' && printf ' %q' "$@" && echo
"$PYTHON" scripts/sample.py "$@"
